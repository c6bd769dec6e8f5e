"""TokensNeeded: the smallest set of visual tokens that keeps the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Int

from probe.capture.base import Capture
from probe.diagnose import layer_rates, minimal_set, token_order
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.importance.attention import AttentionMap
from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.occlusion import blocks
from probe.diagnose.importance.values import ContributionMap
from probe.diagnose.keeping import Keeping, keeping_of
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case

SEARCHES = ("bisect", "scan", "greedy", "g_search")
MAPS = (ContributionMap(), AttentionMap())
NAMES = (
    "needed", "needed_share", "needed_margin", "needed_margin_kept", "needed_random", "removable",
    "removable_random",
)  # fmt: skip


@dataclass(frozen=True)
class TokensNeeded(Diagnosis):
    """The smallest set of visual tokens with which the model still gives the answer.

    Every count is an upper bound of the true minimum, found by a search; that of "greedy" is the
    closest. Tokens that are left keep their positions; the others are out of the sequence.

    Attributes:
        by: importance maps; tokens are kept in the order of each.
        search: "bisect" over the number kept in each order, at most 5 or 6 reduced runs each; exact
            for the order where a set that is enough stays enough with more.
            "scan" tries every size. "greedy" goes on from what bisection found, backward
            over tubelets and tokens until no single token can be left out; where more than a
            tubelet is left, from tubelets joined one by one as well.
            "g_search" gives each layer its own rate (G-Search, Zhao et al.), by the question's
            attention; `by` and `layer` do not matter there.
        random: orders drawn at random, which are tried too: the number needed without any choice.
        ratio: sizes tried grow by this factor, and at least by one token; 1 for every size.
        keeps: "own", the answer that the model gives with every token; "gold", the right one, with
            NaN where the model does not give it.
        layer: first decoder layer that works without the others; 0 for before the first.
        tubelet: (frames, cells): length and side of the tubelets of the greedy search.

    Gives `needed` and `needed_share`; `removable`, all less those; `needed_margin`, in logits of
    the answer over its best rival, and `needed_margin_kept`, its ratio to `margin_own` with every
    token; `margin_none` without any; `needed_random` and `removable_random`, means over the random
    orders: the number without a choice. "scan" adds `needed_lasting`, the smallest size of the best
    map from which on every size is enough. "g_search" counts the mean over layers, and adds
    `needed_by_layer` [layer]. What `keeps` does not find is NaN.

    It takes two untouched runs, and by bisection 8 to 20 reduced ones of few tokens.
    """

    section: ClassVar[str] = "redundancy"

    by: Sequence[ImportanceMap] = MAPS
    search: str = "bisect"
    random: int = 2
    ratio: float = 1.2
    keeps: str = "own"
    layer: int = 0
    tubelet: tuple[int, int] = (4, 2)

    def reads(self, case: Case) -> Sequence[Capture]:
        if self.search == "g_search":
            return ()
        return [capture for one in self.by for capture in one.reads(case)]

    def measure(self, case: Case) -> Values:
        self._check()
        case.read(self.reads(case))
        keeping = keeping_of(case, self.keeps, self.layer, self.kind)
        values: dict[str, Any] = dict.fromkeys(NAMES, float("nan"))
        values |= {"margin_own": keeping.full, "margin_none": keeping.margin(np.zeros(0, int))}
        if keeping.full <= 0:
            return values
        total = len(keeping.tokens)
        drawn = self._random(case, keeping)
        if drawn:
            values["needed_random"] = float(np.mean([len(kept) for kept in drawn]))
            values["removable_random"] = total - values["needed_random"]
        if self.search == "g_search":
            values |= layer_rates.needed(keeping)
        else:
            kept, more = self._searched(case, keeping, drawn)
            values |= {"needed": float(len(kept)), "needed_margin": keeping.margin(kept)} | more
        values["removable"] = total - values["needed"]
        values["needed_share"] = values["needed"] / total
        values["needed_margin_kept"] = values["needed_margin"] / keeping.full
        return values

    def needed(self, case: Case) -> Int[np.ndarray, " kept"]:
        """Positions of the tokens found.

        Raises:
            ProbeError: the model does not give the answer with every token either, or rates of
                layers are no set of tokens.
        """
        self._check()
        keeping = keeping_of(case, self.keeps, self.layer, self.kind)
        if keeping.full <= 0 or self.search == "g_search":
            why = "rates by layer" if keeping.full > 0 else "an answer that the model does not give"
            raise ProbeError(f"{self.kind}: {why}: there is no set of tokens")
        drawn = self._random(case, keeping)
        return keeping.tokens[self._searched(case, keeping, drawn)[0]]

    def _searched(
        self, case: Case, keeping: Keeping, drawn: list[np.ndarray]
    ) -> tuple[np.ndarray, dict[str, float]]:
        """The set, by numbers among the clip's tokens, and what else the search says."""
        own = self.keeps == "own"
        orders = [token_order.order(token_order.values(case, by, own)) for by in self.by]
        sizes = minimal_set.rungs(len(keeping.tokens), self.ratio)
        kept = min([np.arange(sizes[-1]), *drawn], key=len)
        lasting = []
        for order in orders:
            if self.search == "scan":
                lasts, size = minimal_set.scan(keeping.margin, order, sizes)
                lasting.append(lasts)
            else:  # what is not smaller than the best so far need not be enough in this order
                below = [size for size in sizes if size < len(kept)]
                size = minimal_set.bisect(keeping.margin, order, [*below, len(kept)])
            kept = np.sort(order[:size]) if size < len(kept) else kept
        if self.search == "greedy":
            kept = self._greedy(case, keeping, orders[0], kept)
        return kept, {"needed_lasting": float(min(lasting))} if lasting else {}

    def _greedy(
        self, case: Case, keeping: Keeping, order: np.ndarray, kept: np.ndarray
    ) -> np.ndarray:
        """Backward from what was found; where that leaves more than a tubelet, backward from
        tubelets joined greedily as well.
        """
        frames, cells = self.tubelet
        label = blocks(case.x.layout, cells, frames)
        groups = [np.flatnonzero(label == n) for n in range(int(label.max()) + 1)]
        worth = np.empty(len(order))
        worth[order] = -np.arange(len(order))
        kept = minimal_set.backward(keeping.margin, kept, worth, groups)
        if len(kept) <= frames * cells * cells:
            return kept
        joined = minimal_set.forward(keeping.margin, groups)
        return min(kept, minimal_set.backward(keeping.margin, joined, worth, groups), key=len)

    def _random(self, case: Case, keeping: Keeping) -> list[np.ndarray]:
        """A set that is enough along each random order."""
        total, draw = len(keeping.tokens), token_order.rng(case)
        sizes = minimal_set.rungs(total, self.ratio)
        orders = [draw.permutation(total) for _ in range(self.random)]
        return [np.sort(one[: minimal_set.bisect(keeping.margin, one, sizes)]) for one in orders]

    def _check(self) -> None:
        if self.search not in SEARCHES:
            raise ProbeError(
                f'{self.kind}: search="{self.search}"; there are {", ".join(SEARCHES)}'
            )
        if not self.ratio >= 1:
            raise ProbeError(f"{self.kind}: ratio={self.ratio}; sizes grow, so it is 1 or more")
        if not self.by or not all(isinstance(one, ImportanceMap) for one in self.by):
            raise ProbeError(f"{self.kind}: by={self.by}; name importance maps, [AttentionMap()]")
