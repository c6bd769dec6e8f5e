"""What the components of a reduction are: segment, split, score, budget, select, rest, pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.weights import Weights
from probe.spec import Spec

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

Index = np.ndarray  # numbers of candidates, int64


class Chosen(NamedTuple):
    """Centres of a group, and which of them the unselected tokens may be merged into."""

    centres: Index
    targets: Index


@dataclass(frozen=True)
class Part(Spec):
    """Base of all components."""

    @property
    def inert(self) -> bool:
        """True where its parameters are neutral, so that nothing it does can change a token: a
        threshold that no cosine reaches, a pool of one token.
        """
        return False

    def leaves(self) -> tuple[Score, ...]:
        """The scores it reads."""
        return ()


@dataclass(frozen=True)
class Segment(Part):
    """A partition of the candidates; selection happens inside a group."""

    def sizes(self, frames: tuple[int, ...] | None, count: int) -> list[int] | None:
        """Sizes of the groups, where they do not depend on data; else None.

        Args:
            frames: tokens of each frame, where that is known.
            count: of all tokens.
        """
        return None

    def groups(self, c: Candidates) -> list[Index]:
        """Groups of candidates, each sorted; together every candidate once."""
        raise NotImplementedError(f"{self.kind} has no groups()")


@dataclass(frozen=True)
class Split(Part):
    """Two or more pieces of a group, each with its own treatment."""

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        """Pieces of the group, each sorted; together every token of it once. May be empty."""
        raise NotImplementedError(f"{self.kind} has no parts()")


@dataclass(frozen=True)
class Score(Part):
    """One number per candidate; higher means keep. Ties go to the earlier token.

    Attributes:
        reads: what it needs beside the features at the site: "attention" (of a decoder layer at
            or before the site), "encoder" (the vision tower), "embedding" (the merged embeddings),
            "ahead" (a run of its own before this one).
        proxy: what it stands for where a model does not have that; "" where it is itself.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    proxy: ClassVar[str] = ""

    def score(self, c: Candidates) -> Float[Tensor, " token"]:
        """From the candidates, with `c.readings[self]` where it reads."""
        raise NotImplementedError(f"{self.kind} has no score()")

    def leaves(self) -> tuple[Score, ...]:
        """The scores it is made of; itself."""
        return (self,)

    def attention_layer(self, site: int) -> int:
        """With "attention": the decoder layer it reads, for a reduction before layer `site`."""
        return site - 1

    def first_layer(self, site: int) -> int:
        """The first decoder layer that has to be run for it, for a reduction before `site`."""
        layer = self.attention_layer(site) if "attention" in self.reads else site
        return 0 if "embedding" in self.reads else layer

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        """With "attention": values [position] or [position, ...] of these keys, from the call."""
        raise NotImplementedError(f"{self.kind} has no read()")

    def check(self, session: Session) -> None:
        """Refuse, before anything runs, what this model or prompt does not have."""

    def __add__(self, other: Score) -> Score:
        return combined("sum", self, other)

    def __mul__(self, other: Score | float) -> Score:
        return combined("product", self, other)

    def __rmul__(self, other: float) -> Score:
        return combined("product", self, other)

    def __neg__(self) -> Score:
        return combined("product", self, -1.0)

    def __sub__(self, other: Score) -> Score:
        return combined("sum", self, -other)

    def per(self, how: str = "sum") -> Score:
        """Normalised inside each frame; see `Normalised`."""
        from probe.ablate.reduction.arithmetic import Normalised

        return Normalised(self, how)

    def frame(self, how: str = "mean") -> Score:
        """One value a frame; see `FrameScore`."""
        from probe.ablate.reduction.arithmetic import FrameScore

        return FrameScore(self, how)


def combined(how: str, a: Score, b: Score | float) -> Score:
    """Arithmetic on scores."""
    from probe.ablate.reduction.arithmetic import Scaled, Sum, Times

    if isinstance(b, Score):
        return Sum((a, b)) if how == "sum" else Times((a, b))
    return Scaled(a, b)


@dataclass(frozen=True)
class Budget(Part):
    """How many tokens each group keeps."""

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        """A number per group, from 0 to its size.

        Args:
            c: the candidates.
            groups: of the segmentation.
            score: [token].
        """
        raise NotImplementedError(f"{self.kind} has no counts()")

    def expected(self, sizes: list[int]) -> int | None:
        """Tokens kept of groups of these sizes, where it does not depend on data; else None."""
        return None


@dataclass(frozen=True)
class Select(Part):
    """Which tokens of a group are its centres."""

    @property
    def exact(self) -> bool:
        """Whether it chooses exactly as many as the budget says."""
        return False

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        """`count` centres among the group (numbers of candidates), in the order of the method."""
        raise NotImplementedError(f"{self.kind} has no choose()")

    def then(self, other: Select, share: float | int) -> Select:
        """This for `share` of the count (a fraction, or a number), `other` among what is left."""
        from probe.ablate.reduction.select import Then

        return Then(self, other, share)

    def __or__(self, other: Select) -> Select:
        from probe.ablate.reduction.select import Union

        return Union(self, other)


@dataclass(frozen=True)
class Exactly(Select):
    """Base of selections that choose exactly as many as the budget says."""

    @property
    def exact(self) -> bool:
        return True


@dataclass(frozen=True)
class Rest(Part):
    """What becomes of the tokens that are no centres."""

    def rows(
        self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray
    ) -> list[tuple[int, Any, Any, float]]:
        """(anchor, cols, values, mass) of each output row, in the order of the centres; numbers
        are those of `c`.
        """
        raise NotImplementedError(f"{self.kind} has no rows()")


@dataclass(frozen=True)
class Pooling(Part):
    """Weights that do not depend on scores: pooling of all tokens of a group."""

    def weights(self, c: Candidates) -> Weights:
        """Of the candidates, which are one group."""
        raise NotImplementedError(f"{self.kind} has no weights()")
