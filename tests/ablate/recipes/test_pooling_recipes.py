"""Recipes that pool, against torch, scipy, and the decoder called by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import fft
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, avg_pool1d

from probe import ProbeError
from probe.ablate.recipes.pooling import dpn, fourier_vlm, llavolta, m3, pllava, ppllava
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_text import TextSimilarity
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.ablate.plain import named
from tests.ablate.recipes.by_hand import embedded, grid, logits, matrix, noise, replaced
from tests.families import models
from tests.tiny import example


@dataclass(frozen=True)
class Equal(Score):
    """All tokens alike."""

    def score(self, c: Candidates) -> Tensor:
        return torch.zeros(len(c))


@pytest.fixture(scope="module")
def wide() -> VideoModel:
    """4 x 4 tokens a frame."""
    return tiny_models.build(tiny_models.Geometry(image=112), seed=4)


def pooled(x: Tensor, out: tuple) -> Tensor:
    """[token, channel] of adaptive average pooling of [time, row, col, channel]."""
    return adaptive_avg_pool3d(x.permute(3, 0, 1, 2)[None], out)[0].flatten(1).T


def contiguous(h: Tensor) -> Tensor:
    return torch.arange(len(h))


@pytest.mark.parametrize("out", [(5, 4, 4), (3, 2, 2), (2, 3, 3), (5, 1, 3), (1, 1, 1)])
def test_pllava_is_adaptive_pooling_before_the_decoder(wide: VideoModel, out: tuple) -> None:
    x = example(wide)
    h = embedded(wide, x)
    new = replaced(x, h, pooled(grid(x, h), out))
    run = wide.run(x, ablate=[pllava(out)])
    assert run.cost.length == (len(x.layout) - 80 + np.prod(out),) * wide.n_layers
    np.testing.assert_allclose(run.logits[0], logits(wide, new, contiguous(new)), atol=2e-5)


def test_pooling_is_linear_and_leaves_constants(wide: VideoModel) -> None:
    c, d = noise(5, 6, 7, 8), noise(5, 6, 7, 8, seed=1)
    for one in (pllava((3, 4, 2)), m3(3), fourier_vlm((4, 3)), dpn((0,))[0], llavolta(0, 4)):
        a, b, both = (matrix(one, each).apply(each.x.double()) for each in (
            c, d, replace(c, x=c.x + d.x)
        ))  # fmt: skip
        torch.testing.assert_close(a + b, both, rtol=0, atol=1e-6)
        np.testing.assert_allclose(matrix(one, c).gain, 1, rtol=0, atol=1e-12)
    assert len(matrix(pllava((1, 1, 1)), c)) == 1
    np.testing.assert_allclose(
        matrix(pllava((1, 1, 1)), c).apply(c.x)[0], c.x.mean(0), rtol=0, atol=1e-6
    )


def test_pooling_to_more_is_refused(tiny: VideoModel) -> None:
    for one in (pllava(), pllava((16, None, None)), m3(12), fourier_vlm()):
        with pytest.raises(ProbeError, match="cannot go from"):
            tiny.run(example(tiny), ablate=[one])
    with pytest.raises(ProbeError, match="it is \\(rows, columns\\)"):
        fourier_vlm((3,))


@pytest.mark.parametrize(("first", "second"), [(12, 6), (6, 3), (12, 1)])
def test_m3_in_two_steps_is_m3(first: int, second: int) -> None:
    c = noise(2, 24, 24, 4)
    once, one = matrix(m3(second), c), matrix(m3(first), c)
    again = matrix(m3(second), c.after(one)) @ one
    np.testing.assert_allclose(again.dense(), once.dense(), rtol=0, atol=1e-15)
    np.testing.assert_allclose(again.mass, once.mass)


def test_m3_in_two_steps_in_a_run(wide: VideoModel) -> None:
    x = example(wide)
    once, twice = wide.run(x, ablate=[m3(1)]), wide.run(x, ablate=[m3(2), m3(1)])
    assert once.cost.length == twice.cost.length
    np.testing.assert_allclose(twice.logits, once.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "video_llava", "qwen2_5_vl"])
def test_video_llavas_cls_stays(name: str, request: pytest.FixtureRequest) -> None:
    model = named(request, name)
    x = models.example(model)
    groups = x.layout.group.max() + 1
    without = int(((x.layout.role == "video") & (x.layout.row < 0)).sum())
    assert without == (groups if name == "video_llava" else 0)
    left = model.run(x, ablate=[m3(1)]).cost.length[0]
    assert left == len(x.layout) - len(x.layout.select("video")) + without + groups


def test_equal_scores_are_plain_pooling(wide: VideoModel) -> None:
    c = noise(4, 4, 6, 8)
    for out in [(2, 2, 3), (3, 3, 4)]:
        np.testing.assert_allclose(
            matrix(ppllava(out, score=Equal()), c).dense(), matrix(pllava(out), c).dense(),
            rtol=0, atol=1e-15,
        )  # fmt: skip
    x = example(wide)
    same = [wide.run(x, ablate=[one]).logits for one in (
        ppllava((2, 2, 2), score=Equal()), pllava((2, 2, 2))
    )]  # fmt: skip
    np.testing.assert_allclose(*same, rtol=0, atol=1e-6)


def test_ppllava_weighs_by_likeness_to_the_question(wide: VideoModel) -> None:
    h = {}
    for question in ("What moves?", "Is it red or blue there?"):
        x = example(wide, question=question)
        rows = embedded(wide, x)
        text = rows[torch.as_tensor(x.layout.select("question"))].mean(0)
        cells = grid(x, rows)
        weight = (torch.cosine_similarity(cells, text, dim=-1) / 0.05).exp()[..., None]
        video = pooled(cells * weight, (1, 2, 2)) / pooled(weight, (1, 2, 2))
        new = replaced(x, rows, video)
        run = wide.run(x, ablate=[ppllava((1, 2, 2), temp=0.05)])
        np.testing.assert_allclose(run.logits[0], logits(wide, new, contiguous(new)), atol=2e-5)
        h[question] = run.reductions[0].weights.dense()
    assert np.abs(np.subtract(*h.values())).max() > 1e-3
    assert ppllava().leaves == (TextSimilarity(),)


@pytest.mark.parametrize("out", [(12, 12), (7, 5), (3, 12, 8)])
def test_fourier_is_the_low_block_of_the_cosine_transform(out: tuple) -> None:
    c = noise(4, 24, 24, 3)
    x = c.x.double().numpy().reshape(4, 24, 24, 3)
    axes = (0, 1, 2) if len(out) == 3 else (1, 2)
    low = fft.dctn(x, axes=axes, norm="ortho")[tuple(slice(n) for n in ((4, *out)[-3:]))]
    expected = fft.idctn(low, axes=axes, norm="ortho")
    legacy = matrix(fourier_vlm(out, "legacy"), c)
    found = legacy.apply(c.x.double()).numpy()
    np.testing.assert_allclose(found, expected.reshape(-1, 3), rtol=0, atol=1e-10)
    np.testing.assert_allclose((found**2).sum(), (low**2).sum(), rtol=1e-10)  # Parseval
    np.testing.assert_allclose(legacy.dense() @ legacy.dense().T, np.eye(len(legacy)), atol=1e-12)
    inflated = (c.x.numel() / 3 / len(legacy)) ** 0.5
    np.testing.assert_allclose(legacy.gain, inflated, rtol=1e-10)
    if out == (12, 12):
        assert inflated == 2
    unit = matrix(fourier_vlm(out), c).apply(c.x.double()).numpy()
    np.testing.assert_allclose(unit * inflated, found, rtol=0, atol=1e-10)


def test_fourier_with_every_frequency_is_neutral(wide: VideoModel) -> None:
    x = example(wide)
    for out in ((4, 4), (5, 4, 4), (None, None)):
        assert np.array_equal(wide.run(x, ablate=[fourier_vlm(out)]).logits, wide.run(x).logits)


def test_dpn_at_layer_0_is_a_step_of_m3() -> None:
    c = noise(3, 6, 8, 4)
    np.testing.assert_array_equal(
        matrix(dpn((0,))[0], c).dense(), matrix(pllava((None, 3, 4)), c).dense()
    )
    assert dpn(()) == []


def test_dpn_pools_inside_the_decoder(wide: VideoModel) -> None:
    x = example(wide)
    first = int(x.layout.select("video")[0])

    def pool(h: Tensor, ids: Tensor, side: int) -> tuple[Tensor, Tensor]:
        count = 5 * side * side
        video = h[first : first + count].reshape(5, side, side, -1)
        places = ids[first : first + count].reshape(5, side, side)[:, ::2, ::2].flatten()
        small = pooled(video, (5, side // 2, side // 2))
        h = torch.cat([h[:first], small, h[first + count :]])
        return h, torch.cat([ids[:first], places, ids[first + count :]])

    h = embedded(wide, x)
    steps = {1: lambda h, ids: pool(h, ids, 4), 3: lambda h, ids: pool(h, ids, 2)}
    run = wide.run(x, ablate=dpn((1, 3)))
    np.testing.assert_allclose(run.logits[0], logits(wide, h, contiguous(h), steps), atol=2e-5)
    assert run.cost.length == (len(h), len(h) - 60, len(h) - 60, len(h) - 75)


@pytest.mark.parametrize(("k", "s"), [(0, 3), (1, 4), (2, 7)])
@pytest.mark.parametrize("position", ["mean", "first"])
def test_llavolta_averages_the_list(tiny: VideoModel, k: int, s: int, position: str) -> None:
    x = example(tiny)
    video = x.layout.select("video")
    first, count = int(video[0]), len(video)

    def pool(h: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        parts = h[first : first + count].split(s)
        small = torch.stack([part.mean(0) for part in parts])
        if count % s == 0:
            torch.testing.assert_close(small, avg_pool1d(h[first : first + count].T, s).T)
        old = ids[first : first + count].split(s)
        new = [part[0] if position == "first" else part.sum() // len(part) for part in old]
        h = torch.cat([h[:first], small, h[first + count :]])
        return h, torch.cat([ids[:first], torch.stack(new), ids[first + count :]])

    h = embedded(tiny, x)
    run = tiny.run(x, ablate=[llavolta(k, s, position)])
    expected = logits(tiny, h, contiguous(h), {k: pool})
    np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=2e-5)
    assert run.cost.length[k] == len(h) - count + -(-count // s)


def test_llavolta_of_all_tokens_is_their_mean(tiny: VideoModel) -> None:
    c = noise(5, 2, 2, 6)
    (found,) = matrix(llavolta(2, 20), c).apply(c.x)
    torch.testing.assert_close(found, c.x.mean(0))
    x = example(tiny)
    assert np.array_equal(tiny.run(x, ablate=[llavolta(1, 1)]).logits, tiny.run(x).logits)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_positions_on_three_axes_are_those_of_the_smaller_grid(name: str) -> None:
    """Against transformers' own position ids of a clip with fewer patches."""
    model = models.build(name)
    x = models.example(model)
    layout, (times, rows, cols) = x.layout, x.inputs["video_grid_thw"][0].tolist()
    merge = model.hf.config.vision_config.spatial_merge_size
    rows, cols = rows // merge, cols // merge
    h = embedded(model, x)
    for out in [(times, 1, cols), (times, rows, 2), (times, 1, 1)]:
        new = replaced(x, h, pooled(grid(x, h), out))
        video = layout.select("video")
        ids = x.inputs["input_ids"]
        keep = torch.cat([
            ids[0, : video[0]], ids[0, video[: np.prod(out)]], ids[0, video[-1] + 1 :]
        ])[None]  # fmt: skip
        given = {
            "input_ids": keep,
            "mm_token_type_ids": (keep == model.hf.config.video_token_id).int() * 2,
            "video_grid_thw": torch.tensor([[times, out[1] * merge, out[2] * merge]]),
        }
        if name == "qwen2_5_vl":
            given["second_per_grid_ts"] = x.inputs["second_per_grid_ts"]  # 4 positions a step
        places, _ = model.hf.model.get_rope_index(**given)
        run = model.run(x, ablate=[pllava(out)])
        expected = logits(model, new, places[:, 0])
        np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=3e-5)
