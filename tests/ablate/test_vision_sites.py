"""Reductions inside the vision tower, against the tower's own layers called by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Norm, PerFrame, Random, Reduce, layer, parse, tokens, vision, vision_out
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge import Merge
from probe.ablate.reduction.parts import Score
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import example as onevision_example

FRAMES, PATCHES = 5, 9


@dataclass(frozen=True)
class Named(Score):
    """Scores that name the positions to keep."""

    kept: tuple[int, ...] = ()

    def score(self, c: Candidates) -> torch.Tensor:
        return torch.as_tensor(np.isin(c.position, self.kept)).double()


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    """CLIP of 3 layers, features from the second; 1 + 9 tokens a frame, all in the prompt."""
    return models.build("video_llava")


def features(model: VideoModel, x: Example, kept: np.ndarray, after: int) -> torch.Tensor:
    """Projected features [frame, token, channel], with only `kept` [frame, patch] (and CLS) in the
    layers behind `after`.
    """
    tower = model.hf.model.video_tower
    tower = getattr(tower, "vision_model", tower)
    pixels = x.inputs["pixel_values_videos"].flatten(0, 1)
    h = tower.pre_layrnorm(tower.embeddings(pixels))
    for number, block in enumerate(tower.encoder.layers[:2]):
        if number == after + 1:
            with_cls = np.concatenate([np.zeros((len(kept), 1), int), kept + 1], 1)
            h = torch.stack([h[f, torch.as_tensor(i)] for f, i in enumerate(with_cls)])
        h = block(h, None)
        h = h[0] if isinstance(h, tuple) else h
    return model.hf.model.multi_modal_projector(h)


def logits(model: VideoModel, x: Example, rows: np.ndarray, video: torch.Tensor) -> torch.Tensor:
    """Of the last position, with the video's features put in by hand at the rows that are left."""
    ids = x.inputs["input_ids"].clone()
    shown = x.layout.role == "video"
    ids[0, torch.as_tensor(shown)] = 0
    embedded = model.hf.get_input_embeddings()(ids)[0, torch.as_tensor(rows)].clone()
    embedded[torch.as_tensor(shown[rows])] = video.flatten(0, 1)
    out = model.decoder(
        inputs_embeds=embedded[None],
        position_ids=x.inputs["position_ids"][..., torch.as_tensor(rows)],
        attention_mask=torch.ones(1, len(rows), dtype=torch.long),
        use_cache=False,
    )
    return model.hf.lm_head(out.last_hidden_state[0, -1])


@pytest.mark.parametrize("after", [0, 1])
def test_dropping_in_the_tower_is_the_tower_on_fewer_tokens(llava: VideoModel, after: int) -> None:
    x = models.example(llava)
    one = Reduce(at=vision(after), score=Norm(), keep_tokens=4, segment=PerFrame())
    run = llava.run(x, ablate=[one])
    rows = np.flatnonzero(run.kept.values[0])
    patch = x.layout.row * 3 + x.layout.col
    kept = np.array(
        [patch[rows[(x.layout.group[rows] == f) & (x.layout.row[rows] >= 0)]] for f in range(5)]
    )
    assert kept.shape == (FRAMES, 4) and len(rows) == len(x.layout) - FRAMES * (PATCHES - 4)
    with torch.no_grad():
        video = features(llava, x, kept, after)
        if after == 1:  # behind the layer whose output is used: all of it is computed
            every = np.tile(np.arange(PATCHES), (FRAMES, 1))
            whole = features(llava, x, every, 5)
            at = np.concatenate([np.zeros((FRAMES, 1), int), kept + 1], 1)
            video = torch.stack([whole[f, torch.as_tensor(i)] for f, i in enumerate(at)])
        expected = logits(llava, x, rows, video)
    np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=1e-5)
    assert len(run.reductions) == 1 and len(run.reductions[0].dropped) == FRAMES * (PATCHES - 4)


def test_merging_before_the_projector(llava: VideoModel) -> None:
    x = models.example(llava)
    one = Reduce(
        at=vision_out(), score=Random(1), keep=0.5, segment=PerFrame(), rest=Merge(weight="mean")
    )
    run = llava.run(x, ablate=[one])
    done = run.reductions[0]
    rows = np.flatnonzero(run.kept.values[0])
    every = np.tile(np.arange(PATCHES), (FRAMES, 1))
    tower = llava.hf.model.multi_modal_projector
    seen: list[torch.Tensor] = []
    handle = tower.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        features(llava, x, every, 5)
        handle.remove()
        raw = seen[0].clone()
        merged = done.weights.dense() @ raw[:, 1:].reshape(-1, raw.shape[-1]).double().numpy()
        flat = raw[:, 1:].reshape(-1, raw.shape[-1])
        place = {p: i for i, p in enumerate(done.candidates)}
        flat[[place[p] for p in done.anchors]] = torch.as_tensor(merged, dtype=flat.dtype)
        whole = torch.cat([raw[:, :1], flat.view(FRAMES, PATCHES, -1)], 1)
        projected = tower(whole).flatten(0, 1)
        shown = np.flatnonzero(x.layout.role == "video")
        video = projected[torch.as_tensor(np.isin(shown, rows))]
        expected = logits(llava, x, rows, video[None])
    np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=1e-5)


def test_dropping_behind_the_tower_is_dropping_tokens(llava: VideoModel) -> None:
    x = models.example(llava)
    one = Reduce(at=vision_out(), score=Norm(), keep=0.5)
    run = llava.run(x, ablate=[one])
    left = run.kept.values[0]
    generated = llava.generate(x, ablate=[one], max_new_tokens=3)
    assert generated.cost.kv_length == (left.sum() + 2,) * llava.n_layers
    np.testing.assert_allclose(generated.logits[0], run.logits[0], rtol=0, atol=1e-5)
    video = x.layout.select("video")
    named = Named(tuple(np.flatnonzero(left).tolist()))
    again = llava.run(x, ablate=[Reduce(layer(0), named, keep_tokens=int(left[video].sum()))])
    np.testing.assert_array_equal(again.kept, run.kept)
    np.testing.assert_allclose(again.logits, run.logits, rtol=0, atol=1e-6)


def test_what_cannot_be(tiny: VideoModel) -> None:
    x = onevision_example(tiny)
    spatial = Reduce(at=vision(0), score=Norm(), keep=0.5, segment=PerFrame())
    with pytest.raises(ProbeError, match="use at=tokens"):
        tiny.run(x, ablate=[spatial])
    with pytest.raises(ProbeError, match="the tower has layers 0 to"):
        tiny.run(x, ablate=[Reduce(at=vision(9), score=Norm(), keep=0.5)])
    qwen = models.build("qwen2_5_vl")
    with pytest.raises(ProbeError, match="one sequence"):
        qwen.run(models.example(qwen), ablate=[spatial])
    model = models.build("video_llava")
    uneven = Reduce(at=vision(0), score=Norm(), keep=0.5)
    with pytest.raises(ProbeError, match="equally many"):
        model.run(models.example(model), ablate=[uneven])
    with pytest.raises(ProbeError, match="before it"):
        model.run(models.example(model), ablate=[Reduce(at=vision(0), of="frame 1", keep=0.5)])


def test_text_only_and_neutral(llava: VideoModel) -> None:
    y = llava.encode(None, "What moves?")
    one = Reduce(at=vision(0), score=Norm(), keep=0.5, segment=PerFrame())
    assert np.array_equal(llava.run(y, ablate=[one]).logits, llava.run(y).logits)
    x = models.example(llava)
    neutral = Reduce(at=vision(0), score=Norm(), keep=1.0, segment=PerFrame())
    assert np.array_equal(llava.run(x, ablate=[neutral]).logits, llava.run(x).logits)


def test_as_text() -> None:
    text = "Reduce(at=vision(0), score=Norm(), keep=0.5)"
    assert parse(text) == [Reduce(at=vision(0), score=Norm(), keep=0.5)]
    assert tokens() == layer(0)
