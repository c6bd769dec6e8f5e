"""Temporal sensitivity: falls equal single runs; what needs no order has none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from probe.diagnose import TemporalSensitivity, case_of
from probe.diagnose.counterfactual import seed_of
from probe.diagnose.temporal import LADDER
from probe.errors import ProbeError
from probe.models.loading import load
from probe.testbed import items
from probe.video import perturb
from tests.diagnose import seeing
from tests.families import models


def test_falls_are_those_of_single_runs(tiny) -> None:
    case = seeing.case(tiny)
    found = TemporalSensitivity(["shuffle@2", "drop@3"], draws=2).measure(case)
    clip, margin = case.x.clip, seeing.plain_margin(tiny, case.x)

    def fall(other) -> float:
        return margin - seeing.plain_margin(tiny, case.x.again(tiny, [other]))

    draws = [seed_of(case, draw) for draw in range(2)]
    expected = {
        "reverse": fall(perturb.reverse(clip)),
        "shuffle": np.mean([fall(perturb.shuffle(clip, seed)) for seed in draws]),
        "shuffle_2": np.mean([fall(perturb.shuffle(clip, seed, 2)) for seed in draws]),
        "drop_3": fall(perturb.drop(clip, magnitude=3, seed=draws[0])),
    }
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-4)
    reorders = ("reverse", "shuffle", "shuffle_2")
    assert found["sensitivity"] == pytest.approx(np.mean([expected[k] for k in reorders]), abs=1e-4)
    blind = seeing.plain_margin(tiny, tiny.encode(None, "Which colour?"))
    assert found["gap"] == pytest.approx(margin - blind, abs=1e-4)


def test_a_magnitude_of_single_frames_is_the_plain_change(tiny) -> None:
    case = seeing.case(tiny)
    found = TemporalSensitivity("full").measure(case)
    assert found["reverse_8"] == found["reverse_16"] == found["reverse"]
    assert {rung.replace("@", "_") for rung in LADDER} < set(found)


def test_a_still_clip_needs_no_order(tiny) -> None:
    still = np.full((6, 56, 56, 3), 90, np.uint8)
    case = seeing.case(tiny)
    case.x = tiny.encode(still, "Which colour?", seconds=np.arange(6) / 2)
    found = TemporalSensitivity().measure(case)
    assert found["sensitivity"] == pytest.approx(0, abs=1e-5)
    assert found["moved_shuffle"] == pytest.approx(0, abs=1e-6)
    assert abs(found["gap"]) > 1e-3


def test_a_model_that_sees_nothing_is_not_sensitive() -> None:
    found = TemporalSensitivity(["reverse@2", "shuffle@4"]).measure(
        seeing.case(seeing.zero_projector())
    )
    for name in ("reverse", "shuffle", "reverse_2", "shuffle_4", "moved_reverse"):
        assert found[name] == pytest.approx(0, abs=1e-5)


def test_the_pool_is_ratios_and_rankings() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([1.0, 0.0, np.nan], [30, 50, 10])
    table = pd.DataFrame(
        {
            "sample": range(90),
            "video": range(90),
            "reverse": rng.normal(np.nan_to_num(truth), 1),
            "shuffle": rng.normal(0, 1, 90),
            "gap": rng.uniform(1, 4, 90),
            "moved_reverse": rng.uniform(0, 1, 90),
            "moved_shuffle": rng.uniform(0, 1, 90),
            "needs_order": truth,
            "stays": np.where(np.arange(90) < 5, 1.0, np.where(np.isnan(truth), np.nan, 0.0)),
        }
    )
    table["sensitivity"] = (table["reverse"] + table["shuffle"]) / 2
    pooled = TemporalSensitivity(()).pool(table).set_index("name")
    assert pooled.loc["S_reverse", "value"] == pytest.approx(
        table["reverse"].mean() / table["gap"].mean()
    )
    known, moving = table[:80], table[5:80]
    for name, rows in (("auroc_reverse", known), ("auroc_reverse_moving", moving)):
        expected = roc_auc_score(rows["needs_order"], rows["reverse"])
        row = pooled.loc[name]
        assert row["value"] == pytest.approx(expected)
        assert row["low"] < expected < row["high"] and row["n"] == len(rows)


@pytest.mark.parametrize("name", ["onevision", pytest.param("qwen", marks=pytest.mark.full)])
def test_order_items_are_sensitive_and_others_are_not(name: str) -> None:
    model = load(f"testbed/{name}")
    rows = []
    for item in items("neutral", 4, seed=21, types=["order", "color", "direction", "shape"]):
        case = case_of(model, item)
        rows.append({"sample": case.id, "video": case.video})
        rows[-1] |= TemporalSensitivity(()).measure(case)
    table = pd.DataFrame(rows)
    needs = table["needs_order"] == 1
    assert needs.sum() == 2
    assert table["reverse"][needs].median() > 3
    assert table["reverse"][~needs].abs().max() < 3
    assert (table["gap"] > 3).all()


def test_wrong_arguments(tiny) -> None:
    with pytest.raises(ProbeError, match='no rung "swap@2"; write drop'):
        TemporalSensitivity(["swap@2"]).measure(seeing.case(tiny))
    with pytest.raises(ProbeError, match="draws=0"):
        TemporalSensitivity(draws=0).measure(seeing.case(tiny))
    with pytest.raises(ProbeError, match="one frame has one order"):
        TemporalSensitivity().measure(seeing.case(tiny, frames=1))


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(models.build(name), frames=4, gold=None, answers=())
    found = TemporalSensitivity(["drop@2"]).measure(case)
    assert np.isfinite([found["shuffle"], found["drop_2"], found["gap"]]).all()
    assert np.isnan(found["moved_reverse"])
