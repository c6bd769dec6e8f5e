"""Scores on a trained model and clips whose evidence is known: kept, it decides; and who finds it.

The tokens that show what is asked about come from the scene graph of a testbed item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

import probe
from probe import testbed
from probe.ablate import (
    Density,
    EncoderReceived,
    KeyNorm,
    LastQuery,
    Norm,
    Random,
    Received,
    Reduce,
    Relevance,
    TextQuery,
    TextSimilarity,
    Uniform,
    Uniqueness,
    layer,
    tokens,
)
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.select_diverse import MaxMin
from probe.diagnose.items import encode_item
from probe.diagnose.margin import Margin, margin
from probe.models.encode import Example
from probe.models.video_model import VideoModel

TYPES = ["color", "shape", "order"]
COUNT = 6


@dataclass(frozen=True)
class Named(Score):
    """Scores that name positions."""

    best: tuple[int, ...] = ()

    def score(self, c: Candidates) -> Tensor:
        return torch.as_tensor(np.isin(c.position, self.best)).double()


said: dict[Score, np.ndarray] = {}


@dataclass(frozen=True)
class Heard(Score):
    """A score, and what it said."""

    of: Score = Norm()

    def leaves(self) -> tuple[Score, ...]:
        return self.of.leaves()

    def score(self, c: Candidates) -> Tensor:
        said[self.of] = self.of.score(c).double().cpu().numpy()
        return self.of.score(c)


@dataclass(frozen=True)
class Case:
    """An item, its margin, and the positions that show the evidence: mostly, and at all."""

    x: Example
    follow: Margin
    full: float
    shown: np.ndarray
    touched: np.ndarray


@cache
def model() -> VideoModel:
    return probe.load("testbed/onevision")


@cache
def cases() -> list[Case]:
    found = []
    for item in testbed.items("neutral", n=COUNT, seed=3, types=TYPES):
        x = encode_item(model(), item)
        run = model().run(x)
        follow = margin(model(), x, run, item.question.answer, item.question.options)
        share = covered(x, item)
        found.append(Case(x, follow, follow.of(run), *(
            np.flatnonzero(share >= least) for least in (0.25, 1e-6)
        )))  # fmt: skip
    return found


def covered(x: Example, item) -> np.ndarray:
    """[position], part of the token's cell that the boxes of the evidence cover."""
    layout = x.layout
    side = item.scene.size / (layout.row.max() + 1)
    share = np.zeros(len(layout))
    for frame, (x0, y0, x1, y1) in item.question.evidence:
        for p in np.flatnonzero((layout.group == frame) & (layout.row >= 0)):
            left, top = layout.col[p] * side, layout.row[p] * side
            wide = min(x1, left + side) - max(x0, left)
            high = min(y1, top + side) - max(y0, top)
            share[p] = max(share[p], max(0, wide) * max(0, high) / side**2)
    return share


def kept(case: Case, names: np.ndarray) -> float:
    """The margin with these video tokens alone."""
    one = Reduce(at=tokens(), score=Named(tuple(names.tolist())), keep_tokens=len(names))
    return case.follow.of(model().run(case.x, ablate=[one]))


def test_the_evidence_alone_keeps_the_answer_and_without_it_there_is_none() -> None:
    """A tenth of the tokens, named by the scene graph; as many others; and all the others."""
    rows, sizes = [], []
    for case in cases():
        video = case.x.layout.select("video")
        others = np.setdiff1d(video, case.touched)
        same = np.random.default_rng(0).choice(others, len(case.shown), replace=False)
        sets = (case.shown, np.sort(same), others)
        rows.append([case.full, *(kept(case, names) for names in sets)])
        sizes.append(len(case.shown) / len(video))
    full, evidence, same, without = np.mean(rows, 0)
    right = (np.array(rows) > 0).sum(0)
    assert np.mean(sizes) < 0.1 and right[0] == COUNT
    assert evidence > 0.5 * full and right[1] >= COUNT - 1  # .64 of it, 5 of 6
    assert same < 0.1 * full and without < 0.1 * full  # -.02 and -.09 of it


def area(values: np.ndarray, evidence: np.ndarray) -> float:
    """Chance that a token of the evidence scores above another one, ties counted half."""
    rank, count = rankdata(values)[evidence], evidence.sum()
    return float((rank.sum() - count * (count + 1) / 2) / (count * (~evidence).sum()))


# The layer, the score, and a bound below the mean area measured on these clips.
SCORES = [
    (2, TextQuery(), 0.85),
    (2, KeyNorm(), 0.85),
    (2, Received(), 0.7),
    (2, LastQuery(), 0.65),
    (0, EncoderReceived(), 0.8),
    (0, Uniqueness("video"), 0.85),
    (0, Uniqueness("frame"), 0.85),
    (0, Norm(), 0.65),
    (0, TextSimilarity(), 0.6),
    (0, Density(), 0.6),
    (0, Relevance(), 0.65),
]


def areas(k: int, score: Score) -> np.ndarray:
    """[item], how well a score at a layer tells the evidence from the rest."""
    found = []
    for case in cases():
        said.clear()
        video = case.x.layout.select("video")
        model().run(case.x, ablate=[Reduce(at=layer(k), score=Heard(score), keep_tokens=99)])
        found.append(area(said[score], np.isin(video, case.shown)))
    return np.array(found)


@pytest.mark.parametrize(("k", "score", "bound"), SCORES, ids=str)
def test_scores_find_the_evidence(k: int, score: Score, bound: float) -> None:
    assert areas(k, score).mean() > bound


@pytest.mark.parametrize("score", [Random(), Uniform()], ids=str)
def test_controls_do_not(score: Score) -> None:
    assert 0.42 < areas(0, score).mean() < 0.58


def test_backwards_a_score_avoids_it() -> None:
    assert areas(0, -Uniqueness("frame")).mean() < 0.15


def test_unlike_tokens_show_the_evidence() -> None:
    """Farthest points have no score; of the evidence they keep more than their share."""
    shares = []
    for case in cases():
        one = Reduce(at=tokens(), score=None, select=MaxMin(), keep=0.1)
        shares.append(model().run(case.x, ablate=[one]).kept.values[0][case.shown].mean())
    assert np.mean(shares) > 0.2
