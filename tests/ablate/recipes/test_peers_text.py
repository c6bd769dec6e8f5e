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
from probe.ablate.reduction import attended, by_key, ranked, settle
from probe.ablate.reduction.even import Evenly, Unmerged
from probe.ablate.scores_wide import WideCLS
from probe.spec import from_json, parse
from tests.ablate.recipes.peers_cases import EVERY, FRAMES, RECIPES, SEEN, TOKENS, listed
from tests.tiny import example


@pytest.fixture
def names() -> dict[str, Callable]:
    parts = (
        attended.Attended, attended.HalfTextQuery, attended.KeySet, attended.TextPeak,
        attended.TextRows, by_key.KeyBipartite, by_key.KeyMerge, ranked.IfShort, ranked.Larger,
        ranked.MergeIfShort, ranked.Ranked, ranked.WindowEnds,
        settle.UntilSettled, WideCLS,
    )  # fmt: skip
    return ablate.names() | RECIPES | {part.__name__: part for part in parts}


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


SCORES = [name for name in EVERY if name not in ("mustdrop", "dycoke (all)")]


@pytest.mark.parametrize("name", SCORES)
def test_controls_of_the_score_have_the_same_number_of_tokens(tiny, name: str) -> None:
    x, one = example(tiny, FRAMES), EVERY[name]()
    run = tiny.run(x, ablate=listed(one))
    swapped = {w: o for w, o in ablate.controls(one).items() if w.startswith("score")}
    assert swapped or name in ("divprune", "framefusion", "prunevid", "unicomp")
    for control in swapped.values():
        other = tiny.run(x, ablate=listed(control))
        assert other.cost.length == run.cost.length
        assert not np.allclose(other.logits, run.logits, atol=1e-4)


@pytest.mark.parametrize("name", [*TOKENS, "sparsevlm (all)", "prunevid (all)"])
def test_parts_for_controls_keep_the_number_of_tokens(tiny, name: str) -> None:
    x, one = example(tiny, FRAMES), listed(EVERY[name]())
    length = tiny.run(x, ablate=one).cost.length
    for field, wrap in (("rest", Unmerged), ("budget", Evenly)):
        changed = [wrapped(operator, field, wrap) for operator in one]
        if name == "unicomp" and field == "budget":
            continue  # `Cover` finds fewer tokens than an equal share in some of the frames
        run = tiny.run(x, ablate=changed)
        assert run.cost.length == length
        if field == "rest":
            assert all(r.weights.is_selection for r in run.reductions) or "code" in name


def wrapped(spec: Any, name: str, wrap: Callable[[Any], Any]) -> Any:
    """Every part of one kind of a reduction, in another one."""
    changes: dict[str, Any] = {}
    for field in ("pieces", "then"):
        changes[field] = tuple(wrapped(step, name, wrap) for step in getattr(spec, field, ()))
    old = getattr(spec, name, None)
    if old is not None:
        changes[name] = wrap(old)
    return replace(spec, **{k: v for k, v in changes.items() if v != ()})
