"""Reduce: fewer visual tokens from a layer on, in prefill and decode; the sequence is shorter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from probe.ablate import vision_sites
from probe.ablate.encoder_readings import Readings
from probe.ablate.plan import Plan
from probe.ablate.recipe import recipe
from probe.ablate.reduction.build import build, weights
from probe.ablate.reduction.bypass import Bypass
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.match import matched
from probe.ablate.reduction.record import Reduction
from probe.ablate.reduction.weights import Weights
from probe.ablate.renumber import renumber
from probe.ablate.scores import LastQuery
from probe.ablate.sites import Layer, Mid
from probe.errors import ProbeError
from probe.models.selection import NoClip
from probe.spec import resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall


@dataclass(frozen=True)
class Reduce(Plan):
    """Fewer tokens at a site: y = W x with a sparse W, an anchor and a mass per row.

    The choice is made once, in the prefill. Kept tokens stay in order. The cache of layers that
    work on fewer tokens is shorter, and decoding needs nothing more.

    Attributes:
        at: `layer(k)`, `tokens()`, `mid(k)`, `vision(l)`, `vision_out()`.
        score, keep, keep_tokens, budget, select, rest, segment, split, pieces, pool: of the first
            step; see `Step`.
        then: further steps, each on what the one before left.
        of: which tokens are candidates: "video" by default, or any selection.
        position: "keep" the anchor's position ids; "reindex" so that they are contiguous again;
            the "mean" (rounded down) of the tokens merged; the "first" of them.
        cache: "forward": layers before the site keep the keys of dropped tokens; "retroactive":
            they lose them after the prompt, so that decoding does not read them.
        match: in controls: the steps whose number of outputs this has to have, exactly.
        order: "raster" by anchor, or "published": as the method puts them (with "reindex").
    """

    def start(self, session: Session) -> dict | None:
        self.check()
        try:
            candidates = session.layout.select(self.of)
        except NoClip:
            return None
        k, where = 0, None
        if isinstance(self.at, Layer):
            k = resolve_layers(self.at.k, session.model.n_layers, self.kind)[0]
        elif isinstance(self.at, Mid):  # of the last layer there is nothing left to shorten
            k = resolve_layers(self.at.k, session.model.n_layers - 1, self.kind)[0] + 1
        else:
            where = vision_sites.place(session, self.at, self.kind)
        last = {session.layout.last, *session.layout.readout.tolist()}
        if last & set(candidates.tolist()):
            raise ProbeError(
                f'{self.kind}: of="{self.of}" has positions that are read; drop others'
            )
        if self.position == "reindex" and k and session.flow.axes == 3:
            raise ProbeError(
                f'{self.kind}: position="reindex" in layer {k} has no meaning for rotary positions '
                'with three axes; use position="keep", or at=tokens()'
            )
        for leaf in self.leaves:
            if "attention" in leaf.reads:
                leaf.attention_layer(k)
        sized = self.sized(len(candidates))
        if sized == len(candidates) and self.select.exact and not session.force:
            return None
        return {
            "k": k,
            "where": where,
            "candidates": candidates,
            "readings": Readings(session, self.leaves, candidates, k),
            "inert": sized == len(candidates) or any(step.inert for step in self.steps),
            "done": None,
        }

    # -- in the run ------------------------------------------------------------------------

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer < state["k"]:
            state["readings"].attention(session, call)

    def vision_attention(self, session: Session, state: dict, call: VisionCall) -> None:
        state["readings"].vision_attention(session, call)

    def vision_tokens(
        self, session: Session, state: dict, place: int | str, x: Tensor
    ) -> Weights | None:
        if place != state["where"]:
            return None
        return vision_sites.in_tower(session, state, self.kind, x, self._built)

    def reduce(self, session: Session, state: dict, layer: int, x: Tensor) -> Weights | None:
        if layer <= state["k"]:
            state["readings"].entering(session, layer, x)
        if layer != state["k"] or isinstance(self.rest, Bypass) or isinstance(self.at, Mid):
            return None
        rows = session.positions[layer]
        if state["where"] is not None:
            full, state["done"] = vision_sites.in_prompt(state, str(self), rows)
        else:
            full = self._at_layer(session, state, layer, x, rows)
        return self._done(session, state, layer, rows, full)

    def middle(self, session: Session, state: dict, layer: int, x: Tensor) -> Weights | None:
        if layer != state["k"] - 1 or not isinstance(self.at, Mid):
            return None
        rows = session.positions[layer]
        full = self._at_layer(session, state, layer + 1, x, rows)
        return self._done(session, state, layer + 1, rows, full)

    def _done(
        self, session: Session, state: dict, layer: int, rows: np.ndarray, full: Weights
    ) -> Weights | None:
        """Recorded, and with the position ids that the policy gives from `layer` on."""
        if state["done"] is not None:
            session.reductions.append(state["done"])
        if full.is_identity:
            return None
        if self.position != "keep":
            renumber(session, layer, self.position, rows, full)
        return full

    def _at_layer(
        self, session: Session, state: dict, layer: int, x: Tensor, rows: np.ndarray
    ) -> Weights:
        """Weights over all rows that enter the layer."""
        inside = np.flatnonzero(np.isin(rows, state["candidates"]))
        if not len(inside):
            return Weights.selection(np.arange(len(rows)), len(rows))
        w, segment, piece = self._built(self._candidates(session, state, x, rows, inside))
        seen = rows[inside][w.anchor]
        state["done"] = Reduction(str(self), layer, w, rows[inside], seen, self.proxies)
        known, there = session.flow.rows, rows[inside][np.sort(w.anchor)]
        known.segment[there], known.piece[there], known.mass[there] = segment, piece, w.mass
        if w.is_identity:
            return Weights.selection(np.arange(len(rows)), len(rows))
        # In another order than the sequence's, outputs take the places that are left in turn.
        w = replace(w, anchor=np.sort(w.anchor))
        others = np.setdiff1d(np.arange(len(rows)), inside)
        full = Weights.stack([w.within(inside, len(rows)), Weights.selection(others, len(rows))])
        return full.raster()

    def _built(self, c: Candidates) -> tuple[Weights, np.ndarray, np.ndarray]:
        """The weights, and the segment and piece of each output."""
        w, segment, piece = build(self.steps, c, self.order)
        if not self.match:
            return w, segment, piece
        w = matched(w, len(weights(self.match, c)), c, self.steps)
        return w, c.segment[w.anchor], c.piece[w.anchor]

    def _candidates(
        self, session: Session, state: dict, x: Tensor, rows: np.ndarray, inside: np.ndarray
    ) -> Candidates:
        layout, there = session.layout, rows[inside]
        group = layout.group[there]
        known = np.maximum.accumulate(np.where(group >= 0, np.arange(len(group)), -1))
        present = session.present[: state["k"]]
        return Candidates(
            x=x[inside],
            frame=np.where(known >= 0, group[np.maximum(known, 0)], 0),
            row=layout.row[there],
            col=layout.col[there],
            position=there,
            mass=session.flow.rows.mass[there],
            segment=session.flow.rows.segment[there],
            piece=session.flow.rows.piece[there],
            total=len(state["candidates"]),
            spent=tuple(int(np.isin(p, state["candidates"]).sum()) for p in present),
            readings=state["readings"].values(there),
        )

    def bypass(self, session: Session, state: dict, layer: int, x: Tensor) -> np.ndarray | None:
        if layer != state["k"] or not isinstance(self.rest, Bypass):
            return None
        rows = session.positions[layer]
        inside = np.flatnonzero(np.isin(rows, state["candidates"]))
        if not len(inside):
            return None
        w, _, _ = self._built(self._candidates(session, state, x, rows, inside))
        state["done"] = Reduction(str(self), layer, w, rows[inside], rows[inside][w.anchor])
        session.reductions.append(state["done"])
        gone = np.setdiff1d(inside, inside[w.anchor])
        return np.setdiff1d(np.arange(len(rows)), gone) if len(gone) else None

    def evict(self, session: Session, state: dict) -> dict[int, np.ndarray] | None:
        if self.cache != "retroactive" or state["done"] is None:
            return None
        gone = state["done"].dropped
        return {n: np.setdiff1d(session.present[n], gone) for n in range(state["k"])}

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        site = state["k"]
        return min(
            [site - isinstance(self.at, Mid), *(o.first_layer(site) for o in self.leaves)]
        ), 0

    def finish(self, session: Session, state: dict) -> None:
        done = state["done"]
        idle = done is None or (done.weights.is_identity and not state["inert"])
        if idle and not session.force:
            raise ProbeError(f"{self}: it dropped and merged nothing; the ablation did not fire")
        layers = range(state["k"], session.model.n_layers)
        layers = [state["k"]] if isinstance(self.rest, Bypass) else layers
        for number in layers:
            if done is not None and np.isin(done.dropped, session.present[number]).any():
                raise ProbeError(f"{self}: dropped tokens are still in layer {number}")


@recipe(paper="FastV (Chen et al. 2024, arXiv 2403.06764)")
def fastv(k: int = 2, keep: float = 0.5) -> Reduce:
    """FastV (Chen et al. 2024): from layer k on keep the part of the visual tokens that the last
    prompt position attended to most in layer k - 1, mean over heads; positions are kept.
    """
    return Reduce(at=Layer(k), score=LastQuery(), keep=keep)
