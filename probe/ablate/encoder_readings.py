"""Readings: what the scores of a reduction read while a run goes on, before its site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.ablate.encoder_places import to_tokens
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_encoder import EncoderReading, Keys, blocks_to_tokens
from probe.ablate.scores_pivots import TextPivots
from probe.ablate.scores_text import TextQuery, TextSimilarity
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall


def reads_encoder(leaves: Iterable[Score]) -> bool:
    """Whether any of these scores needs the vision tower to be read."""
    return any("encoder" in leaf.reads for leaf in leaves)


class Readings:
    """Listens to a run for the scores of one reduction.

    Attributes:
        session: the run.
        leaves: the scores; those that read nothing are left alone.
        candidates: layout positions that the reduction chooses among, sorted.
        site: number of the decoder layer whose input it reduces.
        layers: by score, the decoder layer whose attention it reads.
    """

    def __init__(
        self,
        session: Session,
        leaves: Iterable[Score],
        candidates: Int[np.ndarray, " candidate"] | None = None,
        site: int | None = None,
        ahead: Mapping[Any, np.ndarray] | None = None,
    ) -> None:
        """
        Args:
            session: the run, before it starts.
            leaves: as `Step.leaves()` gives them.
            candidates: all visual tokens by default.
            site: None where attention is read by somebody else.
            ahead: values [position] of scores that have had their own run; others have it now.

        Raises:
            ProbeError: a score that this model, prompt or site cannot have.
        """
        visual = np.flatnonzero(session.layout.visual >= 0)
        self.session, self.site = session, site
        self.leaves = tuple(dict.fromkeys(leaves))
        self.candidates = visual if candidates is None else candidates
        self.layers: dict[Score, int] = {}
        for leaf in self.leaves:
            leaf.check(session)
            if site is not None and "attention" in leaf.reads:
                self.layers[leaf] = leaf.attention_layer(site)
        self._ahead: dict[Any, np.ndarray] = dict(ahead or {})
        for leaf in self.leaves:
            if "ahead" in leaf.reads and leaf not in self._ahead:
                own: Any = leaf
                self._ahead[leaf] = own.ahead(session.model, session.example)
        self._read: dict[Score, tuple[np.ndarray, Tensor]] = {}
        self._patches: dict[EncoderReading, list[np.ndarray | None]] = {}
        self._raters: dict[Score, TextQuery] = {}
        self._pivots: dict[Score, np.ndarray] = {}
        self._entered: Tensor | None = None
        for leaf in self.leaves:
            if isinstance(leaf, EncoderReading):
                self._listen(leaf)
        if sum(isinstance(leaf, Keys) for leaf in self.leaves) > 1:
            raise ProbeError("keys: a reduction compares tokens by the keys of one layer; name one")

    def _listen(self, leaf: EncoderReading) -> None:
        if self.session.vision is None:
            raise ProbeError(f"{leaf.kind}: this run does not listen to the vision tower")
        self.session.vision.wanted |= {leaf.wants} - {""}
        self._patches[leaf] = []

    # -- events ----------------------------------------------------------------------------

    def vision_attention(self, session: Session, call: VisionCall) -> None:
        """One layer of the tower, or its pooling head."""
        vision = session.vision
        assert vision is not None
        for leaf, kept in self._patches.items():
            if call.layer != leaf.number(vision.tower):
                continue
            values = leaf.patches(call)
            if values is None:
                continue
            kept += [None] * (len(vision.forwards) - len(kept))
            store = kept[-1]
            if store is None:
                shape = (len(vision.tokens), *values.shape[2:])
                store = kept[-1] = np.full(shape, np.nan, np.float32)
            blocks_to_tokens(values, call.tokens, store)

    def vision_residual(self, session: Session, layer: int, x: Tensor) -> None:
        """The tower's residual stream; no score reads it."""

    def vision_features(self, session: Session, place: str, x: Tensor) -> None:
        """Features around the projector; no score reads them."""

    def entering(self, session: Session, layer: int, x: Float[Tensor, "row channel"]) -> None:
        """The stream enters a decoder layer up to the site, in the prefill."""
        if layer == 0:
            for leaf in self.leaves:
                if isinstance(leaf, TextSimilarity):
                    self._keep(leaf, self.candidates, leaf.embedded(session, x, self.candidates))
                if isinstance(leaf, TextQuery):
                    self._raters[leaf] = leaf.resolved(session, x, self.candidates)
        if layer == self.site:
            self._entered = x
            own = [leaf for leaf, number in self.layers.items() if number == layer]
            call = session.flow.peek(layer) if own else None
            for leaf in own:
                assert call is not None
                self._take(leaf, call)

    def attention(self, session: Session, call: AttentionCall) -> None:
        """One decoder layer of the prefill has run."""
        for leaf, layer in self.layers.items():
            if layer == call.layer and layer != self.site:
                self._take(leaf, call)

    def _take(self, leaf: Score, call: AttentionCall) -> None:
        there = np.intersect1d(self.candidates, call.key_positions)
        if isinstance(leaf, TextPivots):
            self._pivots[leaf] = leaf.pivots(self.session, call)
        else:
            self._keep(leaf, there, self._raters.get(leaf, leaf).read(self.session, call, there))

    def _keep(self, leaf: Score, positions: np.ndarray, values: Tensor) -> None:
        self._read[leaf] = positions, values.detach().float().cpu()

    # -- at the site -----------------------------------------------------------------------

    def values(self, positions: Int[np.ndarray, " position"]) -> dict[Any, Tensor]:
        """What was read, float32 on the CPU: by score, a value or a row of values for each of
        the positions (sorted); keys of the tower also as "encoder_key", cosines with text pivots
        as "text_pivots".

        Raises:
            ProbeError: something was not read on the way.
        """
        found: dict[Any, Tensor] = {}
        for leaf in self.leaves:
            if isinstance(leaf, EncoderReading):
                found[leaf] = self._tokens(leaf, positions)
                if isinstance(leaf, Keys):
                    found["encoder_key"] = found[leaf]
            elif leaf in self._pivots:
                assert self._entered is not None
                pivots = self._pivots[leaf]
                cosine = TextPivots.cosines(
                    self.session, self._entered, positions, pivots, self.site or 0
                )
                found["text_pivots"] = cosine.float().cpu()
            elif leaf in self._ahead:
                found[leaf] = torch.as_tensor(self._ahead[leaf][positions])
            elif leaf in self._read:
                there, values = self._read[leaf]
                found[leaf] = values[torch.as_tensor(np.searchsorted(there, positions))]
            elif leaf.reads and (self.site is not None or "attention" not in leaf.reads):
                raise ProbeError(f"{leaf}: it was not read before the site of the reduction")
        return found

    def patches(self, ids: Int[np.ndarray, " token"]) -> dict[Any, Tensor]:
        """Inside the tower: what was read so far in the forward that is on, for its tokens.

        Args:
            ids: numbers among `session.vision.tokens`.

        Raises:
            ProbeError: a score that is known later only.
        """
        found: dict[Any, Tensor] = {}
        for leaf in self.leaves:
            kept = self._patches[leaf] if isinstance(leaf, EncoderReading) else []
            vision = self.session.vision
            store = kept[-1] if vision is not None and len(kept) == len(vision.forwards) else None
            if store is not None:
                found[leaf] = torch.from_numpy(store[ids])
                if isinstance(leaf, Keys):
                    found["encoder_key"] = found[leaf]
            elif leaf.reads:
                raise ProbeError(f"{leaf}: it is known only after this place in the vision tower")
        return found

    def _tokens(self, leaf: EncoderReading, positions: np.ndarray) -> Tensor:
        vision, kept = self.session.vision, self._patches[leaf]
        assert vision is not None
        parts = [part for part in kept if part is not None]
        if not parts or len(parts) < len(vision.forwards):
            raise ProbeError(
                f"{leaf}: the vision tower of {self.session.model.name} did not run what it reads"
            )
        layout = self.session.layout
        return to_tokens(parts, vision.forwards, vision.labels, layout, positions, leaf.kind)
