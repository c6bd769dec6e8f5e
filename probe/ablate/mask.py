"""Mask: other shapes of attention among video tokens and between text and video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate import mask_shapes
from probe.ablate.base import Ablation
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.cost_lengths import Lengths
    from probe.engine.session import Session

SHAPES = ("neighbour", "frame_causal", "blackout", "window")
CHUNK = 64  # rows looked at together


@dataclass(frozen=True)
class Mask(Ablation):
    """Replace the causal mask by another shape in some layers; what is generated is text.

    "neighbour": a video token sees video tokens at most `radius` rows and columns and `frames`
    frames away (YOPO; the released code also shows later ones: causal="replace").
    "frame_causal": it sees its whole frame, and what is before that (TC-LLaVA).
    "blackout": text sees nothing visual in these layers (LLaVA-Mini).
    "window": `queries` see frames at most `frames` away from their own; text stands at the last
    frame before it. Text sees text and video sees text as ever. In layers with a sliding window
    what has left it stays hidden.

    Attributes:
        shape: one of these.
        layers: which layers.
        radius: rows and columns, for "neighbour".
        frames: frames before and after, for "neighbour" and "window".
        causal: "keep", or "replace" for "neighbour" with later tokens.
        queries: what a "window" is for: "video", "text", "question", ...
        frozen: in a "blackout" the visual tokens pass the layers by, and cost nothing in them.
    """

    place: ClassVar[str] = "attention mask"
    source: ClassVar[str] = (
        "YOPO (arXiv 2410.06169), TC-LLaVA (arXiv 2409.03206), LLaVA-Mini (arXiv 2501.03895)"
    )
    always_shown: ClassVar[tuple[str, ...]] = ("shape",)

    shape: str = "neighbour"
    layers: Layers = "all"
    radius: int = 1
    frames: int = 0
    causal: str = "keep"
    queries: Selection = "video"
    frozen: bool = False

    @property
    def acts(self) -> str:
        """Frozen tokens are left out of layers, others are masked."""
        return "hidden states" if self.frozen else self.place

    def listens(self, event: str) -> bool:
        """Frozen ones pass by; there is nothing left to cut."""
        if event in ("edit", "bypass"):
            return self.frozen == (event == "bypass")
        return super().listens(event)

    def start(self, session: Session) -> dict[str, Any] | None:
        """Neutral without a clip or an image, and where the shape is the causal one."""
        self._check()
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        layout = session.layout
        if not layout.visuals and not session.force:
            return None
        every = np.arange(len(layout))
        try:
            chosen = layout.select("text" if self.shape == "blackout" else self.queries)
        except NoClip:
            chosen = every[:0]
        at = mask_shapes.Places.of(layout, chosen, session.model.hf.device)
        if self.shape == "neighbour" and layout.visuals and not bool((at.row >= 0).any()):
            raise ProbeError(
                f"{self}: the visual tokens of {session.model.name} have no place in the frame; "
                'use shape="window"'
            )
        rows = self._rows(at)
        positions = torch.arange(len(layout), device=at.frame.device)
        found = _first(self._shape(at), positions[rows], positions, _causal)
        if found is None and not session.force:
            return None
        return {
            "layers": layers,
            "places": at,
            "text": chosen,
            "rows": rows,
            "first": len(layout) if found is None else int(found),
            "neutral": found is None,
            "fired": False,
        }

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Hide and show edges; the first row that changes proves that it happened."""
        if self.frozen or call.layer not in state["layers"]:
            return
        rows = call.index(state["rows"])
        if not len(rows):
            return
        own = torch.as_tensor(call.positions, device=rows.device)
        keys = torch.as_tensor(call.key_positions, device=rows.device)[None]
        shape = self._shape(state["places"].on(rows.device))

        def part(number: int) -> Any:
            return lambda some: shape(own[some][:, None], keys)[number]

        row = None
        if not state["fired"]:
            row = _first(shape, own[rows], keys[0], _unseen(call, rows))
        before = None if row is None else call.unedited.scores(rows[own[rows] == row])
        hidden, shown = shape(own[rows[:1]][:, None], keys)
        if hidden is not None:
            call.hide(rows, part(0))
        if shown is not None:
            call.show(rows, part(1))
        if row is not None and before is not None:
            after = call.scores(rows[own[rows] == row])
            had, has = (each.softmax(-1).nan_to_num()[:, 0] > 0 for each in (before, after))
            hidden, shown = shape(row[None, None], keys)
            lost = hidden is not None and bool(had[:, hidden[0]].any() & ~has[:, hidden[0]].any())
            won = shown is not None and bool((has & ~had)[:, shown[0]].any())
            state["fired"] = lost or won

    def bypass(self, session: Session, state: dict, layer: int, x: Tensor) -> np.ndarray | None:
        """Text goes through the layer, the rest passes it by."""
        if not self.frozen or layer not in state["layers"]:
            return None
        through = np.isin(session.positions[layer], state["text"])
        if through.all():
            return None
        state["fired"] = True
        return np.flatnonzero(through)

    def effect(self, lengths: Lengths) -> Lengths | None:
        """Which tokens stand still in a frozen one is known with the layout only."""
        return None if self.frozen else lengths

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        """The first layer, and the first row with another mask."""
        if self.frozen:
            seen = np.setdiff1d(np.arange(len(session.layout)), state["text"])
            return state["layers"][0], int(seen[0])
        return state["layers"][0], state["first"]

    def finish(self, session: Session, state: dict) -> None:
        """Some edge had weight and lost it, or got some."""
        if not state["fired"] and not state["neutral"]:
            raise ProbeError(
                f"{self}: no attention in these layers was hidden or shown (the tokens are gone, "
                "or the model's own mask is like this); the ablation did not fire"
            )

    def _check(self) -> None:
        if self.shape not in SHAPES:
            raise ProbeError(f'{self.kind}: shape="{self.shape}"; there are {", ".join(SHAPES)}')
        for name in ("radius", "frames"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ProbeError(f"{self.kind}: {name}={value!r}; it is a whole number from 0 on")
        if self.causal not in ("keep", "replace"):
            raise ProbeError(f'{self.kind}: causal="{self.causal}"; it is "keep" or "replace"')
        if self.causal == "replace" and self.shape != "neighbour":
            raise ProbeError(f'{self.kind}: causal="replace" is for shape="neighbour"')
        if self.frozen and self.shape != "blackout":
            raise ProbeError(f'{self.kind}: frozen=True is for shape="blackout"')

    def _shape(self, at: mask_shapes.Places) -> mask_shapes.Shape:
        if self.shape == "neighbour":
            return mask_shapes.neighbour(at, self.radius, self.frames, self.causal == "replace")
        if self.shape == "frame_causal":
            return mask_shapes.frame_causal(at)
        if self.shape == "blackout":
            return mask_shapes.blackout(at)
        return mask_shapes.window(at, self.frames)

    def _rows(self, at: mask_shapes.Places) -> np.ndarray:
        """Layout positions whose rows may change."""
        rows = {"neighbour": at.row >= 0, "frame_causal": at.frame >= 0}.get(self.shape, at.chosen)
        return np.flatnonzero(rows.cpu().numpy())


def _first(shape: mask_shapes.Shape, rows: Tensor, keys: Tensor, unseen: Any) -> Tensor | None:
    """Position of the first row whose edges the shape changes; None for none.

    Args:
        shape: what is hidden and shown.
        rows, keys: positions of both.
        unseen: from rows [row, 1], keys [1, key] and a slice of rows to what is hidden before.
    """
    for start in range(0, len(rows), CHUNK):
        some = slice(start, start + CHUNK)
        hidden, shown = shape(rows[some, None], keys[None])
        before = unseen(rows[some, None], keys[None], some)
        changed = torch.zeros_like(before)
        if hidden is not None:
            changed |= hidden & ~before
        if shown is not None:
            changed |= shown & before
        found = changed.any(-1).nonzero()
        if len(found):
            return rows[some][found[0, 0]]
    return None


def _causal(rows: Tensor, keys: Tensor, some: slice) -> Tensor:
    return keys > rows


def _unseen(call: AttentionCall, numbers: Tensor) -> Any:
    return lambda rows, keys, some: call.hidden(numbers[some])
