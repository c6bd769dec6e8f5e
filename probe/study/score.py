"""Scores of answers under ablations, by likelihood and by what the model says.

- likelihood: log p(right answer): the sum over its tokens, teacher-forced; their mean with
  `normalise`. In nats.
- margin: that of the right answer minus that of the best wrong one. Open questions have no wrong
  answers to compare with: there it is the first token against the best other token.
- probability: of the right answer among the answers (softmax of their log-likelihoods).
- confidence: of the likeliest answer among the answers.
- accuracy: 1 where the right answer is the likeliest, else 0; a tie is not right. NaN where the
  margin is (no answer is possible at all).
- letter, match, f1, yesno: of the model's own words; see `probe.study.score_text`.

Where every answer is one token, and no two are the same, one pass gives all of them; else each
answer is forced in turn. Both give the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    from jaxtyping import Float

    from probe.ablate.base import Ablation
    from probe.diagnose.case import Case
    from probe.models.encode import Example
    from probe.study.task import Task

Row = dict[str, float]


def scores(task: Task, case: Case, lists: Sequence[Sequence[Ablation]]) -> list[Row | ProbeError]:
    """See `Task.score`."""
    from probe.study.task import GENERATED, LIKELIHOODS

    each = [list(one) for one in lists]
    if {*LIKELIHOODS} & {*task.scores}:
        found = _by_likelihood(task, case, each)
    else:
        found = swept(case, case.x, each, _tokens)
    if {*GENERATED} & {*task.scores}:
        found = [_said(task, case, a, row) for a, row in zip(each, found, strict=True)]
    beside = {"letter": ("letter_parsed",), "yesno": ("yesno_parsed", "says_yes")}
    names = [name for one in task.scores for name in (one, *beside.get(one, ()))]
    return [
        row if isinstance(row, ProbeError) else {name: row[name] for name in (*names, "tokens")}
        for row in found
    ]


def log_likelihoods(
    case: Case,
    answers: Sequence[str],
    lists: Sequence[list[Ablation]],
    *,
    normalise: bool = False,
    forced: bool = False,
) -> list[Row | ProbeError]:
    """Log p of each answer in each run, by its number ("0", "1", ...), with "tokens" and "ahead".

    "ahead" is log p of the first token of the first answer minus that of the best other token.

    Args:
        case: the case; its own answers do not enter.
        answers: texts, as they follow the prompt.
        lists: ablations of each run.
        normalise: divide by the number of tokens.
        forced: force each answer even where one pass would do (for tests).

    Raises:
        ProbeError: an answer without any token.
    """
    from probe.models.encode import continuation

    model, x = case.model, case.x
    ids = [continuation(model.tokenizer, x.prompt, answer) for answer in answers]
    empty = next((a for a, tokens in zip(answers, ids, strict=True) if not tokens), None)
    if empty is not None:
        raise ProbeError(f'score: the answer "{empty}" has no token')
    first = [tokens[0] for tokens in ids]
    single = all(len(tokens) == 1 for tokens in ids) and len(set(first)) == len(first)
    if single and not forced:

        def read(run: Any) -> Row:
            row = log_softmax(run.logits[0])
            each = {str(n): float(row[token]) for n, token in enumerate(first)}
            return each | _tokens(run) | {"ahead": _ahead(run.logits[0], first[0])}

        return swept(case, x, lists, read)
    found: list[Row | ProbeError] = [{} for _ in lists]
    for number, tokens in enumerate(ids):

        def read_forced(run: Any, number: int = number, tokens: list[int] = tokens) -> Row:
            rows = log_softmax(run.logits)
            total = float(rows[np.arange(len(tokens)), tokens].sum())
            row = {str(number): total / len(tokens) if normalise else total}
            if number == 0:
                row |= _tokens(run) | {"ahead": _ahead(run.logits[0], tokens[0])}
            return row

        one = swept(case, model.force(x, tokens), lists, read_forced)
        found = [_joined(old, new) for old, new in zip(found, one, strict=True)]
    return found


def swept(
    case: Case, x: Example, lists: Sequence[list[Ablation]], measure: Callable[[Any], Row]
) -> list[Row | ProbeError]:
    """`model.sweep`, with an error in place of what cannot be run; the others run all the same.

    Raises:
        ProbeError: the untouched run itself fails.
    """
    try:
        table = case.model.sweep(x, lists, measure)
    except ProbeError as error:
        if len(lists) == 1 and lists[0]:
            case.model.sweep(x, [], measure)
            return [error]
        if len(lists) < 2:
            raise
        half = len(lists) // 2
        return [
            row for part in (lists[:half], lists[half:]) for row in swept(case, x, part, measure)
        ]
    names = [name for name in table if name not in _OWN]
    return [
        {str(name): float(value) for name, value in row.items()}
        for row in table[names].iloc[1:].to_dict("records")
    ]


_OWN = ("ablation", "answer", "from_layer", "from_row", "seconds")


def log_softmax(
    logits: Float[np.ndarray, "*readout vocab"],
) -> Float[np.ndarray, "*readout vocab"]:
    """Log p over the vocabulary, in float64."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _by_likelihood(task: Task, case: Case, lists: list[list[Ablation]]) -> list[Row | ProbeError]:
    gold = str(case.gold)
    answers = [gold, *(answer for answer in case.answers if answer != gold)]
    rows = log_likelihoods(case, answers, lists, normalise=task.normalise)
    return [row if isinstance(row, ProbeError) else _values(row, len(answers)) for row in rows]


def _values(row: Row, count: int) -> Row:
    """Scores from the log-likelihoods of the answers, the right one first."""
    each = np.array([row[str(number)] for number in range(count)])
    found = {"likelihood": float(each[0]), "tokens": row["tokens"], "margin": row["ahead"]}
    if count > 1:
        with np.errstate(invalid="ignore"):  # where every answer is cut off: -inf, so NaN
            share = np.exp(each - each.max())
            share /= share.sum()
            found["margin"] = float(each[0] - each[1:].max())
        found["probability"], found["confidence"] = float(share[0]), float(share.max())
        margin = found["margin"]
        found["accuracy"] = margin if np.isnan(margin) else float(margin > 0)
    return found


def _said(task: Task, case: Case, ablations: list[Ablation], row: Any) -> Row | ProbeError:
    """A row with the scores of what the model says."""
    from probe.study.score_text import judged

    if isinstance(row, ProbeError):
        return row
    try:
        run = case.model.generate(case.x, ablate=ablations, max_new_tokens=task.max_new_tokens)
    except ProbeError as error:
        if not ablations:
            raise
        return error
    return row | judged(task, case, str(run.text))


def _tokens(run: Any) -> Row:
    from probe.study.controls import visual_tokens

    return {"tokens": visual_tokens(run)}


def _ahead(row: np.ndarray, token: int) -> float:
    others = np.delete(row, token)
    return float(row[token] - others.max())


def _joined(a: Any, b: Any) -> Row | ProbeError:
    return a if isinstance(a, ProbeError) else b if isinstance(b, ProbeError) else a | b
