"""Components for choosing among cached keys: recent queries, raw queries, buckets, pages, pairs.

In a `Cache` the features of a candidate are its keys before rotation, all key heads side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Index, Select
from probe.ablate.scores_attention import AttentionScore, query_rows, received
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class Recent(AttentionScore):
    """Attention from the last visual queries, mean over heads and queries (LiveVLM).

    Attributes:
        layer: as in `LastQuery`.
        queries: how many.
    """

    queries: int = 16

    def check(self, session: Session) -> None:
        """Refuse a number of queries that is none."""
        if not isinstance(self.queries, int) or self.queries < 1:
            raise ProbeError(f"{self.kind}: queries={self.queries}; ask for at least 1")

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        rows = query_rows(session, call, "video", self.kind)[-self.queries :]
        return received(call, rows).mean(0)[call.key_index(positions)]


@dataclass(frozen=True)
class RawQuery(AttentionScore):
    """Inner product of the key with the mean query of a text, both before rotation, mean over
    heads: how well a key answers the text wherever it stands (LiveVLM's retrieval).

    Attributes:
        layer: as in `LastQuery`.
        queries: the text; after the prompt it is the token that is being decoded.
    """

    queries: Selection = "question"

    def check(self, session: Session) -> None:
        """Refuse queries that this prompt does not have."""
        session.layout.select(self.queries)

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        if session.step == 0:
            rows = query_rows(session, call, self.queries, self.kind)
        else:
            rows = call.index(call.positions[-1:])
        columns = call.key_index(positions)
        query = call.unrotate(call.query[:, rows], call.positions[rows.cpu().numpy()])
        key = call.unrotate(call.key[:, columns], call.key_positions[columns.cpu().numpy()])
        mean = query.float().mean(1).view(len(key), -1, key.shape[-1])
        return torch.einsum("ghc,gnc->ghn", mean, key.float()).flatten(0, 1).mean(0) * call.scaling


@dataclass(frozen=True)
class Buckets(Select):
    """Spread over the sequence: `count` / `size` runs of equal length (as nearly as may be), and
    best scores first, where a token's run has room; what is then left over goes by score alone
    (LiveVLM).

    Attributes:
        size: tokens that a run may keep.
    """

    size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int) or self.size < 1:
            raise ProbeError(f"{self.kind}: size={self.size}; a bucket has room for at least 1")

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if count >= len(group) or not count:
            return Chosen(group[:count], group[:count])
        runs = np.array_split(np.arange(len(group)), -(-count // self.size))
        order = np.argsort(-score[group], kind="stable")
        rank = np.argsort(order, kind="stable")
        first = [run[np.argsort(rank[run])][: self.size] for run in runs]
        kept = np.sort(rank[np.concatenate(first)])[:count]
        others = np.setdiff1d(np.arange(len(group)), kept)
        kept = group[np.sort(order[np.concatenate([kept, others])[:count]])]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Pages(Select):
    """Whole pages of consecutive tokens, by the mean score of a page: with `RawQuery` the inner
    product with the page's mean key (LiveVLM).

    The number of pages is the share of tokens asked for, of all pages, rounded; at least one.

    Attributes:
        size: tokens of a page; the last may have fewer.
    """

    size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int) or self.size < 1:
            raise ProbeError(f"{self.kind}: size={self.size}; a page has at least 1 token")

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if not count or not len(group):
            return Chosen(group[:0], group[:0])
        pages = np.split(group, np.arange(self.size, len(group), self.size))
        wanted = max(1, round(len(pages) * count / len(group)))
        means = np.array([score[page].mean() for page in pages])
        best = np.argsort(-means, kind="stable")[:wanted]
        kept = np.sort(np.concatenate([pages[number] for number in best]))
        return Chosen(kept, kept)


@dataclass(frozen=True)
class NearestPair(Select):
    """A memory of `count` tokens that arrive one by one: when it is full the most similar pair of
    neighbours in it (cosine) loses its older one (VideoScan). Scores are not looked at.
    """

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        unit = c.unit[torch.as_tensor(group, device=c.x.device)].double().cpu().numpy()
        held: list[int] = []
        for number in range(len(group) if count else 0):
            if len(held) == count:
                alike = [float(unit[a] @ unit[b]) for a, b in pairwise(held)]
                del held[int(np.argmax(alike or [0]))]
            held.append(number)
        return Chosen(group[held], group[held])
