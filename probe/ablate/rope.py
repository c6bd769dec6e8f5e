"""Rope: rotary positions of the whole sequence made anew, in front of the fused attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate import rope_ids
from probe.ablate.base import Ablation
from probe.engine import rotary
from probe.engine.rotary import Tables
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.session import Session


@dataclass(frozen=True)
class Rope(Ablation):
    """Other rotary positions for every token; what is generated goes on at the same pace.

    The steps are taken in the order of the arguments; neutral in a prompt without clip and image.

    Attributes:
        reindex: one up for every token, on all axes (neutral where positions have one axis).
        compress: visual tokens take 1 / compress of their positions (V2PE).
        constant: "time", "row" or "col": this axis has one id in each run of the tokens `of`;
            "all" for every axis.
        of: the tokens that `constant` is for; "all" takes the axis out of the whole sequence.
        time: this times a time index is added on every axis: tokens of a frame share one, each
            text token has its own (dual rotary of TC-LLaVA: rotations add up).
        offset: added behind the last visual token.
        ntk: the rotary base is ntk^(d / (d - 2)) times larger (d rotated channels); 4 for four
            times the trained length.
        layers: which layers.
    """

    place: ClassVar[str] = "rotary positions"
    source: ClassVar[str] = "TC-LLaVA (arXiv 2409.03206), V2PE (arXiv 2412.09616), INTP"

    reindex: bool = False
    compress: float = 1.0
    constant: str | None = None
    of: Selection = "all"
    time: float = 0.0
    offset: float = 0.0
    ntk: float = 1.0
    layers: Layers = "all"

    @property
    def by_tables(self) -> bool:
        """Made as tables for single layers or other frequencies; else ids say everything."""
        return self.ntk != 1 or self.layers != "all"

    def contradicts(self, other: Ablation) -> str | None:
        """Two that both replace tables, or that count anew, would undo one another."""
        if not isinstance(other, Rope):
            return None
        if (self.by_tables and other.by_tables) or self.reindex:
            return "the second would undo the first; write them as one Rope"
        return None

    def start(self, session: Session) -> dict[str, Any] | None:
        """Neutral where every position keeps its id and the base its value."""
        for name in ("compress", "ntk"):
            if not 0 < getattr(self, name) < math.inf:
                raise ProbeError(f"{self.kind}: {name}={getattr(self, name)}; it is above 0")
        for name in ("time", "offset"):
            if not math.isfinite(getattr(self, name)):
                raise ProbeError(f"{self.kind}: {name}={getattr(self, name)} is not finite")
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        axis = None if self.constant == "all" else self.constant
        state: dict[str, Any] = {
            "layers": layers,
            "axis": rope_ids.axis_number(session.model, axis, self.kind),
            "made": {},
        }
        if not session.layout.visuals and not session.force:
            return None
        if self.constant is not None:
            chosen = session.layout.select(self.of)
            state["chosen"] = np.isin(np.arange(len(session.layout)), chosen)
        own = session.model.position_ids(session.example, np.arange(len(session.layout)))
        moved = (self._new(session, state, own) - own).flatten(0, -2)
        state["moved"] = (moved != 0).any(0).cpu().numpy()
        # One shift of everything is no change: scores depend on differences.
        state["alone"] = bool((moved == moved[:, :1]).all()) and self.ntk == 1
        return None if state["alone"] and not session.force else state

    def ids(self, session: Session, state: dict, rows: np.ndarray, ids: Tensor) -> Tensor | None:
        """New ids, from those that ablations before this one have left."""
        if self.by_tables:
            return None
        if "ids" not in state:
            every = np.arange(len(session.layout))
            before = session.model.position_ids(session.example, every)
            for other, others in session.ablations:
                if others is state:
                    break
                changed = other.ids(session, others, every, before)
                before = before if changed is None else changed
            state["ids"] = self._new(session, state, before)
        return state["ids"][..., torch.as_tensor(rows, device=ids.device)]

    def tables(self, session: Session, state: dict, layer: int, tables: Tables) -> Tables | None:
        """Tables of new ids or frequencies; and proof that those of new ids came out of the
        model.
        """
        if layer not in state["layers"]:
            return None
        rows = torch.as_tensor(session.flow.rows.first)
        if self.by_tables:
            made = self._tables(session, state, layer, tables, rows)
            state["fired"] = state.get("fired") or not torch.equal(made[0], tables[0])
            return made
        if "fired" not in state:
            ids = session.flow.ids(layer)
            ids = ids[..., rows.to(ids.device)]
            made = rotary.tables(session.model, tables[0], ids, layer)
            state["fired"] = all(
                torch.allclose(one, other, rtol=0, atol=1e-4)
                for one, other in zip(made, tables, strict=True)
            )
        return None

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        """The first layer, and the first token whose id is another one."""
        moved = np.flatnonzero(state["moved"])
        return state["layers"][0], int(moved[0]) if len(moved) and self.ntk == 1 else 0

    def finish(self, session: Session, state: dict) -> None:
        """The rotary tables were made of the new positions."""
        if not state.get("fired") and not state["alone"]:
            raise ProbeError(
                f"{self}: the rotary tables of layer {state['layers'][0]} are not those of the new "
                "positions; the ablation did not fire"
            )

    def _new(self, session: Session, state: dict, ids: Tensor) -> Tensor:
        """New ids [axis.., 1, position] of the whole layout."""
        layout = session.layout
        now = ids.flatten(0, -2).cpu().double().numpy()
        if self.reindex:
            now = rope_ids.contiguous(now)
        if self.compress != 1:
            now = rope_ids.compressed(now, layout, self.compress)
        if self.constant is not None:
            now = rope_ids.constant(now, state["chosen"], state["axis"])
        if self.time != 0:
            now = now + self.time * rope_ids.time_index(layout)
        if self.offset != 0 and layout.visuals:
            seen = np.flatnonzero(rope_ids.frame_of(layout) >= 0)
            now = now + self.offset * (np.arange(len(layout)) > seen[-1])
        new = torch.as_tensor(now, device=ids.device).view(ids.shape)
        return new.to(ids.dtype if bool((new == new.round()).all()) else torch.float32)

    def _tables(
        self, session: Session, state: dict, layer: int, like: Tables, rows: Tensor
    ) -> Tables:
        """Tables of this forward's rows; made once for all layers with the same ids and kind."""
        module, more = rotary.rotary_module(session.model, layer)
        numbers = session.flow.rows.numbers[layer]
        key = (session.step, id(module), *more.values(), id(numbers), like[0].device)
        if key not in state["made"]:
            every = self._new(session, state, session.flow.ids(layer))
            ids = every[..., rows.to(every.device)]
            state["made"] = {k: v for k, v in state["made"].items() if k[0] == session.step} | {
                key: (rotary.tables(session.model, like[0], ids, layer, self.ntk), numbers)
            }
        return state["made"][key][0]
