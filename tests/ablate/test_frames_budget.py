"""Thumbnails, and unequal numbers of tokens for frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from probe import spec
from probe.ablate.frame_budget import FrameRelevance, frames_for
from probe.ablate.frame_scores import EqualFrames, FrameChange, FrameScorer, SaysYes, ShuffledFrames
from probe.ablate.recipes.frames import quota, st_llm, ts_llava
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.thumbnail import Thumbnail, collage, grid_of
from probe.errors import ProbeError
from probe.models.encode import Example
from probe.models.given import Picture
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests import tiny as tiny_models
from tests.families import models
from tests.tiny import clip, example

WIDE = tiny_models.Geometry(image=112)  # 8 x 8 patches, 4 x 4 tokens a frame


@pytest.fixture(scope="module")
def wide() -> VideoModel:
    return tiny_models.build(WIDE, seed=3)


@dataclass(frozen=True)
class Fixed(FrameScorer):
    """Scores that are written down."""

    values: tuple[float, ...] = ()

    def scores(self, model, x, clip, frames):
        return np.asarray(self.values, dtype=float)[frames]


def embeddings(model: VideoModel, x: Example) -> torch.Tensor:
    """What enters the decoder, [position, channel]."""
    taken = []
    layer = model.hf.model.language_model.layers[0]
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: taken.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad():
        model.hf(**x.inputs)
    hook.remove()
    return taken[0][0]


def decoded(model: VideoModel, rows: torch.Tensor) -> np.ndarray:
    """Logits at the last of some rows, at contiguous positions, by the Hugging Face model."""
    with torch.no_grad():
        ids = torch.arange(len(rows))[None]
        out = model.hf.model.language_model(inputs_embeds=rows[None], position_ids=ids)
        return model.hf.lm_head(out.last_hidden_state[0, -1:]).numpy()


# -- thumbnails ------------------------------------------------------------------------------


def test_the_grid_is_nearly_square_with_rows_at_least_columns() -> None:
    found = {count: grid_of(count) for count in (1, 2, 4, 6, 7, 8, 9, 12)}
    assert found == {1: (1, 1), 2: (2, 1), 4: (2, 2), 6: (3, 2), 7: (7, 1), 8: (4, 2), 9: (3, 3),
                     12: (4, 3)}  # fmt: skip


def test_collage_is_equidistant_frames_row_by_row() -> None:
    frames = np.zeros((50, 60, 40, 3), np.uint8)
    frames += (5 * np.arange(50, dtype=np.uint8))[:, None, None, None]
    made = collage(Clip.from_array(frames, fps=1), 6)
    assert made.shape == (60, 40, 3)
    cells = made.reshape(3, 20, 2, 20, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    assert (cells[:, 0, :, 0, 0] // 5).ravel().tolist() == [0, 10, 20, 29, 39, 49]


def test_collage_averages_areas() -> None:
    shown = clip(4, 40, 60)
    made = collage(shown, 4)
    means = shown.frames.astype(float).reshape(4, 20, 2, 30, 2, 3).mean((2, 4))
    assert np.abs(made[:20, :30] - means[0]).max() <= 0.51
    assert np.abs(made[20:, 30:] - means[3]).max() <= 0.51
    assert collage(clip(6, 41, 61), 6).shape == (41, 61, 3)
    assert collage(shown, 6 - 2, side=336).shape == (336, 336, 3)
    assert collage(clip(6), 6, side=100).shape == (99, 100, 3)


def test_one_frame_is_the_frame(tiny: VideoModel) -> None:
    shown = clip(3)
    assert np.array_equal(collage(shown, 1), shown.frames[0])
    x = example(tiny, shown)
    y = tiny.encode([shown, shown.frames[0]], "What moves?", frames=None)
    assert np.array_equal(tiny.run(x, ablate=[Thumbnail(1)]).logits, tiny.run(y).logits)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "internvl"])
@pytest.mark.parametrize("order", ["after", "before"])
def test_an_image_beside_the_clip(name: str, order: str) -> None:
    model = models.build(name)
    shown = clip(6, 40, 60)
    picture = Picture(collage(shown, 6))
    both = [shown, picture] if order == "after" else [picture, shown]
    how = {"options": ["red", "blue"], "answer": "A", "frames": None}
    x = model.encode(shown, "What moves?", **how)
    y = model.encode(both, "What moves?", **how)
    assert np.array_equal(model.run(x, ablate=[Thumbnail(6, order)]).logits, model.run(y).logits)


@pytest.mark.parametrize(("name", "size"), [("llava_onevision", 1), ("qwen2_5_vl", 2)])
@pytest.mark.parametrize("order", ["after", "before"])
def test_a_frame_of_the_clip(name: str, size: int, order: str) -> None:
    model = models.build(name)
    shown = clip(6, 40, 60)
    extra = np.stack([collage(shown, 4)] * size)
    parts = [shown.frames, extra] if order == "after" else [extra, shown.frames]
    end = -1 if order == "after" else 0
    times = [*shown.seconds, *[shown.seconds[end]] * size]
    by_hand = Clip(np.concatenate(parts), np.sort(times), np.arange(6 + size), 6.0, "by hand", 3.0)
    x, y = (model.encode(c, "What moves?", frames=None) for c in (shown, by_hand))
    one = Thumbnail(4, order, "frame")
    assert np.array_equal(model.run(x, ablate=[one]).logits, model.run(y).logits)


def test_thumbnails_refuse(tiny: VideoModel) -> None:
    fixed, merging = models.build("instructblipvideo"), models.build("qwen2_5_vl")
    for model, frames, one, words in (
        (tiny, 5, Thumbnail(6), "count=6 frames of a clip of 5; take 1 to 5"),
        (tiny, 5, Thumbnail(5, "beside"), 'order is "after" or "before"'),
        (tiny, 5, Thumbnail(5, where="frame", side=336), "leave side out"),
        (tiny, 5, Thumbnail(5, side=2), "5 x 1 frames on 2 x 2 pixels"),
        (fixed, 4, Thumbnail(4), "takes no images beside a clip"),
        (fixed, 4, Thumbnail(4, where="frame"), "takes 4 frames a clip and no other"),
        (merging, 5, Thumbnail(4, where="frame"), "merges 2 frames, and the last of 5"),
    ):
        x = model.encode(clip(frames, 40, 60), "What?", frames=None)
        with pytest.raises(ProbeError, match=words) as error:
            model.run(x, ablate=[one])
        assert "\n" not in str(error.value)
    x = tiny.encode(None, "What?")
    assert Thumbnail(6).prepare(tiny, x) is x


# -- TS-LLaVA --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["after", "before"])
def test_ts_llava_is_its_definition(wide: VideoModel, order: str) -> None:
    shown = clip(6, 60, 60)
    x = example(wide, shown)
    picture = Picture(collage(shown, 6))
    both = [shown, picture] if order == "after" else [picture, shown]
    y = wide.encode(both, "What moves?", frames=None)
    tokens = y.layout.select("video")
    assert len(tokens) == 6 * 16
    taken = tokens[np.round(np.linspace(0, len(tokens) - 1, 21)).astype(int)]
    assert taken[0] == tokens[0] and taken[-1] == tokens[-1]
    left = np.setdiff1d(np.arange(len(y.layout)), np.setdiff1d(tokens, taken))
    run = wide.run(x, ablate=ts_llava(21, order=order))
    np.testing.assert_allclose(
        run.logits[-1:], decoded(wide, embeddings(wide, y)[left]), rtol=0, atol=1e-4
    )


def test_ts_llava_with_all_tokens_is_the_thumbnail_alone(wide: VideoModel) -> None:
    x = example(wide, clip(6))
    every = wide.run(x, ablate=ts_llava(6 * 16))
    assert np.array_equal(every.logits, wide.run(x, ablate=[Thumbnail()]).logits)


def test_ts_llava_samples_the_frames_and_not_the_thumbnail(wide: VideoModel) -> None:
    x = example(wide, clip(6))
    for how, first in (({"order": "before"}, 1), ({"frames": 6}, 0)):
        run = wide.run(x, ablate=ts_llava(10, where="frame", **how))
        counts = [
            int(run.kept.values[-1][run.layout.select(f"frame {n} & video")].sum())
            for n in range(7)
        ]
        thumbnail = counts.pop(0 if first else 6)
        assert thumbnail == 16 and sum(counts) == 10
    with pytest.raises(ProbeError, match="needs frames=, how many"):
        ts_llava(10, where="frame")


def test_ts_llava_generates(tiny: VideoModel) -> None:
    x = example(tiny, 6)
    run = tiny.generate(x, ablate=ts_llava(9), max_new_tokens=3)
    assert np.allclose(run.logits[0], tiny.run(x, ablate=ts_llava(9)).logits[-1], atol=1e-5)


def test_st_llm(wide: VideoModel) -> None:
    x = example(wide, 5)
    tokens = x.layout.select("video")
    runs = [wide.run(x, ablate=[st_llm(share, 3)]) for share in (0.1, 0.3, 0.7)]
    left = [np.flatnonzero(run.kept.values[-1]) for run in runs]
    assert [np.isin(tokens, some).sum() for some in left] == [72, 56, 24]
    by_hand = decoded(wide, embeddings(wide, x)[left[1]])
    np.testing.assert_allclose(runs[1].logits[-1:], by_hand, rtol=0, atol=1e-4)
    assert np.array_equal(wide.run(x, ablate=[st_llm(0)]).logits, wide.run(x).logits)
    with pytest.raises(ProbeError, match="it is from 0 to 1"):
        st_llm(1.5)


# -- QuoTA -----------------------------------------------------------------------------------


def tokens_a_frame(model: VideoModel, x: Example, one) -> list[int]:
    run = model.run(x, ablate=[one])
    kept = run.kept.values[-1]
    return [int(kept[x.layout.select(f"frame {n} & video")].sum()) for n in range(len(x.clips[0]))]


def published(weights: list[float], total: int, height: int, width: int) -> list[int]:
    """Tokens a frame by the released rule: the whole part of its share, on a nearly square grid
    that a frame's own cells are enough for.
    """
    shares = np.asarray(weights) ** 2 / (np.asarray(weights) ** 2).sum()
    found = []
    for share in shares:
        count = int(total * share)
        side = int(np.sqrt(count))
        rows = side + 1 if (side + 1) * side <= count else side
        found.append(min(rows, height) * min(side, width))
    return found


def test_relevant_frames_have_more_tokens(wide: VideoModel) -> None:
    x = example(wide, 5)
    for weights in ([0.1, 0.9, 0.4, 0.2, 0.3], [1, 1, 0.1, 1, 1], [0.5, 0, 0, 0.5, 0.1]):
        for total in (20, 33, 41):
            found = tokens_a_frame(wide, x, quota(Fixed(tuple(weights)), total))
            assert found == published(weights, total, 4, 4), (weights, total)
            assert sum(found) <= total


def test_equal_scores_give_equal_tokens(wide: VideoModel) -> None:
    x = example(wide, 5)
    assert tokens_a_frame(wide, x, quota(EqualFrames(), 45)) == [9] * 5
    assert tokens_a_frame(wide, x, quota(EqualFrames(), 34)) == [6] * 5
    assert tokens_a_frame(wide, x, quota(EqualFrames(), 34, how="pick")) == [6] * 5


def test_one_relevant_frame_is_all_that_is_left(wide: VideoModel) -> None:
    x = example(wide, 5)
    assert tokens_a_frame(wide, x, quota(Fixed((0, 0, 0.7, 0, 0)), 12)) == [0, 0, 12, 0, 0]
    assert tokens_a_frame(wide, x, quota(Fixed((0, 0, 0.7, 0, 0)), 400)) == [0, 0, 16, 0, 0]


@pytest.mark.parametrize("how", ["bilinear", "mean", "pick"])
def test_multiples_of_the_scores_change_nothing(wide: VideoModel, how: str) -> None:
    x = example(wide, 5)
    weights = (0.11, 0.93, 0.42, 0.27, 0.31)
    logits = [
        wide.run(x, ablate=[quota(Fixed(tuple(c * w for w in weights)), 30, how)]).logits
        for c in (1, 1e-4, 3, 1000)
    ]
    assert all(np.array_equal(other, logits[0]) for other in logits[1:])


def test_frames_are_resized_bilinearly(wide: VideoModel) -> None:
    x = example(wide, 5)
    rows = embeddings(wide, x)
    parts, last = [], 0
    for frame, (height, width) in enumerate([(3, 3), (0, 0), (2, 1), (1, 1), (0, 0)]):
        there = x.layout.select(f"frame {frame} & video")
        grid = rows[there].reshape(4, 4, -1).permute(2, 0, 1)[None]
        parts.append(rows[last : there[0]])
        if height:
            small = torch.nn.functional.interpolate(grid, (height, width), mode="bilinear")
            parts.append(small[0].flatten(1).T)
        last = int(there[-1]) + 1
    by_hand = decoded(wide, torch.cat([*parts, rows[last:]]))
    weights = tuple(np.sqrt([9.5, 0, 2.6, 1.4, 0.5]))
    run = wide.run(x, ablate=[quota(Fixed(weights), 14)])
    assert tokens_a_frame(wide, x, quota(Fixed(weights), 14)) == [9, 0, 2, 1, 0]
    np.testing.assert_allclose(run.logits[-1:], by_hand, rtol=0, atol=1e-4)


def test_the_relevance_of_a_group_is_the_mean_of_its_frames() -> None:
    model = models.build("qwen2_5_vl")
    x = model.encode(clip(6, 56, 56), "What?", frames=None)
    values = FrameRelevance(Fixed((0.1, 0.3, 0.8, 0.6, 0, 1))).ahead(model, x)
    for group, mean in enumerate((0.2, 0.7, 0.5)):
        np.testing.assert_allclose(values[x.layout.group == group], mean)
    assert not values[x.layout.group < 0].any()
    one = FrameRelevance(Fixed((1.0,)))
    c = replace(Candidates.grid(torch.zeros(1, 2, 2, 3)), readings={one: torch.ones(4)})
    assert one.score(c).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "internvl"])
def test_quota_with_the_model_as_scorer(name: str) -> None:
    model = models.build(name)
    x = model.encode(clip(4, 84, 84), "What moves?", frames=None)
    one = quota(SaysYes(), len(x.layout.select("video")) // 2)
    run = model.run(x, ablate=[one])
    again = model.run(x, ablate=[one])
    assert np.array_equal(run.logits, again.logits)
    left = int(run.kept.values[-1][x.layout.select("video")].sum())
    assert 0 < left <= len(x.layout.select("video")) // 2
    generated = model.generate(x, ablate=[one], max_new_tokens=2)
    np.testing.assert_allclose(generated.logits[0], run.logits[-1], rtol=0, atol=1e-4)


def test_quota_leaves_text_alone(tiny: VideoModel) -> None:
    x = tiny.encode(None, "What moves?")
    assert np.array_equal(tiny.run(x, ablate=[quota(FrameChange())]).logits, tiny.run(x).logits)


def test_quota_refuses(tiny: VideoModel) -> None:
    x = example(tiny, 5)
    for scorer in (Fixed((1, 1, -1, 1, 1)), Fixed((1, 1, np.nan, 1, 1))):
        with pytest.raises(ProbeError, match="finite numbers of at least 0") as error:
            tiny.run(x, ablate=[quota(scorer)])
        assert "\n" not in str(error.value)


def test_frames_of_a_long_clip() -> None:
    assert [frames_for(s) for s in (0, 60, 1800, 3600, 7200)] == [96, 97, 128, 160, 224]


def test_text_and_json() -> None:
    names = {"quota": quota, "ts_llava": ts_llava, "SaysYes": SaysYes, "FrameChange": FrameChange,
             "ShuffledFrames": ShuffledFrames, "EqualFrames": EqualFrames}  # fmt: skip
    for one in (quota(), quota(ShuffledFrames(FrameChange(), 3), 100, "pick")):
        assert spec.parse(str(one), names) == [one]
    written = ts_llava(12, 4, "before", "frame")
    assert spec.parse(str(written[0]).removesuffix("[0]"), names) == written
