"""Merges along time, place by place."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge_time import Collapse, PairMerge
from probe.ablate.reduction.parts import Chosen
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_grid import Lattice
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError


def clip(time: int = 5, rows: int = 2, cols: int = 3, seed: int = 0) -> Candidates:
    x = torch.randn(time, rows, cols, 4, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(x)


def made(rest: Collapse | PairMerge, c: Candidates, group: np.ndarray) -> Weights:
    chosen = Chosen(group[:1], group[:1])  # it does not matter
    return Weights.of_rows(rest.rows(c, group, chosen, np.zeros(len(c))), len(c))


def test_a_place_becomes_its_mean_over_time_at_the_first_frame() -> None:
    c = clip()

    w = made(Collapse(), c, np.arange(30))

    assert w.anchor.tolist() == list(range(6))
    mean = c.x.reshape(5, 6, 4).mean(0)
    torch.testing.assert_close(w.apply(c.x), mean)
    np.testing.assert_allclose(w.mass, 5)
    np.testing.assert_allclose(w.gain, 1)


def test_masses_weigh_where_asked() -> None:
    mass = np.random.default_rng(0).integers(1, 5, 30).astype(float)
    c = replace(clip(), mass=mass)
    by_place = mass.reshape(5, 6)

    w = made(Collapse("mass"), c, np.arange(30))

    expected = (by_place[:, :, None] * c.x.double().numpy().reshape(5, 6, 4)).sum(0)
    after = w.mass[:, None] * w.apply(c.x.double()).numpy()
    np.testing.assert_allclose(after, expected, atol=1e-12)
    np.testing.assert_array_equal(w.mass, by_place.sum(0))


def test_the_first_of_each_place_is_that_of_its_earliest_frame() -> None:
    c = clip()
    group = np.array([2, 3, 7, 8, 9, 13, 14, 19])  # places 2, 3 | 1, 2, 3 | 1, 2 | 1

    w = made(Collapse("first"), c, group)

    assert w.is_selection
    assert sorted(w.anchor.tolist()) == [2, 3, 7]
    mean = made(Collapse(), c, group).dense()
    row = w.anchor.tolist().index(7)
    assert np.flatnonzero(mean[row]).tolist() == [7, 13, 19]


def test_newlines_are_a_place_each() -> None:
    c = clip(2, 1, 2).take(np.array([0, 1, 1, 1, 2, 3, 3, 3]))
    newline = [2, 3, 6, 7]
    c.row[newline], c.col[newline] = -1, -1

    w = made(Collapse("first"), c, np.arange(8))

    assert w.anchor.tolist() == [0, 1, 2, 3]


def test_identical_frames_collapse_as_they_are_sampled() -> None:
    x = clip(1).x.reshape(1, 2, 3, 4).expand(4, -1, -1, -1)
    c = Candidates.grid(x)

    mean, first = (weights([Step(rest=Collapse(how))], c) for how in ("mean", "first"))
    sampled = weights([Step(select=Lattice(time=4))], c)

    torch.testing.assert_close(mean.apply(c.x), sampled.apply(c.x))
    assert torch.equal(first.apply(c.x), sampled.apply(c.x))


def test_one_frame_does_not_collapse() -> None:
    assert weights([Step(segment=PerFrame(), rest=Collapse())], clip()).is_identity


def alike(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=-1).mean())


def paired(x: Tensor, code: bool) -> Tensor:
    """Frames [time, place, channel] after one pass, by a loop over the frames in between."""
    ends = alike(x[0], x[-1])
    middle = x[1:-1]
    if len(middle) < 2:
        return x
    near = [alike(a, b) for a, b in pairwise(middle)]
    out, i = [x[0]], 0
    while i < len(middle):
        last_pair = i == len(middle) - 2
        if i < len(middle) - 1 and near[i] > ends and (last_pair or near[i] > near[i + 1]):
            if last_pair:
                share = 1.0 if code else 0.5
            else:
                share = near[i] / (near[i] + near[i + 1])
            out.append(share * middle[i] + (1 - share) * middle[i + 1])
            i += 2
            continue
        if i < len(middle) - 1 or not code:
            out.append(middle[i])
        i += 1
    return torch.stack([*out, x[-1]])


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("time", [1, 2, 3, 4, 5, 6, 7])
def test_pairs_of_frames_merge_as_in_a_loop(variant: str, time: int) -> None:
    counts = set()
    for seed in range(8):
        x = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(seed))
        noise = torch.randn(time, 6, 4, generator=torch.Generator().manual_seed(100 + seed))
        x = (x + 0.7 * noise).double()
        c = Candidates.grid(x.reshape(time, 2, 3, 4))

        w = weights([Step(rest=PairMerge(variant))], c)

        expected = paired(x, variant == "code")
        torch.testing.assert_close(w.apply(c.x).reshape(-1, 6, 4), expected)
        np.testing.assert_allclose(w.gain, 1)
        counts.add(len(expected))
        if variant == "paper":
            assert w.mass.sum() == 6 * time
    assert len(counts) > 1 or time < 5


def test_a_place_that_one_frame_lacks_stays() -> None:
    x = torch.ones(4, 1, 3, 2) * torch.tensor([1.0, 0.0])
    x[0] = torch.tensor([0.0, 1.0])
    c = Candidates.grid(x)
    group = np.setdiff1d(np.arange(12), [4])  # place 1 of the second frame

    w = made(PairMerge("paper"), c, group).raster()

    assert w.anchor.tolist() == [0, 1, 2, 3, 5, 7, 9, 10, 11]
    assert w.take(np.array([3])).dense()[0, [3, 6]].tolist() == [0.5, 0.5]


def test_bad_parameters_are_refused_in_one_line() -> None:
    for make in (lambda: Collapse("last"), lambda: PairMerge("v2")):
        with pytest.raises(ProbeError) as error:
            make()
        assert "\n" not in str(error.value)


def test_whatever_was_selected_collapses() -> None:
    c = clip()

    few = weights([Step(keep_tokens=3, select=TopK(), rest=Collapse())], c)

    np.testing.assert_array_equal(few.dense(), weights([Step(rest=Collapse())], c).dense())
