"""What a reduction of tokens is: its fields, its steps, and what can be said of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

from probe.ablate.base import Ablation
from probe.ablate.encoder_readings import reads_encoder
from probe.ablate.reduction.build import Step
from probe.ablate.reduction.bypass import Bypass
from probe.ablate.reduction.parts import Budget, Pooling, Rest, Score, Segment, Select, Split
from probe.ablate.reduction.rest import Drop
from probe.ablate.reduction.segment import Whole
from probe.ablate.reduction.select import TopK
from probe.ablate.renumber import POLICIES
from probe.ablate.scores import LastQuery
from probe.ablate.sites import Layer, Mid, Site, Vision, VisionOut
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.engine.cost_lengths import Lengths


@dataclass(frozen=True)
class Plan(Ablation):
    """The fields of `Reduce`, and all of it that needs no run."""

    place: ClassVar[str] = "hidden states"
    source: ClassVar[str] = "a sparse matrix over tokens; general form of FastV (arXiv 2403.06764)"
    always_shown: ClassVar[tuple[str, ...]] = ("at", "score")

    at: Site = Layer(2)
    score: Score | None = LastQuery()
    keep: float | None = None
    keep_tokens: int | None = None
    budget: Budget | None = None
    select: Select = TopK()
    rest: Rest = Drop()
    segment: Segment = Whole()
    split: Split | None = None
    pieces: tuple[Step, ...] = ()
    pool: Pooling | None = None
    then: tuple[Step, ...] = ()
    of: Selection = "video"
    position: str = "keep"
    cache: str = "forward"
    order: str = "raster"
    match: tuple[Step, ...] = ()

    @property
    def acts(self) -> str:
        if isinstance(self.at, Vision | VisionOut):
            return "vision encoder"
        before = isinstance(self.at, Layer) and self.at.k == 0
        return "tokens before the language model" if before else self.place

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in order."""
        names = ("segment", "split", "pieces", "score", "keep", "keep_tokens", "budget")
        names = (*names, "select", "rest", "pool")
        return (Step(**{name: getattr(self, name) for name in names}), *self.then)

    @property
    def leaves(self) -> tuple[Score, ...]:
        """Every score in it."""
        steps = (*self.steps, *self.match)
        return tuple(dict.fromkeys(leaf for step in steps for leaf in step.leaves()))

    @property
    def proxies(self) -> tuple[str, ...]:
        """What stands for what a model does not have, such as a CLS token."""
        return tuple(f"{leaf}: {leaf.proxy}" for leaf in self.leaves if leaf.proxy)

    def listens(self, event: str) -> bool:
        reads = {what for leaf in self.leaves for what in leaf.reads}
        if event == "attention":
            return "attention" in reads
        if event == "vision_tokens":
            return isinstance(self.at, Vision | VisionOut)
        if event == "middle":
            return isinstance(self.at, Mid)
        if event == "vision_attention":
            return reads_encoder(self.leaves)
        if event == "bypass":
            return isinstance(self.rest, Bypass)
        if event == "reduce":
            return True
        return event == "evict" and self.cache == "retroactive"

    def check(self) -> None:
        """Refuse arguments that are wrong whatever the model.

        Raises:
            ProbeError: in one line.
        """
        if not isinstance(self.at, Site) or not isinstance(self.score, Score | None):
            raise ProbeError(f"{self.kind}: write at=layer(2) and a score such as LastQuery()")
        if isinstance(self.at, Vision | VisionOut) and self.of != "video":
            raise ProbeError(
                f'{self.kind}: of="{self.of}" names tokens of the prompt, and {self.at} is before '
                "it; use at=tokens()"
            )
        if self.position not in POLICIES:
            raise ProbeError(f"{self.kind}: position={self.position!r} is none of {POLICIES}")
        if self.cache not in ("forward", "retroactive"):
            raise ProbeError(f'{self.kind}: cache={self.cache!r}; write "forward", "retroactive"')
        if self.order not in ("raster", "published"):
            raise ProbeError(f'{self.kind}: order={self.order!r}; write "raster" or "published"')
        if self.order == "published" and self.position != "reindex":
            raise ProbeError(
                f'{self.kind}: order="published" moves tokens; it goes with position="reindex"'
            )
        sized = (self.keep, self.keep_tokens, self.budget, self.pool, self.split)
        plain = type(self.select) is TopK and type(self.rest) is Drop
        if all(v is None for v in sized) and plain and not (self.then or self.match):
            raise ProbeError(f"{self.kind}: give keep= (a fraction) or keep_tokens= (a number)")
        for step in self.steps:
            step.allowance()

    def sized(self, candidates: int) -> int | None:
        """How many are to stay of one pool of candidates; None where that is not known."""
        step, budget = self.steps[0], self.steps[0].allowance()
        whole = type(step.segment) is Whole and step.split is None and step.pool is None
        if not whole or budget is None or self.then or self.match:
            return None
        if self.keep_tokens is not None and self.keep_tokens > candidates:
            raise ProbeError(
                f"{self.kind}: keep_tokens={self.keep_tokens}; there are {candidates} candidates"
            )
        return budget.expected([candidates])

    def effect(self, lengths: Lengths) -> Lengths | None:
        if self.match:  # a control: as many as what it is a control of
            first = {f.name: getattr(self.match[0], f.name) for f in fields(Step)}
            return replace(self, **first, then=self.match[1:], match=()).effect(lengths)
        if not isinstance(self.at, Layer | Mid):
            return None
        k = self.at.k
        sizes = self.segment.sizes(lengths.frames, lengths.entering(k))
        budget = self.steps[0].allowance()
        unknown = self.split or self.pool or self.then or not self.select.exact
        if sizes is None or budget is None or unknown:
            return None
        kept = budget.expected(sizes)
        if kept is None:
            return None
        if isinstance(self.rest, Bypass):
            return lengths.only(k, kept)
        if isinstance(self.at, Mid):
            return lengths.middle(k, kept)
        shorter = lengths.after(k, kept)
        return shorter.retroactive(kept) if self.cache == "retroactive" else shorter
