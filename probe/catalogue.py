"""What `probe ablations` lists, from the operators, recipes and components themselves."""

from __future__ import annotations

import inspect
import re
from typing import Any, NamedTuple

from probe.errors import ProbeError
from probe.listing import first_line, signature

# The example whose cost is stated: LLaVA-OneVision-7B, 32 frames of 196 tokens and 20 of text.
FRAMES, FRAME_TOKENS, TEXT = 32, 196, 20
ABOUT_COST = (
    "prefill: part of the decoder's multiply-accumulates over the prompt that is left, by token "
    f"counts alone, for LLaVA-OneVision-7B, {FRAMES} frames of {FRAME_TOKENS} tokens and {TEXT} of "
    'text; empty where no token leaves, "varies" where it depends on the clip or its grid.'
)
KINDS = ("Operators", "Published methods", "Components")


class Entry(NamedTuple):
    """One name that ablations are written with.

    Attributes:
        kind: one of `KINDS`.
        group: where it acts, or what a component is.
        name, call: alone, and with its arguments and their defaults.
        what: one sentence.
        source: paper; prefill: see `ABOUT_COST`; stages, note: of a recipe's card.
    """

    kind: str
    group: str
    name: str
    call: str
    what: str
    source: str = ""
    prefill: str = ""
    stages: str = ""
    note: str = ""


def catalogue() -> list[Entry]:
    """Operators, published methods and components, each kind in order of the groups."""
    from probe import ablate
    from probe.ablate.base import PLACES
    from probe.ablate.registry import OPERATORS, PARTS, RECIPES

    found = [
        Entry(KINDS[0], made.place, n, signature(n, made), first_line(made), made.source)
        for n in OPERATORS
        for made in [getattr(ablate, n)]
    ]
    found += [_recipe(name, getattr(ablate, name)) for name in RECIPES]
    found += [
        Entry(KINDS[2], _kind(made), n, signature(n, made), first_line(made))
        for n in PARTS
        for made in [getattr(ablate, n)]
    ]
    groups = (*PLACES, *_kinds(), "other")
    return sorted(found, key=lambda e: (KINDS.index(e.kind), groups.index(e.group), e.name.lower()))


def entry(name: str) -> tuple[Entry, str]:
    """One entry, and the whole of its documentation.

    Raises:
        ProbeError: a name that is not known.
    """
    from difflib import get_close_matches

    from probe import ablate

    known = {one.name: one for one in catalogue()}
    if name not in known:
        near = get_close_matches(name, known, 3, 0.5)
        hint = f"; is it {' or '.join(near)}?" if near else "; `probe ablations` lists them"
        raise ProbeError(f"ablations: '{name}' is not known{hint}")
    return known[name], inspect.getdoc(getattr(ablate, name)) or ""


def _recipe(name: str, made: Any) -> Entry:
    several = _default(made)
    places = list(dict.fromkeys(one.acts for one in several)) or [_returned(made).place]
    card = made.card
    return Entry(
        kind=KINDS[1],
        group=places[0],
        name=name,
        call=signature(name, made),
        what=first_line(made),
        source=card.paper,
        prefill=_cost(several) if several else "",
        stages=card.stages,
        note=card.note,
    )


def _default(made: Any) -> list[Any]:
    """What a recipe returns without arguments; nothing where it needs some."""
    if any(p.default is p.empty for p in inspect.signature(made).parameters.values()):
        return []
    found = made()
    return list(found) if isinstance(found, list | tuple) else [found]


def _returned(made: Any) -> Any:
    """The operator that a recipe says it returns."""
    from probe import ablate

    written = str(inspect.signature(made).return_annotation)
    return getattr(ablate, re.findall(r"\w+", written)[-1])


def _cost(ablations: list[Any]) -> str:
    from probe.cost import Lengths, Prediction, Shape

    shape = Shape.plain(28, 3584, 18944, heads=28, kv_heads=4)
    full = lengths = Lengths.full(28, (FRAME_TOKENS,) * FRAMES, TEXT)
    for one in ablations:
        found = None if one.listens("prepare") else one.effect(lengths)
        if found is None:
            return "varies"
        lengths = found
    part = Prediction(shape, lengths, full).ratio()
    return "" if part == 1 else f"{part:.1%}"


def _kinds() -> dict[str, Any]:
    from probe.ablate.frame_scores import FrameScorer
    from probe.ablate.reduction import parts
    from probe.ablate.reduction.build import Step
    from probe.ablate.sites import Site

    return {
        "site": Site,
        "step": Step,
        "segmentation": parts.Segment,
        "split": parts.Split,
        "score": parts.Score,
        "budget": parts.Budget,
        "selection": parts.Select,
        "treatment of the rest": parts.Rest,
        "pool": parts.Pooling,
        "score of frames": FrameScorer,
    }


def _kind(made: Any) -> str:
    if not inspect.isclass(made):
        return "site"
    return next((kind for kind, base in _kinds().items() if issubclass(made, base)), "other")
