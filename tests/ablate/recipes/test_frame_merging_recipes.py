"""Recipes that merge frames and segments, or leave frames out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.recipes.frame_merging import bvllm, longvlm, scene_tilling, storm
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.weights import Weights
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests import tiny as tiny_models
from tests.ablate.plain import named
from tests.ablate.recipes.by_hand import embedded, grid, logits, matrix, noise, replaced
from tests.families import models
from tests.tiny import example

NAMES = ["tiny", "video_llava", "internvl"]


def still(model: VideoModel, count: int = 5) -> Example:
    """One frame of noise, shown again and again."""
    one = tiny_models.clip(1, 40, 60).frames
    count = model.family.frames or count
    frames = np.repeat(one, count, axis=0)
    clip = Clip(frames, np.arange(count) * 0.5, np.arange(count), 2.0, "still", count / 2)
    return model.encode(clip, "What moves?", frames=None)


def two_scenes(first: int, second: int, channels: int = 16, rows: int = 3) -> Candidates:
    """Two constant clips, one behind the other."""
    a, b = (torch.randn(rows, rows, channels, generator=torch.Generator().manual_seed(s))
            for s in (1, 2))  # fmt: skip
    return Candidates.grid(torch.stack([a] * first + [b] * second))


def test_longvlm_counts_and_conserves() -> None:
    c = noise(20, 16, 16, 32)
    c.mass[:] = np.random.default_rng(0).integers(1, 4, len(c))
    made = matrix(longvlm(), c)
    assert len(made) == 2 * (2560 - 2530)  # two segments of 30 tokens
    y = made.apply(c.x.double()).numpy()
    x = c.x.double().numpy()
    np.testing.assert_allclose(made.mass @ y, c.mass @ x, rtol=0, atol=1e-8)
    assert made.mass.sum() == c.mass.sum()
    np.testing.assert_allclose(made.gain, 1, rtol=0, atol=1e-12)
    inside = [set(made.col[made.row == row] // 2560) for row in range(len(made))]
    assert all(len(parts) == 1 for parts in inside)


def test_longvlm_leaves_equal_tokens_as_they_are() -> None:
    c = Candidates.grid(torch.ones(4, 3, 3, 32) * torch.randn(32))
    y = matrix(longvlm(2, (6, 3)), c).apply(c.x)
    torch.testing.assert_close(y, c.x[: len(y)])


def test_longvlm_without_rounds_is_neutral(tiny: VideoModel) -> None:
    x = example(tiny)
    for one in (longvlm(r=()), longvlm(2, (0, 0)), longvlm(2, to=8)):
        assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)
    assert tiny.run(x, ablate=[longvlm(2, to=3)]).cost.length[0] == len(x.layout) - 20 + 9


def joined_frames(x: torch.Tensor, tau: float) -> list[list[int]]:
    """Frames by the earlier frame that they are most like, by loops."""
    means = x.double().flatten(1, 2).mean(1).numpy()
    leader = list(range(len(means)))
    for t in range(1, len(means)):
        alike = [
            (means[s] @ means[t] / np.linalg.norm(means[s]) / np.linalg.norm(means[t]) + 1) / 2
            for s in range(t)
        ]
        if max(alike) > tau:
            leader[t] = leader[int(np.argmax(alike))]
    return [[t for t in range(len(means)) if leader[t] == s] for s in sorted(set(leader))]


@pytest.mark.parametrize("tau", [0.6, 0.75, 0.85])
def test_bvllm_averages_frames_that_are_alike(tau: float) -> None:
    c = noise(7, 2, 3, 4, seed=5)
    x = c.x.reshape(7, 2, 3, 4)
    parts = joined_frames(x, tau)
    assert 1 < len(parts) < 7
    expected = torch.cat([x[part].mean(0).reshape(-1, 4) for part in parts])
    torch.testing.assert_close(matrix(bvllm(tau), c).apply(c.x), expected)
    halved = matrix(bvllm(tau, 2), c)
    assert len(halved) == 2 * len(parts)
    assert sorted(np.bincount(halved.anchor // 6, minlength=7)) == [0] * (7 - len(parts)) + [
        2
    ] * len(parts)


@pytest.mark.parametrize("name", NAMES)
def test_bvllm_of_a_still_clip_is_one_frame(name: str, request: pytest.FixtureRequest) -> None:
    model = named(request, name)
    x = still(model)
    video = x.layout.select("video")
    frame = x.layout.group[video] == 0
    run = model.run(x, ablate=[bvllm()])
    assert run.cost.length[0] == len(x.layout) - len(video) + frame.sum()
    h = embedded(model, x)
    done = run.reductions[0]
    np.testing.assert_allclose(
        done.weights.apply(h[torch.as_tensor(video)]), h[torch.as_tensor(video[frame])], atol=1e-5
    )
    assert np.array_equal(model.run(x, ablate=[bvllm(1.0)]).logits, model.run(x).logits)


def test_scene_tilling_cuts_at_the_seam() -> None:
    c = two_scenes(5, 4)
    made = matrix(scene_tilling(), c)
    assert len(made) == 18
    torch.testing.assert_close(made.apply(c.x)[:9], c.x[:9])
    torch.testing.assert_close(made.apply(c.x)[9:], c.x[45:54])
    scaled = Candidates.grid(c.x.reshape(9, 3, 3, -1) * 7.5)
    np.testing.assert_allclose(matrix(scene_tilling(), scaled).dense(), made.dense())
    assert len(matrix(scene_tilling(deepest=0), c)) == 9
    assert len(matrix(scene_tilling(deepest=3), c)) == 36
    assert len(matrix(scene_tilling(out=(1, 1, 1)), c)) == 2
    assert len(matrix(scene_tilling(), Candidates.grid(c.x[:9].reshape(1, 3, 3, -1)))) == 9


def test_scene_tilling_in_a_run(tiny: VideoModel) -> None:
    x = still(tiny)
    h = embedded(tiny, x)
    run = tiny.run(x, ablate=[scene_tilling()])
    new = replaced(x, h, grid(x, h).mean(0).flatten(0, 1))
    np.testing.assert_allclose(run.logits[0], logits(tiny, new, torch.arange(len(new))), atol=2e-5)


@pytest.mark.parametrize("name", [*NAMES, "qwen2_5_vl"])
@pytest.mark.parametrize("s", [2, 3])
def test_storm_of_a_still_clip(name: str, s: int, request: pytest.FixtureRequest) -> None:
    """Averages are samples there, in logits too."""
    model = named(request, name)
    x = still(model)
    runs = [model.run(x, ablate=[storm(s, how)]) for how in ("stride", "mean")]
    groups = x.layout.group.max() + 1
    each = len(x.layout.select("video")) // groups
    assert runs[0].cost.length[0] == len(x.layout) - each * (groups - -(-groups // s))
    np.testing.assert_array_equal(runs[0].kept, runs[1].kept)
    np.testing.assert_allclose(runs[1].logits, runs[0].logits, rtol=0, atol=2e-5)


@pytest.mark.parametrize("s", [2, 3, 5, 7])
def test_storm_is_every_sth_frame_or_their_mean(tiny: VideoModel, s: int) -> None:
    x = example(tiny)
    h = embedded(tiny, x)
    frames = grid(x, h)
    for how, video in (
        ("stride", frames[::s]), ("mean", torch.stack([f.mean(0) for f in frames.split(s)]))
    ):  # fmt: skip
        new = replaced(x, h, video.flatten(0, 2))
        run = tiny.run(x, ablate=[storm(s, how)])
        expected = logits(tiny, new, torch.arange(len(new)))
        np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=2e-5)


def test_storm_of_single_frames_is_neutral(tiny: VideoModel) -> None:
    x = example(tiny)
    for how in ("stride", "mean"):
        assert np.array_equal(tiny.run(x, ablate=[storm(1, how)]).logits, tiny.run(x).logits)
    with pytest.raises(ProbeError, match='there are "stride" and "mean"'):
        storm(2, "median")
    with pytest.raises(ProbeError, match="whole number"):
        tiny.run(x, ablate=[storm(0, "mean")])


def test_storm_keeps_what_has_no_cell_with_its_frame() -> None:
    model = models.build("video_llava")
    x = models.example(model)
    run = model.run(x, ablate=[storm(2, "mean")])
    w: Weights = run.reductions[0].weights
    assert len(w) == 3 * 10
    np.testing.assert_allclose(np.bincount(w.row), [2] * 20 + [1] * 10)
