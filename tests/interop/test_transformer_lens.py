"""A run in TransformerLens: its own analyses on it give what transformers computes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probe
from probe import ProbeError, interop
from probe.ablate import fastv
from probe.capture import Activations, Contributions
from probe.models.video_model import VideoModel
from tests.tiny import dense, example

Lens = Any


@pytest.fixture(scope="module")
def lens() -> Lens:
    return pytest.importorskip("transformer_lens")


@pytest.fixture(params=["tiny", "other"])
def model(request: pytest.FixtureRequest) -> VideoModel:
    return request.getfixturevalue(request.param)


def reference(model: VideoModel, x) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual stream [layer + 1, position, channel] and all logits, from hooks alone."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, a, k: seen.append(a[0] if a else k["hidden_states"]), with_kwargs=True
        )
        for layer in model.layers
    ]
    hooks.append(model.decoder.norm.register_forward_pre_hook(lambda m, a: seen.append(a[0])))
    with torch.no_grad():
        logits = model.hf(**x.inputs, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return torch.stack(seen)[:, 0], logits[0]


def test_the_residual_is_decomposed_at_every_position(lens: Lens, model: VideoModel) -> None:
    x = example(model, answer="red")
    cache = interop.to_transformer_lens(model.run(x, interop.captures()))
    assert type(cache) is lens.ActivationCache
    stream, _ = reference(model, x)
    parts, labels = cache.decompose_resid(return_labels=True)
    assert labels[:3] == ["embed", "0_attn_out", "0_mlp_out"]
    assert parts.shape == (1 + 2 * model.n_layers, 1, len(x.layout), model.width)
    torch.testing.assert_close(parts.sum(0)[0], stream[-1], rtol=0, atol=1e-5)
    half = cache.decompose_resid(layer=2).sum(0)[0]
    torch.testing.assert_close(half, stream[2], rtol=0, atol=1e-5)
    streams, labels = cache.accumulated_resid(incl_mid=False, return_labels=True)
    torch.testing.assert_close(streams[:, 0], stream, rtol=0, atol=0)
    assert labels[-1] == "final_post"
    video = x.layout.select("video")
    placeholder = model.hf.get_input_embeddings()(x.inputs["input_ids"])[0, video]
    assert (cache["hook_embed"][0, video] - placeholder).abs().min(-1).values.max() > 1e-3


def test_attributions_sum_to_the_logit(lens: Lens, model: VideoModel) -> None:
    x = example(model, answer="red")
    run = model.run(x, [*interop.captures(), Contributions("r", versus="b")])
    cache = interop.to_transformer_lens(run)
    _, logits = reference(model, x)
    ids = [model.token_id(x, word, "test") for word in "rb"]
    parts = cache.decompose_resid()
    every = torch.tensor(ids[:1] * len(x.layout))[None]
    found = cache.logit_attrs(parts, every).sum(0)[0]
    torch.testing.assert_close(found, logits[:, ids[0]], rtol=0, atol=2e-5)
    each = cache.logit_attrs(parts, ids[0], ids[1])[:, 0, x.layout.last]
    ours = run.data.contributions.transpose("layer", "part").values
    expected = np.append(ours[0, 0], ours[:, 1:].ravel())
    np.testing.assert_allclose(each, expected, atol=1e-5)
    assert torch.equal(cache.logit_attrs(parts, "r"), cache.logit_attrs(parts, ids[0]))


def test_lens_and_heads(lens: Lens, model: VideoModel) -> None:
    x = example(model)
    cache = interop.to_transformer_lens(model.run(x, interop.captures()))
    stream, _ = reference(model, x)
    with torch.no_grad():
        expected = model.head(model.decoder.norm(stream))
    found = cache.accumulated_resid(apply_ln=True)[:, 0] @ cache.model.W_U
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    positions = x.layout.select("frame 2 + last")
    for position in positions.tolist():
        top = cache.logit_lens(positions=position, top_k=3)
        best = expected[:, position].topk(3)
        assert torch.equal(top.readout.top_ids[:, 0], best.indices)
        torch.testing.assert_close(top.values[:, 0], best.values, rtol=0, atol=1e-5)
    heads, labels = cache.stack_head_results(incl_remainder=True, return_labels=True)
    assert labels[0] == "L0H0" and labels[-1] == "remainder"
    torch.testing.assert_close(heads.sum(0)[0], stream[-1], rtol=0, atol=1e-5)
    own = heads[: model.n_heads].sum(0)
    torch.testing.assert_close(own, cache["attn_out", 0], rtol=0, atol=1e-5)
    whole = cache.get_full_resid_decomposition(expand_neurons=False)
    torch.testing.assert_close(whole.sum(0)[0], stream[-1], rtol=0, atol=1e-5)


def test_patterns_on_request(lens: Lens, pair: tuple[VideoModel, VideoModel]) -> None:
    model, eager = pair
    x = example(model)
    cache = interop.to_transformer_lens(model.run(x, interop.captures(patterns=True)))
    found = cache.stack_activation("pattern")[:, 0]
    np.testing.assert_allclose(found, dense(eager, x), atol=1e-5)
    assert "pattern" not in str(interop.to_transformer_lens(model.run(x, interop.captures())))


def test_some_positions(lens: Lens, tiny: VideoModel) -> None:
    x = example(tiny)
    some = interop.to_transformer_lens(tiny.run(x, interop.captures("frame 1 + last")))
    every = interop.to_transformer_lens(tiny.run(x, [Activations(), *interop.captures()]))
    rows = x.layout.select("frame 1 + last")
    assert set(some.cache_dict) == set(every.cache_dict)
    for name, value in some.items():
        assert torch.equal(value, every[name][:, rows]), name


def test_dropped_tokens_are_nan_and_the_rest_sums(lens: Lens, tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.run(x, interop.captures(), [fastv(2, 0.5)])
    cache = interop.to_transformer_lens(run)
    parts = cache.decompose_resid().sum(0)[0]
    kept = torch.from_numpy(run.kept.values[-1])
    torch.testing.assert_close(parts[kept], cache["resid_post", -1][0, kept], rtol=0, atol=1e-5)
    assert parts[~kept].isnan().all() and not kept.all()


def test_a_saved_run_needs_its_model(lens: Lens, tiny: VideoModel, tmp_path: Path) -> None:
    x = example(tiny)
    run = tiny.run(x, interop.captures())
    opened = probe.open(run.save(tmp_path / "run"))
    with pytest.raises(ProbeError, match=r"to_transformer_lens\(run, model\)"):
        interop.to_transformer_lens(opened)
    found, expected = interop.to_transformer_lens(opened, tiny), interop.to_transformer_lens(run)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_what_is_refused(lens: Lens, tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match=r"capture=probe.interop.captures\(\)"):
        interop.to_transformer_lens(tiny.run(x, [Activations()]))
    with pytest.raises(ProbeError, match=r"of a batch, batch.runs\[0\]"):
        interop.to_transformer_lens(tiny.run([x, x], interop.captures()))
    with pytest.raises(ProbeError, match="reads one forward pass"):
        tiny.generate(x, interop.captures(), max_new_tokens=2)
    view = interop.to_transformer_lens(tiny.run(x, interop.captures())).model
    for method in (view.run_with_cache, view.run_with_hooks):
        with pytest.raises(ProbeError, match="a view of the weights"):
            method(x.inputs["input_ids"])
    with pytest.raises(ProbeError, match="'red' is 3 tokens"):
        view.to_single_token("red")
    run = tiny.run(x, interop.captures())
    run.data["residual_stream_mlp"][1] += 1
    with pytest.raises(ProbeError, match="do not sum to its residual stream"):
        interop.to_transformer_lens(run)


def test_deepstack_is_a_part_of_the_sum(lens: Lens, tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.run(x, interop.captures())
    added = np.zeros_like(run.data.residual_stream_mlp)
    video = x.layout.select("video")
    added[:2, video] = np.random.default_rng(0).normal(size=(2, len(video), tiny.width))
    data = run.data.assign(residual_stream_deepstack=run.data.residual_stream_mlp.copy(data=added))
    later = np.cumsum(np.concatenate([0 * added[:1], added]), 0)
    data["residual_stream"] = data.residual_stream + later
    cache = interop.to_transformer_lens(replace(run, opened=data))
    assert isinstance(cache, lens.ActivationCache)
    for layer in (1, 2, None):
        parts, labels = cache.decompose_resid(layer, return_labels=True)
        assert len(parts) == len(labels) and "deepstack_0" in labels
        total = cache.accumulated_resid(layer)[-1]
        torch.testing.assert_close(parts.sum(0), total, rtol=0, atol=1e-5)
    one = cache.decompose_resid(apply_ln=True, pos_slice=-1)
    torch.testing.assert_close(one, cache.decompose_resid(apply_ln=True)[:, :, -1])


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("transformer_lens", "interop.to_transformer_lens(None)"),
        ("nnsight", "interop.to_nnsight(None)"),
    ],
)
def test_nothing_is_imported_before_it_is_used_and_missing_is_one_line(
    package: str, call: str
) -> None:
    code = (
        "import sys; import probe.interop as interop\n"
        "assert not {'torch', 'nnsight', 'transformer_lens'} & set(sys.modules)\n"
        f"sys.modules[{package!r}] = None\n"
        f"try: {call}\n"
        "except interop.extra.ProbeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "is not installed; pip install 'probe-video[interop]'" in done.stdout
