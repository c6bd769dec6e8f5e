"""Patch with readers: the direct path from tokens to rows, against surgery on plain caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import NoRope
from probe.ablate.patch import Patch
from probe.capture import Activations
from probe.interop import save_activations
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.plain import NAMES, named, two


def prefilled(model: VideoModel, x: Example, count: int) -> Any:
    """The plain model's cache of the first positions."""
    with torch.no_grad():
        cache = model.hf(**x.inputs, use_cache=True).past_key_values
    cache.crop(count - len(x.layout))
    return cache


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_surgery_on_the_cache(request: pytest.FixtureRequest, name: str) -> None:
    """Readers that are last: the other run's keys and values in the cache that they read."""
    model = named(request, name)
    x, y, other = two(model)
    last = x.layout.last
    group = x.layout.select("frame 1 + question")
    ids = {"input_ids": x.inputs["input_ids"][:, last:]}
    ids["position_ids"] = model.position_ids(x, np.array([last]))
    for layers in ([1], [0, 2, 3] if model.n_layers > 3 else [0, 2]):
        cache, theirs = prefilled(model, x, last), prefilled(model, y, last)
        for layer in layers:
            for mine, new in (("keys", "keys"), ("values", "values")):
                into = getattr(cache.layers[layer], mine)
                into[:, :, group] = getattr(theirs.layers[layer], new)[:, :, group]
        with torch.no_grad():
            out = model.hf(**ids, past_key_values=cache, use_cache=True)
        one = Patch(other, "frame 1 + question", layers, readers="last")
        run = model.run(x, [Activations(positions="all")], [one])
        np.testing.assert_allclose(run.logits[0], out.logits[0, -1].numpy(), rtol=0, atol=1e-5)
        before = model.run(x, [Activations(positions="all")])
        moved = (run.data.activations != before.data.activations).any(["layer", "channel"])
        assert moved.values.nonzero()[0].tolist() == [last]  # all other rows go on as before
    one = Patch(other, "frame 1 + question", 1, readers="readout")
    gen = model.generate(x, ablate=[one], max_new_tokens=4)
    full = model.force(x, gen.meta["generated"])
    run = model.run(full, ablate=[one])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)


def test_paths_from_a_file(tiny: VideoModel, tmp_path: Path) -> None:
    x, _, other = two(tiny)
    file = str(save_activations(other, tmp_path / "other.safetensors"))
    runs = [tiny.run(x, ablate=[Patch(r, "frame 1", 1, readers="last")]) for r in (other, file)]
    np.testing.assert_array_equal(runs[0].logits, runs[1].logits)


def test_paths_and_rotary_edits_of_the_same_edges_are_refused(tiny: VideoModel) -> None:
    x, _, other = two(tiny)
    path = Patch(other, "frame 1", 1, readers="last")
    with pytest.raises(ProbeError, match="scores these edges by vectors of its own"):
        tiny.run(x, ablate=[NoRope("video -> last"), path])
    tiny.run(x, ablate=[NoRope("frame 2 -> last"), path])
