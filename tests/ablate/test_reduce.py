"""Which tokens a reduction keeps, and arguments that are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from probe import ProbeError, ablate
from probe.ablate import (
    Knockout,
    LastQuery,
    Norm,
    NoRope,
    Random,
    Reduce,
    Uniform,
    edvt,
    fastv,
    layer,
)
from probe.capture import TokenNorms
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.tiny import dense, example

Pair = tuple[VideoModel, VideoModel]


def kept(run, number: int, x: Example) -> list[int]:
    """Video tokens in a layer."""
    there = np.flatnonzero(run.kept.values[number])
    return there[np.isin(there, x.layout.select("video"))].tolist()


def best(scores: np.ndarray, candidates: np.ndarray, count: int) -> list[int]:
    return sorted(candidates[np.argsort(-scores, kind="stable")[:count]].tolist())


@pytest.mark.parametrize("k", [1, 2])
def test_fastv_keeps_what_the_last_position_attends_to_most(pair: Pair, k: int) -> None:
    model, eager = pair
    x = example(model, answer="red")  # the prompt's last position decides, not the answer's
    video = x.layout.select("video")
    scores = dense(eager, x)[k - 1, :, x.layout.last].mean(0)[video]
    for keep in (0.5, 0.2):
        count = len(video) - round(len(video) * (1 - keep))
        run = model.run(x, ablate=[fastv(k, keep)])
        assert kept(run, k, x) == best(scores, video, count)
        assert kept(run, k - 1, x) == video.tolist()
        for number in range(k, model.n_layers):
            assert (run.kept.values[number] == run.kept.values[k]).all()
        assert kept(eager.run(x, ablate=[fastv(k, keep)]), k, x) == kept(run, k, x)


def test_norm_keeps_the_largest(pair: Pair) -> None:
    model, _ = pair
    x = example(model)
    video = x.layout.select("video")
    norms = model.run(x, [TokenNorms()]).data.token_norms.sel(vector="residual", layer=2).values
    run = model.run(x, ablate=[Reduce(at=layer(2), score=Norm(), keep_tokens=6)])
    assert kept(run, 2, x) == best(norms[video], video, 6)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 19])
def test_uniform_is_close_to_evenly_spaced(tiny: VideoModel, count: int) -> None:
    x = example(tiny)
    video = x.layout.select("video")
    run = tiny.run(x, ablate=[Reduce(at=layer(1), score=Uniform(), keep_tokens=count)])
    there = kept(run, 1, x)
    assert len(there) == count
    edges = np.concatenate([[video[0] - 1], there, [video[-1] + 1]])
    assert np.diff(edges).max() <= 2 * np.ceil(len(video) / count) + 1


def test_random_is_seeded(tiny: VideoModel) -> None:
    x = example(tiny)

    def chosen(seed: int) -> list[int]:
        torch.manual_seed(int(torch.randint(1000, ())))
        return kept(tiny.run(x, ablate=[Reduce(at=layer(1), score=Random(seed), keep=0.5)]), 1, x)

    assert chosen(0) == chosen(0) and len(chosen(0)) == 10
    assert len({tuple(chosen(seed)) for seed in range(6)}) > 3
    share = np.zeros(len(x.layout))
    for seed in range(40):
        share[chosen(seed)] += 1 / 40
    assert (share[x.layout.select("video")] > 0.15).all() and share.max() < 0.85


@pytest.mark.parametrize(
    ("keep", "left"), [(0.5, 10), (0.125, 2), (0.375, 8), (0.99, 20), (0.0, 0), (0.01, 0), (0.1, 2)]
)
def test_rounding_is_that_of_fastv(tiny: VideoModel, keep: float, left: int) -> None:
    assert left == 20 - round(20 * (1 - keep))
    run = tiny.run(
        example(tiny), ablate=[Reduce(at=layer(1), score=Norm(), keep=keep)] if left < 20 else []
    )
    assert run.cost.length[1] == len(run.layout) - 20 + left


def test_ties_go_to_the_earlier_token(tiny: VideoModel) -> None:
    @dataclass(frozen=True)
    class Same(ablate.Norm):
        def score(self, c):
            return torch.zeros(len(c))

    x = example(tiny)
    run = tiny.run(x, ablate=[Reduce(at=layer(1), score=Same(), keep_tokens=7)])
    assert kept(run, 1, x) == x.layout.select("video")[:7].tolist()


def test_fastv_is_a_reduce() -> None:
    assert fastv(k=3, keep=0.25) == Reduce(at=layer(3), score=LastQuery(), keep=0.25)
    assert edvt() == NoRope("video -> text")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Reduce(), "give keep= .* or keep_tokens="),
        (Reduce(keep=0.5, keep_tokens=3), "give keep= .* or keep_tokens="),
        (Reduce(keep=1.5), "it is a fraction"),
        (Reduce(keep=-0.1), "it is a fraction"),
        (Reduce(keep_tokens=21), "there are 20 candidates"),
        (Reduce(keep_tokens=-1), "keep_tokens=-1; it is a count"),
        (Reduce(at=layer(4), keep=0.5), "layer 4 does not exist; the model has layers 0 to 3"),
        (Reduce(at=layer(0), keep=0.5), "no attention before layer 0"),
        (Reduce(keep=0.5, of="question + last"), "positions that are read"),
        (Reduce(keep=0.5, of="all"), "positions that are read"),
        (Reduce(keep=0.5, of="frame 9"), "frames 0 to 4"),
        (Knockout("video -> last", layers=9), "layer 9 does not exist"),
        (Knockout("video -> nothing"), "not known; there are"),
        (Knockout("last -> video"), "source comes after"),
        (NoRope("video"), "write it as"),
        (NoRope("video -> last", layers="x"), 'is not "all"'),
    ],
    ids=str,
)
def test_wrong_arguments(tiny: VideoModel, wrong, words: str) -> None:
    x = example(tiny)
    for do in (lambda: tiny.run(x, ablate=[wrong]), lambda: tiny.generate(x, ablate=[wrong])):
        with pytest.raises(ProbeError, match=words) as error:
            do()
        assert "\n" not in str(error.value)
