"""Sums, products, multiples, and scores inside a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from probe.ablate.reduction.arithmetic import FrameScore, Normalised, Scaled, Sum, Times
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.ablate.scores import LastQuery, Norm, Random
from probe.ablate.scores_attention import Received
from probe.errors import ProbeError


@dataclass(frozen=True)
class Given(Score):
    """Scores by hand."""

    numbers: tuple[float, ...] = ()

    def score(self, c: Candidates) -> torch.Tensor:
        return torch.tensor(self.numbers)[c.position]


C = Candidates.grid(torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0)))
A, B = Given((1, 2, 3, 0, 4, 4)), Given((2, 0, 1, 5, 1, 1))


def test_sums_products_and_multiples() -> None:
    assert (A + B).score(C).tolist() == [3, 2, 4, 5, 5, 5]
    assert (A * B).score(C).tolist() == [2, 0, 3, 0, 4, 4]
    assert (A * -2).score(C).tolist() == [-2, -4, -6, 0, -8, -8]
    assert (A + B * 2 + A * B).score(C).tolist() == [7, 2, 8, 10, 10, 10]
    assert (A - B).score(C).tolist() == [-1, 2, 2, -5, 3, 3]
    assert (-A).score(C).tolist() == (-1 * A).score(C).tolist() == [-1, -2, -3, 0, -4, -4]
    assert A.per("rank") == Normalised(A, "rank") and A.frame("max") == FrameScore(A, "max")
    assert (A + Random(1)).score(C).dtype == torch.float64


def test_leaves_are_each_once_and_in_order() -> None:
    one = (LastQuery() + Received() * Norm(of="key")) * 2 + Normalised(LastQuery())
    assert [leaf.kind for leaf in one.leaves()] == ["last_query", "received", "key_norm"]


@pytest.mark.parametrize(
    ("how", "first", "second"),
    [
        ("sum", [1 / 6, 2 / 6, 3 / 6], [0, 0.5, 0.5]),
        ("max", [1 / 3, 2 / 3, 1], [0, 1, 1]),
        ("minmax", [0, 0.5, 1], [0, 1, 1]),
        ("rank", [0, 0.5, 1], [0, 1, 0.5]),
        ("softmax", np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(), None),
        ("zscore", [-(1.5**0.5), 0, 1.5**0.5], None),
    ],
)
def test_normalised_inside_a_frame(how: str, first, second) -> None:
    found = Normalised(A, how).score(C).numpy()
    np.testing.assert_allclose(found[:3], first, rtol=1e-12)
    if second is not None:
        np.testing.assert_allclose(found[3:], second, rtol=1e-12)


@pytest.mark.parametrize("how", ["sum", "max", "minmax", "softmax", "zscore", "rank"])
def test_a_frame_of_equal_scores_stays_finite_and_equal(how: str) -> None:
    found = Normalised(Given((0, 0, 0, 3, 3, 3)), how).score(C)
    assert torch.isfinite(found).all()
    for frame in found.reshape(2, 3):
        ordered = frame.argsort(descending=True, stable=True).tolist()
        assert ordered == [0, 1, 2]
        assert how == "rank" or len(frame.unique()) == 1


def test_a_frames_value_for_all_its_tokens() -> None:
    np.testing.assert_allclose(FrameScore(A).score(C), [2, 2, 2, 8 / 3, 8 / 3, 8 / 3])
    assert FrameScore(A, "max").score(C).tolist() == [3, 3, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Scaled(A, 0), "factor=0; it is a number other than 0"),
        (lambda: A * float("nan"), "factor=nan"),
        (lambda: Normalised(A, "mean"), 'how="mean"; there are sum, max, minmax'),
        (lambda: FrameScore(A, "sum"), 'how="sum"; there are mean and max'),
        (lambda: Sum(()), "give a list of scores"),
        (lambda: Times([]), "give a list of scores"),
        (lambda: Normalised(A * -1).score(C), "below 0 in places"),
    ],
)
def test_refusals(make, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        make()
