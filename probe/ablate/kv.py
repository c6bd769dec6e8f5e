"""Cache: which cached keys tokens after the prompt read; the others are evicted or hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.kv_candidates import aligned, candidates_of
from probe.ablate.kv_plan import cached, check, plan
from probe.ablate.reduction.budget import Keep
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.parts import Budget, Score, Segment, Select
from probe.ablate.reduction.segment import Whole
from probe.ablate.reduction.select import TopK
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.cost_lengths import Lengths
    from probe.engine.session import Session


@dataclass(frozen=True)
class Cache(Ablation):
    """Fewer keys in the cache of some layers, or fewer that are seen there.

    The prompt runs as it is (with when="video": up to the end of the video). A run with an answer
    feeds it token by token, as generation does. State lives as long as the run.

    Attributes:
        layers: whose cache: numbers, "3-5", "3-" (3 and later), "all".
        of: which keys may go; "generated" are those of the answer.
        score, keep, keep_tokens, budget, segment, select: which of them stay, as in `Step`.
            Attention scores are those of the layer itself, unless they name one. keep is a
            fraction of the keys so far; features of a key are its values before rotation.
        when: "prefill" chooses once, after the prompt; "step" in every forward after it; "video"
            once, after the last of the keys: text of the prompt that follows does not read the
            others either.
        how: "evict" removes them from the cache for good; "hide" keeps them and cuts attention to
            them, which saves no memory and lets a key come back at a later step.
        at: the layer whose keys are judged, for all `layers`; None: each layer judges its own, or
            the one that the score reads. With keep=1, layers lose what a reduction took from
            layer `at`.
        window: the last tokens of the sequence that stay, whatever their score, beside those kept.
        refresh: cosine between the score's attention now and that of the last choice below which
            a hidden set is chosen anew (DyCoke); None: at every step.
        variant: of `refresh`; "paper": the last choice goes on; "code": all keys are seen where
            the attention is similar to the previous step's.
        history: read attention as its mean over the forwards so far, not of the last one.
    """

    place: ClassVar[str] = "KV cache"
    source: ClassVar[str] = "general form of DyCoke's second stage (arXiv 2411.15024)"
    always_shown: ClassVar[tuple[str, ...]] = ("layers", "score")

    layers: Layers = "all"
    of: Selection = "video"
    score: Score | None = None
    keep: float | None = None
    keep_tokens: int | None = None
    budget: Budget | None = None
    segment: Segment = Whole()
    select: Select = TopK()
    when: str = "prefill"
    how: str = "evict"
    at: int | None = None
    window: int = 0
    refresh: float | None = None
    variant: str = "paper"
    history: bool = False

    @property
    def at_decode(self) -> bool:
        """It acts on tokens after the prompt."""
        return True

    @property
    def saves_memory(self) -> bool:
        """Whether keys really leave the cache."""
        return self.how == "evict"

    @property
    def step(self) -> Step:
        """How keys are chosen."""
        names = ("segment", "score", "keep", "keep_tokens", "budget", "select")
        return Step(**{name: getattr(self, name) for name in names})

    def listens(self, event: str) -> bool:
        return super().listens(event) and (event != "evict" or self.how == "evict")

    # -- before the run --------------------------------------------------------------------

    def start(self, session: Session) -> dict | None:
        """Neutral without a clip, and where everything stays."""
        check(self)
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        try:
            candidates = self._candidates(session)
        except NoClip:
            return None
        for leaf in self.step.leaves():
            leaf.check(session)
        count = max(0, len(candidates) - self.window)
        allowed = self.step.allowance()
        everything = allowed is not None and allowed.expected([count]) == count
        follows = self.at is not None and self.keep is not None
        if everything and not follows and not session.force:
            return None
        judges, reads = plan(self, session.model.n_layers, layers)
        state = {"layers": layers, "candidates": candidates, "judges": judges, "reads": reads}
        among = np.zeros(len(session.layout), bool)
        among[candidates] = True
        grows = bool((candidates > session.layout.last).any())
        state |= {"read": {}, "among": among, "gone": {}, "grows": grows}
        return state | {"fired": False, "removed": {}, "total": {}}

    def _candidates(self, session: Session) -> np.ndarray:
        if self.of != "generated":
            return session.layout.select(self.of)
        # Tokens of an answer that is fed are what generation would have made.
        return np.arange(session.layout.last + 1, len(session.layout))

    def effect(self, lengths: Lengths) -> Lengths | None:
        """Visual keys left in each layer's cache after the prompt."""
        return cached(self, lengths)

    # -- in the run ------------------------------------------------------------------------

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Read, choose, and hide what is not to be seen in this forward."""
        quiet = replace(call, _weights={})  # weights before the cut are not those after it
        for judge, leaves in state["reads"].items():
            for leaf, layer in leaves.items():
                if layer == call.layer and self._chooses(session):
                    self._read(session, state, quiet, judge, leaf)
        if call.layer in state["judges"].values() and self._chooses(session):
            self._choose(session, state, quiet)
        gone = self._gone(state, call.layer)
        if call.layer not in state["layers"] or gone is None or not self._hides(session):
            return
        rows = np.arange(len(call.positions))
        if session.step == 0:
            rows = np.flatnonzero(call.positions > state["candidates"][-1])
        columns = np.flatnonzero(gone[call.key_positions])
        call.cut(*(torch.as_tensor(index, device=call.key.device) for index in (rows, columns)))
        state["fired"] |= bool(len(columns) and len(rows))

    def _chooses(self, session: Session) -> bool:
        if self.when != "step":
            return session.step == 0
        return session.step > 0 or self.how == "evict"

    def _hides(self, session: Session) -> bool:
        if session.step == 0:
            return self.when == "video"
        return self.how == "hide"

    def _read(
        self, session: Session, state: dict, call: AttentionCall, judge: int, leaf: Score
    ) -> None:
        there = call.key_positions[state["among"][call.key_positions]]
        if not len(there):
            state["read"][judge, leaf] = there, torch.zeros(0, dtype=torch.float64)
            return
        values = leaf.read(session, call, there).detach().double().cpu()
        if self.history:
            total = state["total"].setdefault((judge, leaf), np.zeros((2, len(session.layout))))
            total[:, there] += [values.numpy(), np.ones(len(there))]
            values = torch.from_numpy(total[0, there] / total[1, there])
        state["read"][judge, leaf] = there, values

    def _choose(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Which of the layer's keys stay, from now on."""
        judge, recent = call.layer, max(0, int(call.positions[-1]) + 1 - self.window)
        known = int((state["candidates"] < recent).sum())
        open_to = state["among"].copy()
        open_to[recent:] = False
        for table in self._gone_before(session, state, judge):
            open_to &= ~table
        there = call.key_positions[open_to[call.key_positions]]
        readings = {}
        for leaf in state["reads"][judge]:
            positions, values = state["read"][judge, leaf]
            readings[leaf] = aligned(positions, values, there)
        if self.refresh is not None and self._similar(state, judge, readings):
            return
        gone = state["among"].copy()
        gone[recent:] = False
        if self.how == "hide" and self.when == "step":  # a token always reads itself
            gone[call.positions] = False
        if len(there):
            step = self.step
            if self.when == "step" and self.how == "evict" and self.keep is not None:
                step = replace(step, keep=None, keep_tokens=Keep(self.keep).of(known))
            w = weights([step], candidates_of(session, call, there, readings, step))
            gone[there[w.anchor]] = False
        state["gone"][judge] = gone

    def _similar(self, state: dict, judge: int, readings: dict[Score, Tensor]) -> bool:
        """Whether attention is as it was, so that nothing is chosen anew."""
        now = torch.cat(list(readings.values()))
        before = state["total"].get(judge)
        assert self.refresh is not None
        alike = False
        if before is not None and len(before) == len(now):
            alike = float(torch.cosine_similarity(now, before, dim=0)) >= self.refresh
        if not alike or self.variant == "code":
            state["total"][judge] = now
        if alike and self.variant == "code":
            state["gone"][judge] = None
        return alike

    def _gone_before(self, session: Session, state: dict, layer: int) -> list[np.ndarray]:
        """What every `Cache` earlier in the list has let go in a layer."""
        found = []
        for other, its in session.ablations:
            if its is state:
                break
            if isinstance(other, Cache) and layer in its["layers"]:
                found.append(other._gone(its, layer))
        return [table for table in found if table is not None]

    def _gone(self, state: dict, layer: int) -> np.ndarray | None:
        """[position]: True where the last choice let a layer's key go; None for nothing."""
        return state["gone"].get(state["judges"].get(layer))

    def evict(self, session: Session, state: dict) -> dict[int, np.ndarray] | None:
        """What is left in the cache, before the next forward."""
        if self.how == "hide" or (self.when != "step" and session.step > 1):
            return None
        left = {}
        for layer in state["layers"]:
            present = session.present[layer]
            gone = self._gone(state, layer)
            if gone is not None and gone[present].any():
                left[layer] = present[~gone[present]]
                state["removed"][layer] = gone | state["removed"].get(layer, False)
        state["fired"] |= bool(left)
        return left

    def finish(self, session: Session, state: dict) -> None:
        """Something was removed or hidden, once there was a forward after the prompt."""
        asked = (session.step > 0 or self.when == "video") and not state["grows"]
        if asked and not state["fired"] and not session.force:
            raise ProbeError(f"{self}: every key stayed; the ablation did not fire")
        for layer, gone in state["removed"].items():
            if gone[session.present[layer]].any():
                raise ProbeError(f"{self}: evicted keys are still in the cache of layer {layer}")
