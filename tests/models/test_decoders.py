"""Text decoders that differ from the plain one, under a family that takes a choice of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, NoRope, Random, Reduce, fastv, layer
from probe.capture import AttentionEntropy, AttentionMass, AttentionReceived, Contributions
from probe.models.video_model import VideoModel
from tests.capture import maps
from tests.families import common, masks
from tests.families import llava_next_video as family
from tests.tiny import clip

SLIDING = {
    "model_type": "qwen2",
    "use_sliding_window": True,
    "sliding_window": 16,
    "layer_types": ["full_attention", "sliding_attention"] * 2,
}
GEMMA = {
    "model_type": "gemma2",
    "sliding_window": 16,
    "attn_logit_softcapping": 5.0,
    "query_pre_attn_scalar": 8,
    "layer_types": SLIDING["layer_types"],
    "head_dim": 8,
}


@cache
def build(kind: str, attention: str = "eager") -> VideoModel:
    """LLaVA-NeXT-Video with a decoder of sliding and full layers, or with Gemma 2's."""
    text = {"sliding": SLIDING, "gemma2": GEMMA}[kind]
    base = family.build()
    config = type(base.hf.config)(**base.hf.config.to_dict() | {"text_config": shared(base) | text})
    hf = type(base.hf)._from_config(config, attn_implementation=attention, dtype=torch.float32)
    common.randomise(hf, 1)
    return common.finish(hf, base.processor, "llava_next_video")


def shared(base: VideoModel) -> dict:
    """The shape of the builder's own decoder."""
    own = base.hf.config.text_config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
             "num_attention_heads", "num_key_value_heads", "max_position_embeddings")  # fmt: skip
    return {name: getattr(own, name) for name in names}


@pytest.fixture(params=["sliding", "gemma2"])
def model(request: pytest.FixtureRequest) -> VideoModel:
    return build(request.param)


def example(model: VideoModel, **more):
    return model.encode(clip(3, 40, 60), "What moves?", frames=None, **more)


def test_windows_and_caps_are_those_of_the_dense_map(model: VideoModel) -> None:
    x = example(model, answer="red")
    weights = masks.attentions(model, x)
    assert (weights[1, :, -1, : len(x.layout) - 17] == 0).all()  # the window is real
    run = model.run(x, [AttentionMass("tokens", "frames"), AttentionReceived(), AttentionEntropy()])
    maps.close(run.data.attention_mass, maps.mass(weights, x.layout, "tokens", "frames"))
    maps.close(run.data.attention_received, maps.received(weights, x.layout, "text"))
    maps.close(run.data.attention_entropy, maps.entropy(weights, x.layout, "text"))
    np.testing.assert_allclose(run.logits, masks.logits(model, x), rtol=0, atol=1e-5)


def test_contributions_go_through_norms_behind_the_parts(model: VideoModel) -> None:
    x = example(model)
    run = model.run(x, [Contributions(7, versus=9, by_position=True)])
    attention = run.data.contributions.sel(part="attention")
    np.testing.assert_allclose(
        run.data.contributions.sum(), run.logits[0, 7] - run.logits[0, 9], rtol=1e-4
    )
    heads = run.data.contributions_attention.sum(["head", "source_group"])
    np.testing.assert_allclose(heads, attention, atol=1e-4)
    positions = run.data.contributions_position.sum("position")
    np.testing.assert_allclose(positions, attention, atol=1e-4)


@pytest.mark.parametrize(
    "one", [fastv(2, 0.5), Reduce(at=layer(0), score=Random(), keep=0.5), Knockout("video -> text")]
)
def test_ablations_are_masks_over_original_positions(model: VideoModel, one) -> None:
    x = example(model, answer="red")
    run = model.run(x, ablate=[one])
    hidden = np.zeros((model.n_layers, len(x.layout), len(x.layout)), bool)
    if isinstance(one, Knockout):
        for source, destination in x.layout.edges(one.edges):
            hidden[:, destination[:, None], source] = True
    else:
        hidden |= ~run.kept.values[:, None]
        hidden[:, range(len(x.layout)), range(len(x.layout))] = False
    with masks.masked(model, hidden):
        expected = masks.logits(model, x)
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-4)


def test_decoding_beyond_the_window(model: VideoModel) -> None:
    x = example(model)
    for ablations in ([], [NoRope("video -> text")], [Knockout("frame 1 -> text")]):
        run = model.generate(x, [AttentionMass()], ablations, max_new_tokens=4)
        full = model.force(x, run.meta["generated"])
        np.testing.assert_allclose(
            run.logits, model.run(full, ablate=ablations).logits, rtol=0, atol=1e-4
        )


def test_a_shorter_cache_that_forgets_is_refused(model: VideoModel) -> None:
    with pytest.raises(ProbeError, match="sliding window") as error:
        model.generate(example(model), ablate=[fastv(2, 0.5)], max_new_tokens=4)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_low_rank_adapters_count() -> None:
    peft = pytest.importorskip("peft")
    plain = family.build(seed=1)
    settings = peft.LoraConfig(target_modules=["o_proj", "q_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(plain.hf, settings).eval()
    from probe import load

    model = load((wrapped, plain.processor))
    x = example(model)
    run = model.run(x, [Contributions(7, versus=9), AttentionMass()])
    with torch.no_grad():
        logits = wrapped(**x.inputs).logits[0, -1].numpy()
    np.testing.assert_allclose(run.logits[0], logits, atol=1e-5)
    attention = run.data.contributions.sel(part="attention")
    heads = run.data.contributions_attention.sum(["head", "source_group"])
    np.testing.assert_allclose(heads, attention, atol=1e-4)
    assert np.abs(logits - family.build(seed=1).run(x).logits[0]).max() > 1e-3
