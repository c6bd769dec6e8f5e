"""What `probe ablations` lists, from the operators, recipes and components themselves."""

from __future__ import annotations

import inspect
from typing import Any

from probe.listing import first_line, signature

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
# The example whose cost is stated: LLaVA-OneVision-7B, 32 frames of 196 tokens and 20 of text.
FRAMES, FRAME_TOKENS, TEXT = 32, 196, 20
OPERATOR = ("operator", "where it acts", "what it does", "source")
RECIPE = ("method", "where it acts", "prefill", "what it does", "paper", "stages", "note")
PART = ("component", "what it is", "what it does")


def catalogue() -> list[Table]:
    """(title, names of the columns, rows) of operators, published methods and components."""
    from probe import ablate
    from probe.ablate.registry import OPERATORS, PARTS, RECIPES

    made = {name: getattr(ablate, name) for name in (*OPERATORS, *RECIPES, *PARTS)}
    operators = [
        (signature(name, made[name]), made[name].place, first_line(made[name]), made[name].source)
        for name in sorted(OPERATORS)
    ]
    recipes = [_recipe(name, made[name]) for name in sorted(RECIPES)]
    parts = [(signature(n, made[n]), _kind(made[n]), first_line(made[n])) for n in PARTS]
    parts.sort(key=lambda row: (row[1], row[0]))
    return [
        ("Operators", OPERATOR, operators),
        ("Published methods", RECIPE, recipes),
        ("Components", PART, parts),
    ]


def _recipe(name: str, made: Any) -> tuple[str, ...]:
    from probe.ablate.recipe import Card

    card = getattr(made, "card", Card(""))
    plain = all(p.default is not p.empty for p in inspect.signature(made).parameters.values())
    found = made() if plain else []
    several = found if isinstance(found, list | tuple) else [found]
    places = list(dict.fromkeys(one.acts for one in several))
    return (
        signature(name, made),
        ", ".join(places) or "see the note",
        _cost(several) if several else "",
        first_line(made),
        card.paper,
        card.stages,
        card.note,
    )


def _cost(ablations: list[Any]) -> str:
    """Part of the prefill's multiply-accumulates that is left, where it follows from the
    parameters alone.
    """
    from probe.cost import Lengths, Prediction, Shape

    shape = Shape.plain(28, 3584, 18944, heads=28, kv_heads=4)
    full = lengths = Lengths.full(28, (FRAME_TOKENS,) * FRAMES, TEXT)
    for one in ablations:
        found = one.effect(lengths)
        if found is None:
            return "depends on the clip"
        lengths = found
    return f"{Prediction(shape, lengths, full).ratio():.1%}"


def _kind(made: Any) -> str:
    from probe.ablate.reduction import parts
    from probe.ablate.sites import Site

    kinds = {
        "segmentation": parts.Segment,
        "split": parts.Split,
        "score": parts.Score,
        "budget": parts.Budget,
        "selection": parts.Select,
        "treatment of the rest": parts.Rest,
        "pool": parts.Pooling,
        "site": Site,
    }
    if not inspect.isclass(made):
        return "site"
    return next((kind for kind, base in kinds.items() if issubclass(made, base)), "other")
