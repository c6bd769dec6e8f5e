"""Deletion and insertion against runs made one by one in another way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr

import probe
from probe import testbed
from probe.ablate import Knockout
from probe.diagnose import (
    AttentionMap,
    Case,
    EvidenceMap,
    Faithfulness,
    OcclusionMap,
    RandomMap,
    UniformMap,
    case_of,
    diagnose,
)
from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.occlusion import blocks
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests.tiny import example

STEPS = (0.1, 0.5)


@dataclass(frozen=True)
class Odd(ImportanceMap):
    """Tokens with odd numbers are best, late ones before early ones."""

    def scores(self, case: Case) -> np.ndarray:
        number = np.arange(len(case.video_tokens))
        return (number % 2) * 100.0 + number


def measured(case: Case, *maps: ImportanceMap, by: str = "drop", steps=STEPS) -> dict:
    made = Faithfulness(maps, steps, by)
    return diagnose(case, [made])[made]


def trapezoid(fraction, values) -> float:
    pairs = zip(fraction, fraction[1:], values, values[1:], strict=False)
    return sum((b - a) * (u + v) / 2 for a, b, u, v in pairs)


@pytest.mark.parametrize("by", ["drop", "cut"])
def test_curves_are_single_runs(tiny: VideoModel, by: str) -> None:
    """Tokens that nobody sees are as good as absent: each run is one with a knockout."""
    case = Case(tiny, example(tiny), "r", ("r", "b", "g"))
    tokens, length = case.video_tokens, len(case.x.layout)
    best = [*range(19, 0, -2), *range(18, -1, -2)]

    def run(gone: list[int]) -> tuple[float, float]:
        positions = tokens[sorted(gone)]
        rest = np.setdiff1d(np.arange(length), positions)
        edge = (positions, rest if by == "drop" else "text")
        found = tiny.run(case.x, ablate=[Knockout(edge)] if gone else [])
        row = found.logits[0, [case.first(text) for text in case.answers]].astype(float)
        p = np.exp(row) / np.exp(row).sum()
        return p[0], row[0] - row[1:].max()

    gone = {
        "deletion": [[], best[:2], best[:10], best],
        "insertion": [best, best[2:], best[10:], []],
    }
    found = measured(case, Odd(), by=by)
    for name, lists in gone.items():
        expected = np.array([run(one) for one in lists])
        curve = found["curves"].sel(map="Odd()", curve=name)
        np.testing.assert_allclose(curve, expected[:, 0], atol=1e-5)
        np.testing.assert_allclose(curve.fraction, [0, 0.1, 0.5, 1])
        areas = [trapezoid([0, 0.1, 0.5, 1], expected[:, n]) for n in (0, 1)]
        assert found[f"{name} Odd()"] == pytest.approx(areas[0], abs=1e-5)
        assert found[f"{name}_margin Odd()"] == pytest.approx(areas[1], abs=1e-4)
    assert np.ptp(found["curves"].values) > 0.01


def test_agreement_is_a_rank_correlation_over_blocks(tiny: VideoModel) -> None:
    case = Case(tiny, example(tiny), "r", ("r", "b", "g"))
    found = measured(case, AttentionMap(), OcclusionMap("absolute"), UniformMap(), by="cut")
    number = blocks(case.x.layout, 1, 4)
    fall = OcclusionMap().scores(case)
    first = np.unique(number, return_index=True)[1]
    scores = AttentionMap().scores(case)
    means = [scores[number == n].mean() for n in range(number.max() + 1)]
    expected = spearmanr(means, np.abs(fall[first])).statistic
    assert found["agreement AttentionMap()"] == pytest.approx(expected)
    expected = spearmanr(means, fall[first]).statistic
    assert found["agreement_signed AttentionMap()"] == pytest.approx(expected)
    assert found['agreement OcclusionMap(of="absolute")'] == pytest.approx(1)
    assert np.isnan(found["agreement UniformMap()"])


@cache
def item_cases() -> list[Case]:
    model = probe.load("testbed/onevision")
    items = testbed.items("neutral", n=2, seed=5, types=["color", "shape"])
    return [case_of(model, item) for item in items]


@pytest.mark.full
def test_the_evidence_decides_on_a_trained_model() -> None:
    """Without it the answer falls at once; random tokens do little. Means of two items."""
    found = [
        measured(case, EvidenceMap(), RandomMap(), by="cut", steps=(0.05, 0.1, 0.2, 0.5))
        for case in item_cases()
    ]
    mean = {name: np.mean([one[name] for one in found]) for name in found[0] if "Map" in name}
    assert mean["deletion EvidenceMap()"] < mean["deletion RandomMap()"] - 0.2
    margins = [mean[f"insertion_margin {one}"] for one in ("EvidenceMap()", "RandomMap()")]
    assert margins[0] > margins[1]


def test_without_answers_all_tokens_compete(tiny: VideoModel) -> None:
    case = Case(tiny, example(tiny), "r")
    found = measured(case, RandomMap(), by="cut")
    p = np.exp(case.run.logits[0].astype(float))
    start = found["curves"].sel(map="RandomMap()", curve="deletion").values[0]
    assert start == pytest.approx(p[case.first("r")] / p.sum(), rel=1e-4)


def test_what_is_refused(tiny: VideoModel) -> None:
    case = Case(tiny, example(tiny), "r", ("r", "b"))
    with pytest.raises(ProbeError, match="there are drop and cut"):
        measured(case, RandomMap(), by="knock")
    for steps in ((), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ProbeError, match="fractions between 0 and 1 that increase"):
            measured(case, RandomMap(), steps=steps)
    with pytest.raises(ProbeError, match="needs the right answer"):
        measured(Case(tiny, example(tiny)), RandomMap())
