"""nnsight on encoded examples: the same logits, and a patch from a clean to a corrupted clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probe.capture import AttentionMass
from probe.interop import to_nnsight
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.tiny import clip, example

pytest.importorskip("nnsight")


@pytest.fixture
def model() -> VideoModel:
    """Its own model: nnsight leaves controllers on the modules."""
    return tiny_models.build(seed=2)


def logits(model: VideoModel, x: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(**x.inputs, use_cache=False).logits


def test_a_trace_gives_the_model_s_logits(model: VideoModel) -> None:
    x = example(model)
    expected = logits(model, x)
    nn = to_nnsight(model)
    with torch.no_grad(), nn.trace(**x.inputs):
        found = nn.lm_head.output.save()
    assert torch.equal(found, expected)


def test_patch_from_a_clean_to_a_corrupted_clip(model: VideoModel) -> None:
    shown = clip()
    blank = np.zeros_like(shown.frames[2])
    clean = example(model, shown)
    corrupted = example(model, shown.__class__(**vars(shown) | {"frames": with_(shown, 2, blank)}))
    rows, layer = clean.layout.select("frame 2"), 1
    layers = model.layers

    def patch(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, rows] = seen[0][:, rows]
        return output

    seen: list[torch.Tensor] = []
    handle = layers[layer].register_forward_hook(lambda m, a, y: seen.append(y.clone()))
    logits(model, clean)
    handle.remove()
    handle = layers[layer].register_forward_hook(patch)
    expected = logits(model, corrupted)
    handle.remove()

    nn = to_nnsight(model)
    with torch.no_grad(), nn.session():
        with nn.trace(**clean.inputs):
            kept = nn.model.language_model.layers[layer].output[:, rows].save()
        with nn.trace(**corrupted.inputs):
            nn.model.language_model.layers[layer].output[:, rows] = kept
            found = nn.lm_head.output.save()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found - logits(model, corrupted)).abs().max() > 1e-3


def test_runs_work_as_before_after_a_trace(model: VideoModel) -> None:
    x = example(model)
    before = model.run(x, [AttentionMass("tokens")])
    first, second = to_nnsight(model), to_nnsight(model)
    for nn in (first, second):
        with torch.no_grad(), nn.trace(**x.inputs):
            nn.model.language_model.layers[0].output.save()
    after = model.run(x, [AttentionMass("tokens")])
    np.testing.assert_array_equal(after.logits, before.logits)
    np.testing.assert_array_equal(after.data.attention_mass, before.data.attention_mass)


def with_(shown: Any, frame: int, pixels: np.ndarray) -> np.ndarray:
    frames = shown.frames.copy()
    frames[frame] = pixels
    return frames
