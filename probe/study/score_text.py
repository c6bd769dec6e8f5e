"""What a model said, against what is right: letters, normalised matches, yes and no."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probe.diagnose.case import Case
    from probe.study.task import Task

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_LEAD = r"(?:the\s+|my\s+)?(?:best\s+|correct\s+|right\s+|final\s+)?(?:answer|option|choice)"
_NAMED = rf"{_LEAD}\s*(?:is)?[\s:*_]*(?:option\s+|choice\s+)?[*_\"“'(\[]*"


def judged(task: Task, case: Case, said: str) -> dict[str, float]:
    """Scores of the model's own words. Where the answers are letters, a match is the letter, the
    text of the right option or both, and F1 is of its text.
    """
    found: dict[str, float] = {}
    gold = right = str(case.gold)
    accepted = {normalised(gold)}
    if task.letters:
        options = case.x.options or case.meta["options"]
        right = options[list(case.answers).index(gold)]
        accepted |= {normalised(right), normalised(f"{gold} {right}")}
        letter = parsed_letter(said, case.answers, options)
        found["letter"] = float(letter == gold)
        found["letter_parsed"] = float(letter is not None)
    found["match"] = float(normalised(said) in accepted)
    found["f1"] = token_f1(said, right)
    if "yesno" in task.scores:
        yes = says_yes(said)
        found["yesno"] = float(yes is not None and yes == (gold == task.answers[0]))
        found["yesno_parsed"] = float(yes is not None)
        found["says_yes"] = float("nan") if yes is None else float(yes)
    return found


def normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces, after SQuAD's evaluation
    (arXiv:1606.05250); of Unicode in compatibility form. Unlike there a punctuation mark parts
    words ("t-shirt" is "t shirt"), and an article that is all there is stays: "A" may be an answer.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(" " if c in string.punctuation else c for c in text)
    return " ".join(_ARTICLES.sub(" ", text).split()) or " ".join(text.split())


def token_f1(said: str, right: str) -> float:
    """F1 of the bags of words of two normalised texts (SQuAD, arXiv:1606.05250)."""
    a, b = normalised(said).split(), normalised(right).split()
    common = sum((Counter(a) & Counter(b)).values())
    if not a or not b:
        return float(a == b)
    return 2 * common / (len(a) + len(b))


def parsed_letter(said: str, letters: Sequence[str], options: Sequence[str] = ()) -> str | None:
    """The option that an answer in words names, or None where it names none or several.

    In this order: the whole answer is a letter ("B", "(B)", "B."); it begins with one that stands
    apart from what follows ("B. red", "(B) red"); it says "the answer is B"; it is the text of an
    option; exactly one letter stands in brackets anywhere. "A man runs" names none.

    Args:
        said: what the model said.
        letters: of the options.
        options: their texts.
    """
    text = unicodedata.normalize("NFKC", said).strip()
    any_of = "[" + "".join(letters) + "]"
    also = r"(?:,|/|&|\band\b|\bor\b)\s*(?:and\s+|or\s+)?"
    another = rf"(?!\W{{0,3}}{also}\(?{any_of}\b(?!\s+(?!and\b|or\b)\w))"
    begins = rf"\s*\**(?:\(({any_of})\)|({any_of})(?=[.):,*]|\s*$|\s*\n)){another}"
    for pattern, flags in (
        (rf"^\W*({any_of})\W*$", re.IGNORECASE),
        (rf"^{begins}", 0),
        (rf"(?i:{_NAMED})({any_of})\b(?!['’]\w){another}", 0),
    ):
        found = {next(filter(None, match.groups())) for match in re.finditer(pattern, text, flags)}
        found = {letter.upper() for letter in found}
        if found:
            return found.pop() if len(found) == 1 else None
    same = [n for n, option in enumerate(options) if normalised(option) == normalised(text)]
    if len(same) == 1:
        return letters[same[0]]
    inside = set(re.findall(rf"\(({any_of})\)", text))
    return inside.pop() if len(inside) == 1 else None


def says_yes(said: str) -> bool | None:
    """Whether an answer is yes or no; None where it is neither, or both.

    Strict: its first word has to be one of them, and the other one is nowhere in the first
    sentence.
    """
    sentence = re.split(
        r"[.!?\n]", unicodedata.normalize("NFKC", said).casefold().strip(), maxsplit=1
    )[0]
    words = re.findall(r"\w+", sentence)
    if not words or words[0] not in ("yes", "no"):
        return None
    other = "no" if words[0] == "yes" else "yes"
    return None if other in words else words[0] == "yes"
