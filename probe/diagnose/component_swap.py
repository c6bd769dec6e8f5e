"""ComponentSwap: which component of a reduction earns its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from probe.ablate import Random, Reduce, TopK, controls, parse
from probe.diagnose import token_order
from probe.diagnose.base import Diagnosis, Values
from probe.errors import ProbeError
from probe.spec import Spec

if TYPE_CHECKING:
    from probe.diagnose.case import Case
    from probe.engine.result import Run

RANDOM = "score=Random()"
CHOICE = "select=TopK(), score=Random()"


@dataclass(frozen=True)
class ComponentSwap(Diagnosis):
    """A recipe of reduction against itself with one component swapped, at as many tokens.

    The score for a random or an evenly spaced one, segments for windows of four frames, merging for
    dropping, the budget for equal shares (`probe.ablate.controls`); a choice that has no score, for
    a random one. What a component earns is the difference of method and control.

    Attributes:
        recipe: the method as text, `{keep}` where its share of kept tokens belongs:
            "fastv(k=2, keep={keep})".
        keep: shares.
        draws: random choices of each control with a random score, whose mean counts; drawn anew for
            every case.

    Gives, for each share, "margin KEEP" (nats, of the method), "right KEEP" (0 or 1), "tokens KEEP"
    (rows of all layers together), and for each control "gain KEEP CONTROL" and
    "right_gain KEEP CONTROL", method minus control; and `margin_full`, `right_full`. Pooled: means
    with intervals over videos. One untouched run, and one for each row; `swaps` gives several
    recipes one untouched run together.

    Raises:
        ProbeError: a recipe without a component to swap, or a control that does not come to the
            method's number of tokens.
    """

    section: ClassVar[str] = "redundancy"
    always_shown: ClassVar[tuple[str, ...]] = ("recipe",)

    recipe: str = "fastv(k=2, keep={keep})"
    keep: Sequence[float] = (0.25, 0.1, 0.05)
    draws: int = 3

    def measure(self, case: Case) -> Values:
        return swaps(case, [self])[0]

    def rows(self, case: Case) -> list[tuple[float, str, Any]]:
        """(share, what is swapped, ablations) of the method, "" for what, and of each control."""
        draw, found = token_order.rng(case), []
        for share in self.keep:
            method = parse(self.recipe.replace("{keep}", f"{share:g}"))
            found += [(share, "", method)]
            found += [(share, *one) for one in swapped(method, draw, self.draws)]
        return found

    def values(
        self,
        rows: Sequence[tuple[float, str, Any]],
        margin: Float[np.ndarray, " row"],
        tokens: Float[np.ndarray, " row"],
    ) -> dict[str, float]:
        """Differences of method and controls.

        Args:
            rows: of `rows`.
            margin: gold margins.
            tokens: rows of all layers together.
        """
        values: dict[str, float] = {}
        places: dict[tuple[float, str], list[int]] = {}
        for number, (share, what, _) in enumerate(rows):
            places.setdefault((share, what), []).append(number)
        for (share, what), mine in places.items():
            own = places[share, ""][0]
            if (tokens[mine] != tokens[own]).any():
                raise ProbeError(f"{self}: {what} does not keep as many tokens as the method")
            right = float((margin[mine] > 0).mean())
            if not what:
                values |= {f"margin {share:g}": float(margin[own]), f"right {share:g}": right}
                values[f"tokens {share:g}"] = float(tokens[own])
                continue
            values[f"gain {share:g} {what}"] = float(margin[own] - margin[mine].mean())
            values[f"right_gain {share:g} {what}"] = float(margin[own] > 0) - right
        return values


def swaps(case: Case, several: Sequence[ComponentSwap]) -> list[dict[str, float]]:
    """The values of several recipes, in one sweep."""

    def read(run: Run) -> dict[str, float]:
        return {"margin": case.gold_margin(run), "tokens": float(sum(run.cost.length))}

    rows = [one.rows(case) for one in several]
    found = case.sweep([made for each in rows for *_, made in each], read)
    margin, tokens = (found[name].to_numpy(float) for name in ("margin", "tokens"))
    full = {"margin_full": float(margin[0]), "right_full": float(margin[0] > 0)}
    ends = np.cumsum([1, *(len(each) for each in rows)])
    return [
        full | one.values(each, margin[start:stop], tokens[start:stop])
        for one, each, start, stop in zip(several, rows, ends[:-1], ends[1:], strict=True)
    ]


def swapped(method: list, draw: np.random.Generator, draws: int) -> list[tuple[str, Any]]:
    """The controls of a method by what is swapped; those with a random score once a draw."""
    one = method[0]
    if len(method) == 1 and isinstance(one, Reduce) and one.score is None and one.pool is None:
        seeds = draw.integers(1 << 31, size=draws).tolist()
        return [(CHOICE, [replace(one, score=Random(seed), select=TopK())]) for seed in seeds]
    found: list[tuple[str, Any]] = []
    for what, made in controls(method).items():
        if what != "score=Random(seed=0)":
            found.append((what, made))
            continue
        seeds = draw.integers(1 << 31, size=draws).tolist()
        found.extend((RANDOM, [reseeded(part, seed) for part in made]) for seed in seeds)
    return found


def reseeded(where: Any, seed: int) -> Any:
    """Every random score in it with another seed; `match`, which is the method itself, stays."""
    if where == Random(0) and isinstance(where, Random):
        return Random(seed)
    if isinstance(where, tuple):
        return tuple(reseeded(part, seed) for part in where)
    if not isinstance(where, Spec):
        return where
    changes = {
        field.name: new
        for field in fields(where)
        if field.name != "match"
        and (new := reseeded(getattr(where, field.name), seed)) != getattr(where, field.name)
    }
    return replace(where, **changes) if changes else where
