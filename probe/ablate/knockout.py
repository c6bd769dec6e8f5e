"""Knockout: attention edges are cut before the softmax, so their weight goes to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.edges import EdgeAblation
from probe.ablate.random_edges import RandomEdges
from probe.errors import ProbeError
from probe.models.selection import Edges

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class Knockout(EdgeAblation):
    """Let no information flow along some edges, in some layers (Geva et al. 2023).

    Attributes:
        edges: "video -> question", ("frame 3", "last"), or a list of them; source -> destination.
            "X -> answer" cuts into the readout; "text" and "readout" include generated tokens.
        layers: which layers.
        heads: number or numbers of heads, in each of the layers; all of them where None.
        random: a seed: as many edges as these, drawn from `pool` instead (the control of "Map the
            Flow", arXiv 2510.13251). What each later token loses is drawn from its own edges.
        pool: edges to draw from; an edge of a token to itself is never drawn.
    """

    place: ClassVar[str] = "attention mask"
    source: ClassVar[str] = "attention knockout (arXiv 2304.14767)"

    heads: int | Sequence[int] | None = None
    random: int | None = None
    pool: Edges = "all -> all"

    def start(self, session: Session) -> dict | None:
        """Check the heads; draw the edges of a random control."""
        count, heads = session.model.n_heads, self._heads
        if heads is not None and not set(heads) <= set(range(count)):
            raise ProbeError(f"{self}: the model has heads 0 to {count - 1}")
        if heads is not None and (self.random is not None or not heads):
            raise ProbeError(f"{self}: name some heads, and no random edges with them")
        state = super().start(session)
        if state is None or self.random is None or not state["edges"]:
            return state
        state["drawn"] = RandomEdges(
            session.layout, state["edges"], session.layout.edges(self.pool), self.random, str(self)
        )
        return state

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Cut, in one go where the edges are drawn."""
        if "drawn" not in state:
            super().edit(session, state, call)
        elif call.layer in state["layers"]:
            self._cut_drawn(state, call, state["drawn"])

    def _cut_drawn(self, state: dict, call: AttentionCall, drawn: RandomEdges) -> None:
        rows = call.index(drawn.rows)
        call.hide(rows, lambda some: drawn.mask(call, some))
        if state["fired"] or not len(rows):
            return
        cut = drawn.mask(call, rows[-3:])
        before, after = call.unedited.scores(rows[-3:]), call.scores(rows[-3:])
        had = before.softmax(-1).nan_to_num()[:, cut] > 0
        if bool(had.any()) and bool((after[:, cut] == float("-inf")).all()):
            state["met"] = state["fired"] = set(range(len(state["edges"])))

    def change(self, session: Session, call: AttentionCall, rows: Tensor, columns: Tensor) -> None:
        """Set the scores of the edges to -inf."""
        heads = self._heads
        call.cut(rows, columns, None if heads is None else torch.tensor(heads, device=rows.device))

    def changed(
        self,
        session: Session,
        call: AttentionCall,
        rows: Tensor,
        columns: Tensor,
        before: Tensor,
        after: Tensor,
    ) -> bool:
        """The edges had weight, and have none now."""
        heads = slice(None) if self._heads is None else self._heads
        had, has = (each.softmax(-1).nan_to_num()[heads][..., columns] for each in (before, after))
        return bool((had > 0).any()) and not bool(has.any())

    @property
    def _heads(self) -> list[int] | None:
        if self.heads is None:
            return None
        return [self.heads] if isinstance(self.heads, int) else list(self.heads)

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        """Drawn edges are anywhere."""
        if "drawn" in state:
            return state["layers"][0], int(state["drawn"].rows[0])
        return super().affects(session, state)


def windows(
    what: Edges | Ablation, width: int, layers: int, kind: str = "centred", step: int = 1
) -> Iterator[Any]:
    """One ablation per window of layers, for a sweep.

    Args:
        what: edges to knock out, or any ablation with `layers`, which is the template.
        width: layers in a window.
        layers: how many the model has (`model.n_layers`).
        kind: "centred" on every layer, cut at the ends ("Map the Flow", width 9); "blocks" beside
            one another (LLaVA-Mini, width 4).
        step: distance of the centres; blocks are `width` apart.

    Yields:
        The ablation with `layers` set to each window, from the first layer to the last.

    Raises:
        ProbeError: a width below 1, an unknown kind.
    """
    if width < 1 or step < 1:
        raise ProbeError(f"windows: width={width} and step={step}; both are at least 1")
    if kind not in ("centred", "blocks"):
        raise ProbeError(f'windows: kind="{kind}"; there are "centred" and "blocks"')
    one: Any = what if isinstance(what, Ablation) else Knockout(what)
    if kind == "blocks":
        starts, step = range(0, layers, width), width
    else:
        starts = range(-((width - 1) // 2), layers - (width - 1) // 2, step)
    for start in starts:
        yield replace(one, layers=range(max(0, start), min(layers, start + width)))
