"""Cases, what they share between diagnoses, and what many of them say together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probe import ProbeError
from probe.capture import AttentionMass, TokenNorms
from probe.diagnose import Case, Diagnosis, diagnose, parse
from probe.diagnose.pool import means
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models


@dataclass(frozen=True)
class Share(Diagnosis):
    """Attention from the last position to the clip."""

    layer: int = 0

    def reads(self, case: Case) -> Sequence[AttentionMass]:
        return [AttentionMass(queries=["last"], keys=["video"])]

    def measure(self, case: Case) -> dict[str, float | xr.DataArray]:
        mass = case.of(self.reads(case)[0]).mean("head").squeeze(drop=True)
        return {"share": float(mass[self.layer]), "by_layer": mass}


@dataclass(frozen=True)
class Truthful(Diagnosis):
    """Needs to know what is true."""

    needs: ClassVar[tuple[str, ...]] = ("clip", "truth")

    def measure(self, case: Case) -> dict[str, float]:
        return {"right": float(case.right(case.run))}


@pytest.fixture
def case(tiny: VideoModel) -> Case:
    x = tiny.encode(tiny_models.clip(), "What is it?", frames=None)
    return Case(tiny, x, "red", ("red", "blue", "green"))


def test_margins_are_of_log_probabilities(case: Case) -> None:
    logits = np.asarray(case.run.logits[0], np.float64)
    p = np.exp(logits) / np.exp(logits).sum()
    red, blue, green = (p[case.first(name)] for name in case.answers)
    expected = np.log(red) - np.log(max(blue, green))
    assert case.gold_margin(case.run) == pytest.approx(expected, abs=1e-5)
    assert case.right(case.run) == (expected > 0)
    among = np.array([red, blue, green]) / (red + blue + green)
    np.testing.assert_allclose(case.probabilities(case.run), among, rtol=1e-5)


def test_without_answers_every_token_is_a_rival(tiny: VideoModel, case: Case) -> None:
    free = Case(tiny, case.x)
    first, second = np.sort(free.run.logits[0])[::-1][:2]
    assert free.gold_margin(free.run) == pytest.approx(first - second, abs=1e-6)


def test_one_pass_reads_what_several_diagnoses_want(
    tiny: VideoModel, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    run = VideoModel.run
    monkeypatch.setattr(VideoModel, "run", lambda *a, **k: passes.append(1) or run(*a, **k))
    found = diagnose(case, [Share(), Share(layer=1)])
    case.of(AttentionMass(queries=["last"], keys=["video"]))
    assert case.run.logits.shape[0] == 1
    assert len(passes) == 1
    alone = tiny.run(case.x, [AttentionMass(queries=["last"], keys=["video"])])
    mass = alone.data.attention_mass.mean("head").values.ravel()
    assert found[Share()]["share"] == pytest.approx(mass[0])
    assert found[Share(layer=1)]["share"] == pytest.approx(mass[1])


def test_a_capture_keeps_its_own_labels_beside_others(case: Case) -> None:
    last = AttentionMass(queries=["last"], keys=["video"])
    question = AttentionMass(queries=["question"], keys=["frame 0", "frame 1"])
    case.read([last, question, TokenNorms()])
    assert case.of(last).sizes["query_group"] == 1
    assert case.of(question).sizes["key_group"] == 2
    assert not np.isnan(case.of(question)).any()
    with pytest.raises(ProbeError, match="did not capture"):
        case.run.of(AttentionMass(queries=["all"]))


def test_what_a_case_lacks_is_named(tiny: VideoModel, case: Case) -> None:
    with pytest.raises(ProbeError, match="truthful: needs known truth"):
        diagnose(case, [Share(), Truthful()])
    with pytest.raises(ProbeError, match='"red" is not among the answers'):
        Case(tiny, case.x, "red", ("blue", "green"))
    with pytest.raises(ProbeError, match="without an answer"):
        Case(tiny, tiny.force(case.x, [5]))
    same = Case(tiny, case.x, "red circle", ("red circle", "red square"))
    with pytest.raises(ProbeError, match="begin with the same token"):
        same.gold_margin(same.run)


def test_a_diagnosis_of_ones_own_is_read_from_text(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Share(layer=2)
    assert made.to_json() == {"kind": f"{__name__}:Share", "layer": 2}
    monkeypatch.setitem(sys.modules, "shares", sys.modules[__name__])
    assert parse("shares:Share(layer=2)") == [made]
    assert parse("shares.Share") == [Share()]
    with pytest.raises(ProbeError, match="'shares:Shore' cannot be imported"):
        parse("shares:Shore()")


def test_means_have_intervals_over_videos_and_leave_out_what_is_undefined() -> None:
    values = [0.0, 1.0, 2.0, 3.0, np.nan]
    table = pd.DataFrame(
        {"sample": list("abcde"), "video": [1, 1, 2, 3, 3], "type": "x", "score": values}
    )
    (row,) = means(table).itertuples()
    assert (row.name, row.value, row.n, row.clusters) == ("score", 1.5, 4, 3)
    assert 0.5 <= row.low < 1.5 < row.high <= 3
    one = means(table.head(2)).iloc[0]
    assert one["value"] == 0.5
    assert np.isnan(one["low"])
