"""Bipartite merging against a loop over dense tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge_bipartite import Bipartite
from probe.ablate.reduction.segment import PerFrame
from probe.errors import ProbeError


def clip(size: int = 33, seed: int = 0, heavy: bool = True) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    c = Candidates.grid(torch.randn(1, 1, size, 8, generator=generator))
    mass = np.random.default_rng(seed).integers(1, 4, size).astype(float)
    key = torch.randn(size, 6, generator=generator)
    return replace(c, mass=mass if heavy else c.mass, readings={"encoder_key": key})


def loop(
    x: np.ndarray, mass: np.ndarray, rounds: list[int], first: bool, raster: bool
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """(anchors, features, masses) of ToMe with sizes, one merge at a time."""
    order, x, mass = list(range(len(x))), x.copy(), mass.copy()
    for r in rounds:
        r = min(r, (len(order) - first) // 2)
        if r == 0:
            continue
        even, odd = order[::2], order[1::2]
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        near = [[round(float(unit[i] @ unit[j]), 9) for j in odd] for i in even]
        best = [int(np.argmax(row)) for row in near]
        value = [max(row) for row in near]
        if first:
            value[0] = -np.inf
        ranked = sorted(range(len(even)), key=lambda i: (-value[i], i))
        total = {j: (mass[j] * x[j], mass[j]) for j in odd}
        for i in ranked[:r]:
            j = odd[best[i]]
            s, m = total[j]
            total[j] = (s + mass[even[i]] * x[even[i]], m + mass[even[i]])
        for j, (s, m) in total.items():
            x[j], mass[j] = s / m, m
        stay = [even[i] for i in ranked[r:]]
        if first:
            stay = [order[0]] + [i for i in stay if i != order[0]]
        order = stay + odd
        order = sorted(order) if raster else order
    return order, x[order], mass[order]


@pytest.mark.parametrize("order", ["raster", "published"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("rounds", [(0,), (1,), (5,), (99,), (8, 4, 2), (16, 8, 4, 2, 1)])
def test_merging_is_that_of_a_loop(rounds: tuple[int, ...], first: bool, order: str) -> None:
    c = clip()

    w = Bipartite(rounds, protect_first=first, order=order).weights(c)

    x = c.x.double().numpy()
    anchors, features, masses = loop(x, c.mass, list(rounds), first, order == "raster")
    assert w.anchor.tolist() == anchors
    np.testing.assert_allclose(w.apply(c.x.double()).numpy(), features, atol=1e-12)
    np.testing.assert_array_equal(w.mass, masses)


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_of_mass_times_feature_is_conserved(seed: int) -> None:
    c = clip(64, seed)

    w = Bipartite((20, 10, 5)).weights(c)

    assert len(w) == 64 - 35
    np.testing.assert_allclose(w.gain, 1)
    before = c.mass @ c.x.double().numpy()
    np.testing.assert_allclose(w.mass @ w.apply(c.x.double()).numpy(), before, atol=1e-11)
    # A partition: W = diag(1 / m') B diag(m).
    b = (w.dense() > 0).astype(float)
    np.testing.assert_array_equal(b.sum(0), 1)
    np.testing.assert_allclose(w.dense(), b * c.mass / w.mass[:, None], atol=1e-15)


def test_no_merges_are_the_identity_and_half_is_the_most() -> None:
    c = clip(32)

    assert Bipartite(0).inert and Bipartite((0, 0)).inert and not Bipartite(0, to=3).inert
    assert weights([Step(pool=Bipartite(0))], c).is_identity
    assert len(Bipartite(1000).weights(c)) == 16
    assert len(Bipartite(1000, protect_first=True).weights(c)) == 17
    assert len(Bipartite(5).weights(clip(1))) == 1


def test_identical_tokens_merge_without_change() -> None:
    c = Candidates.grid(torch.ones(1, 4, 4, 3) * torch.tensor([1.0, 2.0, 3.0]))

    w = Bipartite((4, 4)).weights(c)

    torch.testing.assert_close(w.apply(c.x), c.x[:8])


@pytest.mark.parametrize("to", [1, 3, 9, 31, 33, 40])
def test_halving_goes_on_to_the_target(to: int) -> None:
    assert len(Bipartite(to=to).weights(clip())) == min(to, 33)


def test_published_schedule_of_longvlm() -> None:
    c = Candidates.grid(torch.randn(10, 16, 16, 8, generator=torch.Generator().manual_seed(0)))

    w = Bipartite((1280, 640, 320, 160, 80, 40, 10), heads=2).weights(c)

    assert len(w) == 2560 - 2530
    assert w.mass.sum() == 2560


def test_heads_are_averaged_before_the_comparison() -> None:
    c = clip(heavy=False)
    averaged = replace(c, x=c.x.reshape(33, 4, 2).mean(1))

    w = Bipartite((9, 4), heads=4).weights(c)

    np.testing.assert_array_equal(w.dense(), Bipartite((9, 4)).weights(averaged).dense())
    assert w.anchor.tolist() != Bipartite((9, 4)).weights(c).anchor.tolist()
    with pytest.raises(ProbeError, match="heads=3 do not divide 8 channels"):
        Bipartite(heads=3).weights(c)


def test_keys_decide_where_asked() -> None:
    c = clip()
    by_key = replace(c, x=c.readings["encoder_key"])

    np.testing.assert_array_equal(
        Bipartite((9, 4), of="key").weights(c).dense(), Bipartite((9, 4)).weights(by_key).dense()
    )


def test_plain_means_forget_masses() -> None:
    c = clip()

    w = Bipartite((16, 8), weight="mean").weights(c)

    first = Bipartite(16).weights(replace(c, mass=np.ones(33)))
    middle = replace(c, mass=np.ones(33)).after(first)
    second = Bipartite(8).weights(replace(middle, mass=np.ones(17)))
    np.testing.assert_allclose(w.dense(), (second @ first).dense(), atol=1e-7)
    np.testing.assert_allclose(w.gain, 1)


def test_rounds_are_a_product() -> None:
    c = replace(clip(), x=clip().x.double())

    both = weights([Step(pool=Bipartite(10)), Step(pool=Bipartite(5))], c)

    once = weights([Step(pool=Bipartite((10, 5)))], c)
    np.testing.assert_allclose(both.dense(), once.dense(), atol=1e-12)


def test_frames_merge_by_themselves() -> None:
    c = Candidates.grid(torch.randn(3, 4, 4, 5, generator=torch.Generator().manual_seed(0)))

    w = weights([Step(segment=PerFrame(), pool=Bipartite(to=3))], c)

    assert np.bincount(c.frame[w.anchor]).tolist() == [3, 3, 3]
    assert (c.frame[w.anchor][w.row] == c.frame[w.col]).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bipartite(-1),
        lambda: Bipartite((4, -2)),
        lambda: Bipartite(to=0),
        lambda: Bipartite(weight="sum"),
        lambda: Bipartite(order="random"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert "\n" not in str(error.value)
