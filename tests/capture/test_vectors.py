"""Token norms, activations and the logit lens against what transformers itself returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError, ablate
from probe.capture import Activations, LogitLens, TokenNorms
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.tiny import example

TOLERANCE = 1e-5


def plain(model: VideoModel, x: Example):
    with torch.no_grad():
        return model.hf(**x.inputs, output_hidden_states=True, use_cache=True)


def cached_norms(out, name: str) -> np.ndarray:
    """[layer, position]: all key-value heads of a token together."""
    vectors = [getattr(layer, name)[0] for layer in out.past_key_values.layers]
    return torch.stack(vectors).square().sum((1, 3)).sqrt().numpy()


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager"])
def test_norms(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    x = example(model, answer="red")
    norms, out = model.run(x, [TokenNorms()]).data.token_norms, plain(model, x)
    assert norms.dims == ("vector", "layer", "position")
    residual = torch.stack(out.hidden_states[:-1])[:, 0].norm(dim=-1)
    np.testing.assert_allclose(norms.sel(vector="residual"), residual, rtol=TOLERANCE)
    for vector, cached in (("key", "keys"), ("value", "values")):
        np.testing.assert_allclose(
            norms.sel(vector=vector), cached_norms(out, cached), rtol=TOLERANCE
        )
    some = model.run(x, [TokenNorms(layers=[1])]).data.token_norms
    np.testing.assert_array_equal(some.sel(layer=1), norms.sel(layer=1))


def test_norms_and_activations_of_each_step(tiny: VideoModel) -> None:
    x = example(tiny)
    reads = [TokenNorms(), Activations(), Activations(site="attention"), Activations(site="head")]
    run = tiny.generate(x, reads, max_new_tokens=5)
    full = tiny.force(x, run.meta["generated"][:-1])
    out, rows = plain(tiny, full), x.layout.last + np.arange(5)
    found = run.data.token_norms
    assert found.dims == ("vector", "step", "layer")
    stream = torch.stack(out.hidden_states[:-1])[:, 0, rows]
    np.testing.assert_allclose(found.sel(vector="residual"), stream.norm(dim=-1).T, rtol=1e-4)
    np.testing.assert_allclose(
        found.sel(vector="key"), cached_norms(out, "keys")[:, rows].T, rtol=1e-4
    )
    np.testing.assert_allclose(
        found.sel(vector="value"), cached_norms(out, "values")[:, rows].T, rtol=1e-4
    )
    np.testing.assert_allclose(run.data.activations, stream.transpose(0, 1), atol=1e-4)
    attention, heads = run.data.activations_2, run.data.activations_3
    assert heads.dims == ("step", "layer", "head", "head_channel")
    for layer in range(4):
        w = tiny.layers[layer].self_attn.o_proj.weight.detach().numpy()
        mixed = heads[:, layer, :, : tiny.head_dim].values.reshape(5, -1) @ w.T
        np.testing.assert_allclose(mixed, attention[:, layer], atol=1e-4)


@pytest.mark.parametrize("site", ["residual", "attention", "mlp", "head"])
@pytest.mark.parametrize("positions", ["readout", "frame 1 + last", "all", [4, 2]])
def test_activations_are_what_hooks_see(tiny: VideoModel, site: str, positions) -> None:
    x, seen = example(tiny, answer="red"), {}

    def keep(layer: int):
        def hook(module, args, *rest):
            value = rest[-1] if site in ("attention", "mlp") else args[0]
            seen[layer] = (value[0] if isinstance(value, tuple) else value)[0]

        return hook

    handles = []
    for number, layer in enumerate(tiny.layers):
        part = {"residual": layer, "attention": layer.self_attn, "mlp": layer.mlp}.get(
            site, layer.self_attn.o_proj
        )
        register = (
            part.register_forward_hook
            if site in ("attention", "mlp")
            else part.register_forward_pre_hook
        )
        handles.append(register(keep(number)))
    with torch.no_grad():
        tiny.hf(**x.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    found = tiny.run(x, [Activations(site, positions)]).data.activations
    rows = x.layout.select(positions)
    expected = torch.stack([seen[layer][rows] for layer in range(4)]).numpy()
    assert found.position.values.tolist() == rows.tolist()
    np.testing.assert_array_equal(found.values.reshape(expected.shape), expected)
    assert found.dims == (
        ("layer", "position", "head", "head_channel")
        if site == "head"
        else ("layer", "position", "channel")
    )


def test_activations_arguments(tiny: VideoModel) -> None:
    with pytest.raises(
        ProbeError, match='site "nowhere"; there are residual, attention, mlp, head'
    ):
        tiny.run(example(tiny), [Activations("nowhere")])
    data = tiny.run(example(tiny), [Activations(layers="1-2")]).data
    assert data.layer.values.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["tiny", "other"])
def test_the_lens_ends_at_the_model_s_own_logits(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    x = example(model, answer="red")
    run = model.run(x, [LogitLens(top=3, words=("r", "b"), full=True)])
    data, out = run.data, plain(model, x)
    assert data.logit_lens_logits.dims == ("lens_layer", "readout", "vocab")
    np.testing.assert_array_equal(data.logit_lens_logits[-1], run.logits)
    with torch.no_grad():
        streams = [
            model.head(model.decoder.norm(h[0, x.layout.readout])) for h in out.hidden_states[:-1]
        ]
    np.testing.assert_allclose(data.logit_lens_logits[:-1], torch.stack(streams), atol=TOLERANCE)
    log_p = torch.from_numpy(data.logit_lens_logits.values).log_softmax(-1)
    best = log_p.sort(-1, descending=True)
    np.testing.assert_array_equal(data.logit_lens, best.values[..., :3])
    np.testing.assert_allclose(data.logit_lens_probability, best.values[..., :3].exp(), rtol=1e-6)
    texts = model.decode_each(best.indices[..., :3].flatten().tolist())
    found = data.logit_lens_token.values.ravel().tolist()
    assert found == [text.rstrip("\0") for text in texts]  # NumPy's strings end at a NUL
    np.testing.assert_allclose(
        data.logit_lens_entropy, -(log_p.exp() * log_p).sum(-1), atol=TOLERANCE
    )
    for word in ("r", "b"):
        id_ = model.token_id(x, word, "")
        np.testing.assert_array_equal(data.logit_lens_word.sel(word=word), log_p[..., id_])
    assert data.readout.values.tolist() == x.layout.readout.tolist()


def test_the_lens_of_each_step(tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.generate(x, [LogitLens(full=True, words="r")], max_new_tokens=4)
    lens = run.data.logit_lens_logits.transpose("step", "lens_layer", "vocab")
    np.testing.assert_array_equal(lens[:, -1], run.logits)
    assert run.data.logit_lens_token.dims == ("step", "lens_layer", "rank")
    full = tiny.force(x, run.meta["generated"])
    teacher = tiny.run(full, [LogitLens(full=True)]).data.logit_lens_logits
    np.testing.assert_allclose(lens.transpose("lens_layer", "step", "vocab"), teacher, atol=1e-4)


def test_lens_arguments(tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="'red' is 3 tokens"):
        tiny.run(x, [LogitLens(words=("red",))])
    for top in (0, 10**6):
        with pytest.raises(ProbeError, match=f"top={top}; it is 1 to 261"):
            tiny.run(x, [LogitLens(top=top)])


def test_vectors_of_dropped_tokens_are_nan(tiny: VideoModel) -> None:
    x = example(tiny)
    drop = [ablate.Reduce(at=ablate.layer(2), score=ablate.Norm(), keep=0.5)]
    reads = [
        TokenNorms(),
        Activations(positions="all"),
        Activations("mlp", "all"),
        Activations("head", "video + last"),
        LogitLens(full=True),
    ]
    run = tiny.run(x, reads, drop)
    gone = ~run.kept.values
    assert gone[2:].any() and not gone[:2].any()
    for name in ("token_norms", "activations", "activations_2"):
        nan = np.isnan(run.data[name].transpose("layer", "position", ...)).values
        np.testing.assert_array_equal(nan.reshape(*gone.shape, -1).all(-1), gone)
        np.testing.assert_array_equal(nan.reshape(*gone.shape, -1).any(-1), gone)
    heads = run.data.activations_3.sel(position=x.layout.select("video + last"))
    nan = np.isnan(heads[..., : tiny.head_dim]).values
    np.testing.assert_array_equal(nan.all((2, 3)), gone[:, x.layout.select("video + last")])
    np.testing.assert_array_equal(run.data.logit_lens_logits[-1], run.logits)
