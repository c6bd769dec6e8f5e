"""Every recipe of reductions in runs of several families: neutral, decoded, alone with text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import Reduce, ablations, names, parse
from probe.ablate.recipes import frame_merging, layer_pruning, pooling, schedules, tower_pruning
from probe.ablate.recipes.frame_merging import longvlm
from probe.ablate.recipes.pooling import dpn, fourier_vlm
from probe.ablate.recipes.tower_pruning import fastervlm
from probe.ablate.sites import VisionOut
from probe.engine import forward
from probe.spec import from_json
from tests.ablate.plain import named
from tests.ablate.recipes.reduction_cases import ACTIVE, NEUTRAL, SEEN, listed
from tests.ablate.test_oracles import check_definition
from tests.families import models
from tests.tiny import example

NAMES = ["tiny", "video_llava", "qwen2_5_vl"]
MODULES = (frame_merging, layer_pruning, pooling, schedules, tower_pruning)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("neutral", NEUTRAL)
def test_neutral_is_bit_identical(name: str, neutral: str, request) -> None:
    model = named(request, name)
    x, y = models.example(model, answer="red"), models.example(model)
    one = listed(NEUTRAL[neutral]())
    assert np.array_equal(model.run(x, ablate=one).logits, model.run(x).logits)
    plain = model.generate(y, max_new_tokens=3)
    assert np.array_equal(model.generate(y, ablate=one, max_new_tokens=3).logits, plain.logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("active", ACTIVE)
def test_decode_is_the_recomputation_of_what_is_left(name: str, active: str, request) -> None:
    """Generation with its cache, and the forced answer all at once."""
    model = named(request, name)
    x, one = models.example(model), listed(ACTIVE[active]())
    gen = model.generate(x, ablate=one, max_new_tokens=4)
    run = model.run(model.force(x, gen.meta["generated"]), ablate=one)
    n = len(x.layout)
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(run.kept[:, :n], gen.kept[:, :n])
    prompt = model.run(x, ablate=one)
    np.testing.assert_allclose(prompt.logits[-1], gen.logits[0], rtol=0, atol=2e-5)
    assert np.abs(prompt.logits - model.run(x).logits).max() > 1e-3, "it changes nothing"
    assert gen.cost.kv_length == tuple(length + 3 for length in prompt.cost.kv_length)
    forced = forward.run(model, x, ablations=one, force=True)
    np.testing.assert_allclose(forced.logits, prompt.logits, rtol=0, atol=2e-5)
    text = x.layout.role != "video"
    assert run.kept.values[:, :n][:, text].all(), "text stays"


SELECTIONS = ["fastv", "yopo_drop", "atp", "relevance_prune", "schedule", "p_sigmoid"]


@pytest.mark.parametrize("active", SELECTIONS)
def test_dropping_at_its_place_is_the_definition(pair, active: str) -> None:
    """Those that keep position ids and merge nothing, against the decoder in float64."""
    for model in pair:
        check_definition(model, listed(ACTIVE[active]()))


@pytest.mark.parametrize("active", ACTIVE)
def test_without_a_clip_nothing_happens(tiny, active: str) -> None:
    x, one = example(tiny, None, answer="red"), listed(ACTIVE[active]())
    assert np.array_equal(tiny.run(x, ablate=one).logits, tiny.run(x).logits)


@pytest.mark.parametrize("active", ACTIVE)
def test_as_text_and_json(active: str) -> None:
    made = ACTIVE[active]()
    one = listed(made)
    label = str(one[0]).removesuffix("[0]")
    assert listed(parse(label)) == one
    data = json.loads(json.dumps([part.to_json() for part in one]))
    assert [from_json(part, names()) for part in data] == one
    assert all(isinstance(part, Reduce) for part in one)


def test_every_recipe_has_a_card_and_a_name() -> None:
    known = ablations()
    for module in MODULES:
        for name, made in vars(module).items():
            if hasattr(made, "card") and made.__module__ == module.__name__:
                assert known[name] is made
                assert made.card.paper and "\n" not in made.card.note and "|" not in made.card.note
                assert made.__doc__


def test_before_the_projector() -> None:
    """Patches are the tokens of Video-LLaVA; CLS stays in front of them."""
    model = models.build("video_llava")
    x = models.example(model)
    for one in (fourier_vlm((2, 2), at=VisionOut()), fastervlm(0.5, at=VisionOut()),
                longvlm(5, (9, 6), heads=8, at=VisionOut())):  # fmt: skip
        gen = model.generate(x, ablate=[one], max_new_tokens=3)
        run = model.run(model.force(x, gen.meta["generated"]), ablate=[one])
        np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=2e-5)
        count = len(run.reductions[0].weights)
        assert run.cost.length[0] - 3 == len(x.layout) - 45 + count
        assert count in (20, 25, 30)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (lambda: dpn((9,)), "layer 9 does not exist"),
        (lambda: fastervlm(1.5, SEEN), "it is a fraction"),
        (lambda: fourier_vlm((1, 1), "double"), 'is not "unit" or "legacy"'),
        (lambda: longvlm(heads=5), "do not divide"),
    ],
)
def test_what_cannot_be(tiny, one, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        tiny.run(example(tiny), ablate=listed(one()))
    assert "\n" not in str(error.value)
