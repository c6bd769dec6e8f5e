"""Recipes in runs of tiny models: neutral, in prefill and decode, inside of the tower, refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probe.ablate.recipes.attention_pruning import dart, mustdrop, pyramiddrop, sparsevlm
from probe.ablate.recipes.diversity import vispruner
from probe.ablate.recipes.time_pruning import dycoke, earlytom, fastvid
from probe.ablate.recipes.token_merging import prumerge, tome, visionzip
from probe.ablate.sites import VisionOut
from probe.engine import forward
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests.ablate.recipes.peers_cases import (
    EVERY,
    FRAMES,
    NEUTRAL,
    SEEN,
    SELECTIONS,
    TOKENS,
    listed,
)
from tests.ablate.test_oracles import check_definition
from tests.families import models
from tests.tiny import example


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameters_are_bit_identical(pair, name: str) -> None:
    model, _ = pair
    x, y = example(model, FRAMES, answer="red"), example(model, FRAMES)
    one = listed(NEUTRAL[name]())
    assert np.array_equal(model.run(x, ablate=one).logits, model.run(x).logits)
    plain = model.generate(y, max_new_tokens=3)
    assert np.array_equal(model.generate(y, ablate=one, max_new_tokens=3).logits, plain.logits)


@pytest.mark.parametrize("name", SELECTIONS)
def test_prefill_and_decode_of_selections_are_the_definition(pair, name: str) -> None:
    for model in pair:
        check_definition(model, listed(SELECTIONS[name]()))


@pytest.mark.parametrize("name", EVERY)
def test_decode_is_the_recomputation_of_what_is_left(tiny, name: str) -> None:
    """Generation, token by token with its cache, and the forced answer all at once; every layer has
    as many tokens in the one as in the other, and one more a step.
    """
    model = tiny
    x, one = example(model, FRAMES), listed(EVERY[name]())
    plain = model.run(x)
    gen = model.generate(x, ablate=one, max_new_tokens=4)
    full = model.force(x, gen.meta["generated"])
    run = model.run(full, ablate=one)

    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(run.kept[:, : len(x.layout)], gen.kept[:, : len(x.layout)])
    assert not np.allclose(gen.logits[0], plain.logits[0], atol=1e-3)
    assert len(gen.meta["generated"]) == 4
    prompt = model.run(x, ablate=one)
    assert np.isfinite(prompt.logits).all()
    np.testing.assert_allclose(prompt.logits[-1], gen.logits[0], rtol=0, atol=1e-5)
    for number in range(model.n_layers):
        assert prompt.cost.length[number] == prompt.kept.values[number].sum()
    forced = forward.run(model, x, ablations=one, force=True)
    np.testing.assert_allclose(forced.logits, prompt.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TOKENS)
def test_before_the_model_it_is_transformers_on_fewer_tokens(pair, name: str) -> None:
    """The language model of transformers, on the merged embeddings times the weights."""
    model, _ = pair
    one: Any
    x, (one,) = example(model, FRAMES), listed(TOKENS[name]())
    run = model.run(x, ablate=[one])
    (reduction,) = run.reductions
    seen: list[torch.Tensor] = []
    handle = model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    model.run(x)
    handle.remove()
    video = x.layout.select("video")
    assert reduction.candidates.tolist() == video.tolist()
    dense = torch.as_tensor(reduction.weights.dense())
    fewer = (dense @ seen[0][video].double()).float()
    inputs = torch.cat([seen[0][: video[0]], fewer, seen[0][video[-1] + 1 :]])
    ids = torch.arange(len(inputs))[None]
    if one.position == "keep":
        kept = np.setdiff1d(np.arange(len(x.layout)), reduction.dropped)
        ids = torch.as_tensor(kept)[None]
    mask = torch.ones_like(ids)  # without it gaps of the ids are taken for other sequences
    with torch.no_grad():
        out = model.decoder(inputs_embeds=inputs[None], position_ids=ids, attention_mask=mask)
        logits = model.hf.lm_head(out.last_hidden_state[0, -1]).numpy()

    np.testing.assert_allclose(run.logits[-1], logits, rtol=0, atol=1e-5)
    assert not reduction.weights.is_identity


@pytest.mark.parametrize("name", ["tome", "mustdrop", "earlytom"])
def test_stages_inside_of_the_tower(name: str) -> None:
    make = {
        "tome": lambda: tome(2, layers=2),
        "mustdrop": lambda: mustdrop(-1.0, 0.3, 0.2, layers=[1]),
        "earlytom": lambda: earlytom(0.5, tau=0.0, layers=(0, 1), k=2),
    }
    model = models.build("video_llava")
    x, one = models.example(model), make[name]()
    before = len(x.layout.select("video"))
    gen = model.generate(x, ablate=one, max_new_tokens=3)
    run = model.run(model.force(x, gen.meta["generated"]), ablate=one)

    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)
    assert run.cost.length[0] < run.kept.sizes["position"]
    tower = [r.weights for r in run.reductions][: 1 if name == "mustdrop" else 2]
    assert all(len(w) < w.size for w in tower)
    if name == "tome":  # two rounds of two in each of five frames
        assert run.kept.values[0][: len(x.layout)].sum() == len(x.layout) - 20
        np.testing.assert_allclose(tower[-1].mass.sum(), 45)
    assert before == len(x.layout.select("video"))


@pytest.mark.parametrize("name", ["vispruner", "visionzip"])
def test_before_the_projector_the_same_tokens_stay(name: str) -> None:
    model = models.build("video_llava")
    x = models.example(model)
    make = vispruner if name == "vispruner" else visionzip
    run = model.run(x, ablate=[make(keep=0.5, at=VisionOut())])

    assert len(run.reductions[0].weights) == 20
    assert run.reductions[0].weights.size == 45


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vispruner(0.5), r"cls: .* has no CLS token; EncoderReceived\(\) can stand"),
        (lambda: visionzip(2), r"cls: .* has no CLS token; EncoderReceived\(\) can stand"),
        (lambda: prumerge(), r"wide_cls: .* has no CLS token; EncoderReceived\(\) can stand"),
        (lambda: mustdrop(-1.0), "single patches have no tokens"),
        (lambda: tome(1, 1), "single patches have no tokens"),
        (lambda: tome(1, 24), "the tower has layers 0 to 1"),
        (lambda: fastvid(0.5, 3), r"pool_head: .* no pooling head .*EncoderReceived\(\)"),
        (lambda: fastvid(0.5, score=SEEN), "5 frames cannot be 8 groups"),
        (lambda: pyramiddrop(), "layer 8 does not exist"),
        (lambda: dycoke(layer=9), "does not exist"),
        (lambda: dart(0), "no attention before layer 0"),
    ],
)
def test_refusals_are_one_line(tiny: VideoModel, make, words: str) -> None:
    x = example(tiny)
    for do in (tiny.run, tiny.generate):
        with pytest.raises(ProbeError, match=words) as error:
            do(x, ablate=listed(make()))
        assert "\n" not in str(error.value)


def test_three_axes_refuse_new_numbers_inside_of_the_decoder() -> None:
    model = models.build("qwen2_5_vl")
    x = models.example(model)
    for one in (pyramiddrop([1, 2], [0.5, 0.2]), sparsevlm(layers=[1], counts=[300])):
        with pytest.raises(ProbeError, match='use position="keep"'):
            model.run(x, ablate=one)
    kept = model.run(x, ablate=pyramiddrop([1, 2], [0.5, 0.2], position="keep"))
    assert kept.cost.length[2] < kept.cost.length[1] < kept.cost.length[0]
