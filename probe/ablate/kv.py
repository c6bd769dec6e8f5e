"""Cache: which cached keys tokens after the prompt read; the others are evicted or hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.kv_candidates import aligned, candidates_of
from probe.ablate.kv_plan import cached, check, plan, resolve
from probe.ablate.reduction.budget import Keep
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.parts import Budget, Score, Segment, Select
from probe.ablate.reduction.segment import Whole
from probe.ablate.reduction.select import TopK
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import Layers

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
        layers = resolve(self.layers, session.model.n_layers, self.kind)
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
        grows = bool((candidates > session.layout.last).any())
        state |= {"read": {}, "kept": {}, "seen": {}, "grows": grows}
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
        if call.layer not in state["layers"] or not self._hides(session):
            return
        gone = self._gone(state, call.layer, call.key_positions)
        rows = call.positions
        if session.step == 0:
            rows = rows[rows > state["candidates"][-1]]
        call.cut(call.index(rows), call.key_index(gone))
        state["fired"] |= bool(len(gone) and len(rows))

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
        there = np.intersect1d(state["candidates"], call.key_positions)
        values = leaf.read(session, call, there).detach().double().cpu()
        if self.history:
            total = state["total"].setdefault((judge, leaf), np.zeros((2, len(session.layout))))
            total[:, there] += [values.numpy(), np.ones(len(there))]
            values = torch.from_numpy(total[0, there] / total[1, there])
        state["read"][judge, leaf] = there, values

    def _choose(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Which of the layer's keys stay, from now on."""
        judge, horizon = call.layer, int(call.positions[-1])
        known = state["candidates"][state["candidates"] <= horizon - self.window]
        there = np.intersect1d(known, call.key_positions)
        there = np.setdiff1d(there, self._gone_before(session, state, call))
        recent = np.arange(horizon - self.window + 1, horizon + 1)
        if self.how == "hide" and self.when == "step":  # a token always reads itself
            recent = np.union1d(recent, call.positions)
        readings = {}
        for leaf in state["reads"][judge]:
            positions, values = state["read"][judge, leaf]
            readings[leaf] = aligned(positions, values, there)
        if self.refresh is not None and self._similar(state, judge, readings):
            return
        state["seen"][judge] = horizon
        if not len(there):
            state["kept"][judge] = recent
            return
        step = self.step
        if self.when == "step" and self.how == "evict" and self.keep is not None:
            step = replace(step, keep=None, keep_tokens=Keep(self.keep).of(len(known)))
        w = weights([step], candidates_of(session, call, there, readings, step))
        state["kept"][judge] = np.union1d(there[w.anchor], recent)

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
            state["kept"][judge] = None
        return alike

    def _gone_before(self, session: Session, state: dict, call: AttentionCall) -> np.ndarray:
        """Keys that another `Cache`, earlier in the list, has let go in this layer."""
        gone = call.key_positions[:0]
        for other, its in session.ablations:
            if its is state:
                break
            if isinstance(other, Cache) and call.layer in its["layers"]:
                gone = np.union1d(gone, other._gone(its, call.layer, call.key_positions))
        return gone

    def _gone(self, state: dict, layer: int, keys: np.ndarray) -> np.ndarray:
        """Keys of a layer that the last choice let go."""
        judge = state["judges"][layer]
        kept = state["kept"].get(judge)
        if kept is None:
            return keys[:0]
        judged = np.intersect1d(state["candidates"], keys[keys <= state["seen"][judge]])
        return np.setdiff1d(judged, kept)

    def evict(self, session: Session, state: dict) -> dict[int, np.ndarray] | None:
        """What is left in the cache, before the next forward."""
        if self.how == "hide" or (self.when != "step" and session.step > 1):
            return None
        left = {}
        for layer in state["layers"]:
            present = session.present[layer]
            gone = self._gone(state, layer, present)
            if len(gone):
                left[layer] = np.setdiff1d(present, gone)
                removed = state["removed"].get(layer, gone[:0])
                state["removed"][layer] = np.union1d(removed, gone)
        state["fired"] |= bool(left)
        return left

    def finish(self, session: Session, state: dict) -> None:
        """Something was removed or hidden, once there was a forward after the prompt."""
        asked = (session.step > 0 or self.when == "video") and not state["grows"]
        if asked and not state["fired"] and not session.force:
            raise ProbeError(f"{self}: every key stayed; the ablation did not fire")
        for layer, gone in state["removed"].items():
            if np.isin(gone, session.present[layer]).any():
                raise ProbeError(f"{self}: evicted keys are still in the cache of layer {layer}")
