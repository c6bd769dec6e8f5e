"""Existence questions about a set of videos whose objects are known, in the manner of POPE."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import ProbeError

NEGATIVES = ("random", "popular", "adversarial")
TIMED = ("temporal", "order")
SHARED = "positive"
ASK = "Is there {a} {object} in the video?"
ASK_SPAN = "Is there {a} {object} between {start:g} and {end:g} seconds?"
ASK_ORDER = "Does the {first} appear before the {second}?"
LEAST = 1.0
"""Seconds that a span without the object must last to be asked about."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Objects:
    """What is known to be in a video.

    Attributes:
        video: its name or path.
        names: the objects that are in it, whenever.
        spans: first and last second of each appearance of some of them.
        duration: seconds that it lasts, or None.
    """

    video: str
    names: tuple[str, ...]
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    duration: float | None = None


@dataclass(frozen=True)
class ObjectQuestion:
    """One question with its answer.

    Attributes:
        video: of the question.
        question, answer: answer is "yes" or "no".
        object: what is asked about.
        negatives: "positive" for a "yes" that the random, popular and adversarial sets share;
            otherwise the set that it belongs to.
    """

    video: str
    question: str
    answer: str
    object: str
    negatives: str


def read_objects(path: str | Path) -> list[Objects]:
    """Objects of each video from JSON lines.

    A line is {"video": "a.mp4", "objects": ["dog", "cat"]}, and where known
    "spans": {"dog": [[0, 3.5]]} and "duration": 12.

    Raises:
        ProbeError: with file and row.
    """
    found: list[Objects] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_objects(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ProbeError(
                f'{path}, row {number}: write {{"video": "a.mp4", "objects": ["dog", "cat"]}}'
            ) from None
    return found


def write_questions(questions: Sequence[ObjectQuestion], path: str | Path) -> Path:
    """Questions as JSON lines, which a study reads with `source: jsonl` and `kind: yesno`."""
    rows = [{"id": f"{n}", **asdict(question)} for n, question in enumerate(questions)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path


def object_questions(
    videos: Sequence[Objects],
    negatives: Sequence[str] = NEGATIVES,
    per_video: int = 3,
    seed: int = 0,
    ask: str = ASK,
) -> list[ObjectQuestion]:
    """As many questions whose answer is yes as no, for each set of negatives.

    POPE (Li et al. 2023, arXiv 2305.10355): the first `per_video` objects of a video are the
    positives, and each has a negative, absent from the video and not asked yet: "random" from all
    objects, "popular" the most frequent over the videos, "adversarial" the one that is most often
    together with that positive. Counts are by video, and where they are equal the order is drawn.
    Ours, where spans are known: "temporal", an object asked for in a span without it, and in one
    with it; "order", two that appear one after the other, asked in both orders.

    Args:
        videos: what is in each; one with fewer than `per_video` objects, or that lacks
            fewer of those that others have, is left out.
        negatives: sets to make.
        per_video: positives, and negatives of each set, a video.
        seed: of everything random.
        ask: the question, with {object} and, where it needs one, {a} for the article.

    Raises:
        ProbeError: an unknown set, or no video with enough objects.
    """
    known = (*NEGATIVES, *TIMED)
    wrong = next((name for name in negatives if name not in known), None)
    if wrong is not None:
        raise ProbeError(f'existence: no negatives "{wrong}"; there are {", ".join(known)}')
    counts = Counter(name for one in videos for name in set(one.names))
    most = len(counts) - per_video  # a video must lack as many as it is asked for
    enough = [one for one in videos if per_video <= len(set(one.names)) <= most]
    still = [name for name in negatives if name in NEGATIVES]
    if still and not enough:
        raise ProbeError(
            f"existence: no video has {per_video} objects and lacks as many that others have; "
            "set per_video lower"
        )
    found: list[ObjectQuestion] = []
    for one in enough if still else []:
        draw = np.random.default_rng([seed, len(found)])
        asked = list(dict.fromkeys(one.names))[:per_video]
        found += [_ask(one, ask, name, "yes", SHARED) for name in asked]
        for kind in still:
            used: set[str] = set()
            for name in asked:
                absent = sorted(set(counts) - set(one.names) - used)
                chosen = _negative(kind, name, absent, videos, counts, draw)
                used.add(chosen)
                found.append(_ask(one, ask, chosen, "no", kind))
    makers = {"temporal": _temporal, "order": _order}
    for kind in (name for name in negatives if name in TIMED):
        found += [question for one in videos for question in makers[kind](one)]
    return found


def article(name: str) -> str:
    """`a` or `an`, by the first letter."""
    return "an" if name[:1].lower() in "aeiou" else "a"


def _negative(
    kind: str,
    positive: str,
    absent: list[str],
    videos: Sequence[Objects],
    counts: Counter,
    draw: np.random.Generator,
) -> str:
    shuffled = [absent[place] for place in draw.permutation(len(absent)).tolist()]
    if kind == "random":
        return shuffled[0]
    if kind == "popular":
        return max(shuffled, key=lambda name: counts[name])
    together = Counter(name for one in videos if positive in one.names for name in set(one.names))
    return max(shuffled, key=lambda name: together[name])


def _ask(one: Objects, ask: str, name: str, answer: str, negatives: str) -> ObjectQuestion:
    text = ask.format(a=article(name), object=name)
    return ObjectQuestion(one.video, text, answer, name, negatives)


def _temporal(one: Objects) -> list[ObjectQuestion]:
    """For each object with spans: its longest appearance, and the longest span without it."""
    found = []
    for name, spans in one.spans.items():
        gaps = absences(spans, one.duration)
        if not gaps:
            continue
        for answer, (start, end) in (("yes", max(spans, key=_length)), ("no", gaps[0])):
            text = ASK_SPAN.format(a=article(name), object=name, start=start, end=end)
            found.append(ObjectQuestion(one.video, text, answer, name, "temporal"))
    return found


def _order(one: Objects) -> list[ObjectQuestion]:
    """For each two objects that appear at least `LEAST` seconds apart: both orders."""
    starts = sorted((min(start for start, _ in spans), name) for name, spans in one.spans.items())
    found = []
    for place, (early, first) in enumerate(starts):
        for late, second in starts[place + 1 :]:
            if late - early < LEAST:
                continue
            for answer, pair in (("yes", (first, second)), ("no", (second, first))):
                text = ASK_ORDER.format(first=pair[0], second=pair[1])
                found.append(ObjectQuestion(one.video, text, answer, pair[0], "order"))
    return found


def absences(spans: Sequence[Span], duration: float | None) -> list[Span]:
    """Spans of at least `LEAST` seconds in which an object is not there, the longest first."""
    edges, last = [], 0.0
    for start, end in sorted(spans):
        edges.append((last, start))
        last = max(last, end)
    if duration is not None:
        edges.append((last, duration))
    return sorted((gap for gap in edges if _length(gap) >= LEAST), key=_length, reverse=True)


def _length(span: Span) -> float:
    return span[1] - span[0]


def _objects(row: Any) -> Objects:
    names, spans = row["objects"], row.get("spans", {})
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise TypeError
    known = {
        str(name): tuple((float(start), float(end)) for start, end in some)
        for name, some in spans.items()
        if some
    }
    duration = row.get("duration")
    every = dict.fromkeys([*(name.strip() for name in names), *known])
    return Objects(
        str(row["video"]), tuple(every), known, None if duration is None else float(duration)
    )
