"""Answer: a text that follows a case's prompt, teacher-forced, with what signals read of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from probe.diagnose.margin import log_softmax
from probe.diagnose.signals.words import Word, spellings, words_of
from probe.errors import ProbeError
from probe.models.encode import continuation

if TYPE_CHECKING:
    import xarray as xr

    from probe.capture.base import Capture
    from probe.diagnose.case import Case
    from probe.engine.result import Run
    from probe.models.encode import Example

RANDOM_WORDS = 20


@dataclass(eq=False)
class Answer:
    """An answer under diagnosis. What several signals need is computed once.

    Attributes:
        case: the prompt that it follows.
        ids: its tokens; of the model's own answer with the token that ends it.
    """

    case: Case
    ids: tuple[int, ...]
    _runs: list[Run] = field(default_factory=list, repr=False)
    _pairs: dict[str, np.ndarray | None] = field(default_factory=dict, repr=False)

    # -- its tokens and words --------------------------------------------------------------

    @cached_property
    def scored(self) -> Int[np.ndarray, " token"]:
        """Numbers of the tokens that are scored: all but special ones."""
        special = {*self.case.model.tokenizer.all_special_ids, *ends(self.case.model)}
        return np.array([n for n, token in enumerate(self.ids) if token not in special], np.int64)

    @property
    def targets(self) -> Int[np.ndarray, " token"]:
        """Ids of the scored tokens."""
        return np.array(self.ids, np.int64)[self.scored]

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Texts of the scored tokens."""
        return tuple(self.case.model.decode_each(self.targets.tolist()))

    @cached_property
    def text(self) -> str:
        """The answer without special tokens."""
        return str(self.case.model.tokenizer.decode(self.targets.tolist())).strip()

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """Its words; their `tokens` count scored tokens."""
        return words_of(self.case.model.tokenizer, self.targets.tolist())

    @property
    def content(self) -> Bool[np.ndarray, " token"]:
        """Scored tokens of content words; all of them in an answer without any."""
        found = np.zeros(len(self.scored), bool)
        for word in self.words:
            if word.content:
                found[list(word.tokens)] = True
        return found if found.any() else np.ones(len(found), bool)

    # -- the teacher-forced run ------------------------------------------------------------

    @cached_property
    def x(self) -> Example:
        """Prompt and answer."""
        if not self.ids:
            raise ProbeError(f"{self.case.id}: the answer is empty; there is nothing to score")
        return self.case.model.force(self.case.x, self.ids)

    @cached_property
    def run(self) -> Run:
        """The untouched run over prompt and answer."""
        return self._runs[0] if self._runs else self.case.model.run(self.x)

    def read(self, captures: Sequence[Capture]) -> None:
        """Read several captures in one untouched run; those that were read before stay."""
        have = [made for run in self._runs for made, _ in run.parts]
        wanted = [capture for capture in dict.fromkeys(captures) if capture not in have]
        if wanted:
            self._runs.append(self.case.model.run(self.x, wanted))

    def of(self, capture: Capture, name: str = "") -> xr.DataArray:
        """An array of a capture; the first one where no other is named (without its prefix)."""
        self.read([capture])
        parts = [part for run in self._runs for part in run.parts]
        arrays = next(arrays for made, arrays in parts if made == capture)
        return arrays[f"{capture.kind}_{name}"] if name else next(iter(arrays.values()))

    def predictors(self, query: str = "predictor") -> Int[np.ndarray, " token"]:
        """Positions read for each scored token: "predictor" emits it, "self" has it as input."""
        if query not in ("predictor", "self"):
            raise ProbeError(f'query="{query}": write "predictor" or "self"')
        return self.case.x.layout.last + self.scored + (query == "self")

    @cached_property
    def log_p(self) -> Float[np.ndarray, "token vocab"]:
        """Log-probabilities where each scored token is emitted."""
        return log_softmax(self.run.logits[self.scored])

    @cached_property
    def video(self) -> Int[np.ndarray, " visual"]:
        """Positions of the clips' tokens, timestamps and separators left out."""
        return self.case.video_tokens

    @cached_property
    def groups(self) -> Int[np.ndarray, " visual"]:
        """Temporal group of each of them."""
        return self.case.x.layout.group[self.video]

    # -- other clips -----------------------------------------------------------------------

    def under(self, clip: str) -> Float[np.ndarray, "token vocab"] | None:
        """`log_p` of the same tokens under another clip; see `paired.log_p`."""
        from probe.diagnose.signals import paired

        if clip not in self._pairs:
            self._pairs[clip] = paired.log_p(self, clip)
        return self._pairs[clip]

    # -- the vocabulary that lenses follow -------------------------------------------------

    def word_ids(self, word: Word) -> tuple[tuple[int, ...], ...]:
        """Tokenisations of a word: as it stands in the answer, by itself, behind a space."""
        other = spellings(self.case.model.tokenizer, word.text)
        return tuple(dict.fromkeys((word.ids, *other)))

    @cached_property
    def random_words(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Tokenisations of random words that are absent from the answer."""
        tokenizer, used = self.case.model.tokenizer, {w.lemma for w in self.words}
        rng = np.random.default_rng([self.case.seed, 20])
        found: dict[str, tuple[tuple[int, ...], ...]] = {}
        special = set(tokenizer.all_special_ids)
        order = rng.permutation(self.case.model.head.weight.shape[0])
        for least in (3, 1):  # byte-level vocabularies without merges have no longer ones
            for token in order.tolist():
                text = tokenizer.decode([token]).strip().lower()
                fits = text.isalpha() and len(text) >= least and text not in used
                if fits and token not in special and text not in found:
                    found[text] = spellings(tokenizer, text)
                if len(found) == RANDOM_WORDS:
                    return tuple(found.values())
        return tuple(found.values())

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Every token id that a lens has to follow for this answer."""
        own = [ids for word in self.words for ids in self.word_ids(word)]
        other = [ids for word in self.random_words for ids in word]
        return tuple(sorted({int(token) for ids in (*own, *other) for token in ids}))


def own(case: Case, captures: Any = None) -> Answer:
    """The model's own greedy answer, at most 64 tokens.

    A guess (the right answer, where a case knows it) is verified by the teacher-forced pass that
    the signals need in any case: it is the greedy answer where it is the most likely token at each
    place, the end included. So only an answer that differs from the guess costs a generation.

    Args:
        case: the case.
        captures: a function from an `Answer` to what will be read of it.
    """
    guess = _guess(case)
    if guess:
        answer = Answer(case, guess)
        if captures is not None:
            answer.read(captures(answer))
        if answer.run.logits.argmax(-1).tolist() == list(guess):
            return answer
    answer = Answer(case, tuple(case.generated.meta["generated"]))
    if captures is not None and len(answer.scored):
        answer.read(captures(answer))
    return answer


def given(case: Case, text: str) -> Answer:
    """Any text as the answer."""
    return Answer(case, tuple(continuation(case.model.tokenizer, case.x.prompt, text)))


def ends(model: Any) -> tuple[int, ...]:
    """Ids that end an answer."""
    found = model.hf.generation_config.eos_token_id
    return tuple(found) if isinstance(found, list | tuple) else () if found is None else (found,)


def _guess(case: Case) -> tuple[int, ...]:
    """The right answer and the token that ends it; nothing where greedy is not the argmax."""
    settings, closing = case.model.hf.generation_config, ends(case.model)
    plain = getattr(settings, "repetition_penalty", None) in (None, 1.0)
    if case.gold is None or not closing or not plain:
        return ()
    ids = continuation(case.model.tokenizer, case.x.prompt, case.gold)
    return (*ids, closing[0]) if 0 < len(ids) < 64 else ()
