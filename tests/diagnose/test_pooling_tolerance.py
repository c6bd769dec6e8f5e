"""Averages and coarser grids, against single runs made by hand and models that do not look."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probe import ProbeError
from probe.ablate import llavolta, pllava
from probe.diagnose import Case, Granularity, PoolingTolerance
from probe.diagnose.granularity import ladder
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.decoder import decode
from tests.diagnose import few, seeing


@pytest.fixture(scope="module")
def case() -> Case:
    model = tiny_models.build(tiny_models.Geometry(image=112), seed=4)  # 4 x 4 tokens a frame
    x = tiny_models.example(model, tiny_models.clip(2))
    return Case(model, x, "red", ("red", "blue", "green"))


def test_pooled_and_strided_margins_are_single_runs(tiny: VideoModel) -> None:
    case = Case(tiny, tiny_models.example(tiny, 3), "red", ("red", "blue", "green"))
    found = PoolingTolerance(sizes=[3, 5], draws=1).measure(case)
    for size, middle in ((3, [1, 4, 7, 10]), (5, [2, 7, 10])):
        alone = tiny.run(case.x, ablate=[llavolta(2, size)])
        assert found[f"pool {size}"] == pytest.approx(case.gold_margin(alone), abs=1e-5)
        present = np.ones((tiny.n_layers, len(case.x.layout)), bool)
        present[2:, np.delete(case.video_tokens, middle)] = False
        row = decode(tiny, case.x, present=present)[case.x.layout.last]
        red, blue, green = (row[case.first(answer)] for answer in case.answers)
        assert found[f"stride {size}"] == pytest.approx(red - max(blue, green), abs=1e-4)
    np.testing.assert_allclose(found["pooled"].removed, [1 - 4 / 12, 1 - 3 / 12])
    with pytest.raises(ProbeError, match="they rise, from 2 on"):
        PoolingTolerance(sizes=[1]).measure(case)


def test_what_is_tolerated() -> None:
    blind = seeing.case(seeing.blind_model())
    right = Case(blind.model, blind.x, best(blind), blind.answers)
    found = PoolingTolerance().measure(right)
    assert found["tolerated_pool"] == found["tolerated_random"] == 1 - 2 / 24
    wrong = next(answer for answer in blind.answers if answer != right.gold)
    other = PoolingTolerance().measure(Case(blind.model, blind.x, wrong, blind.answers))
    assert np.isnan(other["tolerated_stride"])
    place = [(0, 0)]
    needy = few.planted(place, 1)  # its first token is the middle of the first run of 2, not of 8
    found = PoolingTolerance(sizes=[2, 8], layer=3).measure(needy)
    assert found["tolerated_stride"] == 0.5


def best(case: Case) -> str:
    """The answer that the model gives."""
    row = case.run.logits[0]
    return max(case.answers, key=lambda answer: row[case.first(answer)])


def test_scales_are_single_runs(case: Case) -> None:
    found = Granularity(reruns=2).measure(case)
    assert {name for name in found if name.startswith("margin")} == {
        "margin_4x4", "margin_2x2", "margin_1x1",
    }  # fmt: skip
    right = {}
    for side in (4, 2, 1):
        ablations = [] if side == 4 else [pllava((None, side, side))]
        margin = case.gold_margin(case.model.run(case.x, ablate=ablations))
        assert found[f"margin_{side}x{side}"] == pytest.approx(margin, abs=1e-5)
        right[side] = margin > 0
    assert found["oracle"] == any(right.values())
    sizes = [side**2 for side, hit in right.items() if hit]
    np.testing.assert_equal(found["smallest"], min(sizes, default=np.nan))
    assert found["oracle_gain"] == found["oracle"] - found["oracle_random"]


def test_an_oracle_over_a_model_that_does_not_look_gains_nothing() -> None:
    blind = seeing.case(seeing.blind_model())
    for gold, value in ((best(blind), 1.0), ("green" if best(blind) != "green" else "red", 0.0)):
        found = Granularity().measure(Case(blind.model, blind.x, gold, blind.answers))
        assert (found["oracle"], found["oracle_gain"]) == (value, 0)
    text = blind.model.encode(None, "Which colour?")
    with pytest.raises(ProbeError, match="video"):
        Granularity().measure(Case(blind.model, text, "red", blind.answers))


def test_the_oracles_gain_over_the_best_scale() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, (40, 3)).astype(float)
    table = pd.DataFrame(right, columns=["right_4x4", "right_2x2", "right_1x1"])
    table["oracle"], table["video"] = right.max(1), np.arange(40) % 9
    best_scale = table.columns[np.argmax(right.mean(0))].removeprefix("right_")
    found = Granularity().pool(table).set_index("name").loc[f"oracle - {best_scale}"]
    assert found["value"] == pytest.approx(right.max(1).mean() - right.mean(0).max())
    assert found["low"] < found["value"] < found["high"]


def test_ladders_end_in_one_token() -> None:
    assert ladder(24, 24, 2) == [(24, 24), (12, 12), (6, 6), (3, 3), (2, 2), (1, 1)]
    assert ladder(6, 4, 2) == [(6, 4), (3, 2), (2, 1), (1, 1)]
    assert ladder(3, 3, 1.1)[-1] == (1, 1)
