"""Signals of what visual tokens say: internal confidence, and support by attended cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.diagnose.signals.attended import share_of_depth
from probe.diagnose.signals.base import Scores, Signal
from probe.diagnose.signals.rows import AnswerRows
from probe.diagnose.signals.visual import VisualLens
from probe.diagnose.signals.words import Word, lemma
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.capture.base import Capture
    from probe.diagnose.signals.answer import Answer


@dataclass(frozen=True)
class InternalConfidence(Signal):
    """Internal confidence: the highest probability of a word in any visual token at any state, by
    the logit lens (2410.02762).

    ic: maximum over states 0 to L, the clip's tokens, the word's sub-tokens, and its spellings
    (as in the answer, by itself, behind a space; the release looks for one). ic_first: first
    sub-tokens alone. ic_mean: mean over the sub-tokens in the answer of each one's maximum. A
    maximum over more tokens grows by chance: ic_z (ours) is ic less its mean over 20 random words
    that are absent from the answer, over their standard deviation.

    No query position is read. Each token of a word has the word's score.

    Attributes:
        lens: "raw" as released, or "normed".
        top: the release renormalises over the 50 most likely entries (`top=50`), so that any word
            outside of them has 0; 0 is exact.
    """

    lens: str = "raw"
    top: int = 0

    signs: ClassVar[Mapping[str, str]] = {
        "ic": "H-",
        "ic_first": "H-",
        "ic_mean": "H-",
        "ic_z": "H-",
    }
    source: ClassVar[str] = "arXiv 2410.02762"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """The lens on the clip's tokens."""
        return [VisualLens(answer.columns, self.lens, self.top)]

    def scores(self, answer: Answer) -> Scores:
        """Maxima for each word."""
        lens = self._lens(answer)
        best = dict(
            zip(lens.id.values.tolist(), np.exp(lens.values.max((0, 1))).tolist(), strict=True)
        )
        chance = [_highest(word, best) for word in answer.random_words]
        found = {name: np.full(len(answer.scored), np.nan) for name in self.signs}
        for word in answer.words:
            spelt = answer.word_ids(word)
            ic = _highest(spelt, best)
            values = {
                "ic": ic,
                "ic_first": max(best[ids[0]] for ids in spelt),
                "ic_mean": float(np.mean([best[token] for token in word.ids])),
                "ic_z": (ic - np.mean(chance)) / np.std(chance) if np.std(chance) else np.nan,
            }
            for name, value in values.items():
                found[name][list(word.tokens)] = value
        return found

    def frames(self, answer: Answer, word: Word) -> Float[np.ndarray, " group"]:
        """The word's internal confidence in each temporal group."""
        lens = self._lens(answer)
        ids = [token for ids in answer.word_ids(word) for token in ids]
        by_token = np.exp(lens.sel(id=ids).values.max((0, 2)))
        named = np.unique(answer.groups[answer.groups >= 0])
        return np.array([by_token[answer.groups == group].max() for group in named])

    def _lens(self, answer: Answer) -> xr.DataArray:
        return answer.of(self.reads(answer)[0])


@dataclass(frozen=True)
class AttendedSupport(Signal):
    """Do the cells that a word looks at say the word? Graded form of LLCC (2608.07302).

    In each layer of a late stage the k cells with most attention (mean over heads) are decoded,
    the argmax of the lens at the state that enters the layer (X[l], as released); llcc is the
    share of the |stage| x k decodes that match the word. The paper's verdict is "none matches",
    llcc = 0. Words whose mean visual mass over the stage is not above `gate` are not tested: NaN.

    A decode matches where its lemma is the word's, or where it is a first sub-token of the word
    of at least 3 letters. The release takes substrings either way, so that "a" supports "cat".

    Attributes:
        k: cells a layer; 4 on the release's command line, 3 in the paper.
        gate: 0 on the command line, 0.15 in the paper.
        layers: the stage; None for 20 to 27 of 32, scaled.
        lens, query: as released "raw" and "predictor".
    """

    k: int = 4
    gate: float = 0.0
    layers: Layers | None = None
    lens: str = "raw"
    query: str = "predictor"

    signs: ClassVar[Mapping[str, str]] = {"llcc": "H-"}
    source: ClassVar[str] = "arXiv 2608.07302 (LLCC)"

    def stage(self, answer: Answer) -> tuple[int, ...]:
        """Its layers."""
        count = answer.case.model.n_layers
        if self.layers is None:
            return share_of_depth(count, 20 / 32, 28 / 32)
        return resolve_layers(self.layers, count, self.kind)

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """The rows of the answer, and the lens on the clip's tokens."""
        rows = AnswerRows(answer.predictors(self.query).tolist(), self.stage(answer))
        return [rows, VisualLens(answer.columns, self.lens)]

    def scores(self, answer: Answer) -> Scores:
        """Support of each word, at its first token; its other tokens have the same."""
        rows, lens = self.reads(answer)
        mass = answer.of(rows).values[:, :, answer.video]
        said = answer.of(lens, "best").sel(state=list(self.stage(answer))).values
        k = min(self.k, mass.shape[2])
        cells = np.argsort(-mass, axis=2, kind="stable")[:, :, :k]
        decode = answer.case.model.tokenizer.decode
        llcc = np.full(len(answer.scored), np.nan)
        for word in answer.words:
            first = word.tokens[0]
            if mass[:, first].sum(1).mean() <= self.gate:
                continue
            ids = np.concatenate([said[n][cells[n, first]] for n in range(len(said))])
            firsts = {spelt[0] for spelt in answer.word_ids(word)}
            texts = {int(token): str(decode([int(token)])) for token in np.unique(ids)}
            match = [_matches(texts[t], word, t in firsts) for t in ids.tolist()]
            llcc[list(word.tokens)] = np.mean(match)
        return {"llcc": llcc}


def _highest(spelt: Sequence[Sequence[int]], best: Mapping[int, float]) -> float:
    return float(max(best[token] for ids in spelt for token in ids))


def _matches(decoded: str, word: Word, begins: bool) -> bool:
    text = decoded.strip()
    return lemma(text) == word.lemma or (begins and len(text) >= 3)
