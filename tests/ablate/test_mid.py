"""Reductions between attention and MLP, against the layer's own parts called by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import LastQuery, Merge, Norm, Random, Reduce, layer, mid
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import example


def test_dropping_there_is_dropping_behind_the_layer(tiny: VideoModel) -> None:
    """The MLP works on each token by itself."""
    x = example(tiny, answer="red")
    for score in (Random(2), LastQuery()):
        run = tiny.run(x, ablate=[Reduce(at=mid(1), score=score, keep=0.5)])
        later = tiny.run(x, ablate=[Reduce(at=layer(2), score=score, keep=0.5)])
        np.testing.assert_array_equal(run.kept, later.kept)
        np.testing.assert_allclose(run.logits, later.logits, rtol=0, atol=1e-6)


def test_its_mlp_is_shorter(tiny: VideoModel) -> None:
    x, rows = example(tiny), []
    handles = [
        each.mlp.down_proj.register_forward_hook(lambda *a: rows.append(a[1][0].shape[1]))
        for each in tiny.layers
    ]
    tiny.run(x, ablate=[Reduce(at=mid(1), score=Norm(), keep=0.5)])
    for handle in handles:
        handle.remove()
    n = len(x.layout)
    assert rows == [n, n - 10, n - 10, n - 10]


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "glm4v"])
def test_merging_there(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    one = Reduce(at=mid(1), score=Norm(), keep=0.5, rest=Merge(weight="mean"))
    seen: dict[str, torch.Tensor] = {}
    family = model.family
    block = model.layers[1]
    added = block.get_submodule(family.added[0])
    handles = [
        block.register_forward_pre_hook(
            lambda m, a, k: seen.__setitem__("x", (a[0] if a else k["hidden_states"])[0]),
            with_kwargs=True,
        ),
        added.register_forward_hook(
            lambda m, a, o: seen.__setitem__("a", (o[0] if isinstance(o, tuple) else o)[0])
        ),
        model.layers[2].register_forward_pre_hook(
            lambda m, a, k: seen.__setitem__("y", (a[0] if a else k["hidden_states"])[0]),
            with_kwargs=True,
        ),
    ]
    run = model.run(x, ablate=[one])
    for handle in handles:
        handle.remove()
    done = run.reductions[0]
    stream = (seen["x"] + seen["a"]).double()
    n, candidates = len(x.layout), done.candidates
    w = np.zeros((len(done.anchors), n))
    w[:, candidates] = done.weights.dense()
    others = np.setdiff1d(np.arange(n), candidates)
    order = np.argsort(np.concatenate([done.anchors, others]), kind="stable")
    full = np.concatenate([w, np.eye(n)[others]])[order]
    h = torch.as_tensor(full) @ stream
    names = [k for k, c in block.named_children() if "norm" in type(c).__name__.lower()]
    norm = block.get_submodule(names[1] if len(names) == 2 else "post_attention_layernorm")
    out = block.get_submodule(family.mlp)(norm(h.float()[None]))
    if family.added[1] != family.mlp:
        out = block.get_submodule(family.added[1])(out)
    expected = (h.float() + out[0]).detach()
    np.testing.assert_allclose(seen["y"].detach(), expected, rtol=0, atol=1e-5)
    kept = run.kept.values
    assert kept[1].all() and kept[2].sum() == len(full)
    generated = model.generate(x, ablate=[one], max_new_tokens=4)
    forced = model.run(model.force(x, generated.meta["generated"]), ablate=[one])
    np.testing.assert_allclose(generated.logits, forced.logits, rtol=0, atol=1e-5)


def test_the_last_layer_has_nothing_behind_it(tiny: VideoModel) -> None:
    with pytest.raises(ProbeError, match="layer 3 does not exist"):
        tiny.run(example(tiny), ablate=[Reduce(at=mid(3), score=Norm(), keep=0.5)])
