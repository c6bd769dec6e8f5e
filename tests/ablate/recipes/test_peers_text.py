"""Recipes as text and as JSON, and their controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe import ablate
from probe.ablate.recipes.attention_pruning import pyramiddrop
from probe.ablate.recipes.time_pruning import dycoke, fastvid
from probe.errors import ProbeError
from probe.spec import from_json, parse
from tests.ablate.recipes.peers_cases import EVERY, FRAMES, RECIPES, SEEN, listed
from tests.tiny import example


@pytest.fixture
def names() -> Any:
    return ablate.names()


@pytest.mark.parametrize("name", RECIPES)
def test_its_text_makes_the_same_operators(name: str, names) -> None:
    made = listed(RECIPES[name]())
    text = str(made[0]).removesuffix("[0]")

    assert parse(text, names) == made
    assert RECIPES[name].card.paper and RECIPES[name].__doc__
    assert parse(f"{name}()", names) == made


def test_an_argument_in_the_text_is_that_of_the_recipe(names) -> None:
    assert parse("dycoke(keep=0.3)", names) == dycoke(keep=0.3)
    assert parse("dycoke(keep=0.5, decode=False)", names) == dycoke(0.5, decode=False)
    assert parse("pyramiddrop(layers=[1, 2], rates=[0.5, 0.2])", names) == pyramiddrop(
        [1, 2], [0.5, 0.2]
    )
    with_score = parse("fastvid(keep=0.3, score=EncoderReceived())", names)
    assert with_score == [fastvid(0.3, score=SEEN)]


@pytest.mark.parametrize("name", [*RECIPES, *EVERY])
def test_every_operator_comes_back_from_json(name: str, names) -> None:
    for one in listed(EVERY[name]() if name in EVERY else RECIPES[name]()):
        again = from_json(one.to_json(), names)
        assert again == one and hash(again) == hash(one)


@pytest.mark.parametrize("name", EVERY)
def test_controls_have_the_same_number_of_tokens(tiny, name: str) -> None:
    x, one = example(tiny, FRAMES), EVERY[name]()
    if name == "mustdrop":  # its only score is that of the key set
        with pytest.raises(ProbeError, match="no reduction with a component to swap"):
            ablate.controls(one)
        return
    run = tiny.run(x, ablate=listed(one))
    for what, control in ablate.controls(one).items():
        other = tiny.run(x, ablate=listed(control))
        assert other.cost.length == run.cost.length, what
        if what.startswith("score"):
            assert not np.allclose(other.logits, run.logits, atol=1e-4), what


def wrapped(spec: Any, name: str, wrap: Callable[[Any], Any]) -> Any:
    """Every part of one kind of a reduction, in another one."""
    changes: dict[str, Any] = {}
    for field in ("pieces", "then"):
        changes[field] = tuple(wrapped(step, name, wrap) for step in getattr(spec, field, ()))
    old = getattr(spec, name, None)
    if old is not None:
        changes[name] = wrap(old)
    return replace(spec, **{k: v for k, v in changes.items() if v != ()})
