"""What `probe diagnose` does: diagnoses of one clip, or of many testbed items."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.base import Diagnosis
    from probe.diagnose.case import Case


def command(
    name: str,
    video: str | None,
    ask: str | None,
    *,
    answer: str | None = None,
    options: tuple[str, ...] = (),
    model: str = "testbed/onevision",
    frames: int = 16,
    testbed: int | None = None,
    split: str = "neutral",
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Diagnose a user's clip, or generated items whose truth is known, and print what was found.

    Raises:
        ProbeError: what cannot be read, understood or run, before the model runs where possible.
    """
    wanted, whole = named(name)
    if testbed is None:
        _one(wanted, whole, video, ask, answer, options, model, frames, seed, as_json)
        return
    if video is not None or ask is not None or answer is not None or options:
        raise ProbeError("diagnose: --testbed brings its own clips and questions; leave yours out")
    if testbed < 1:
        raise ProbeError(f"diagnose: --testbed {testbed}: ask for at least 1 item")
    _many(wanted, testbed, split, model, frames, seed, as_json)


def named(text: str) -> tuple[list[Diagnosis], bool]:
    """Diagnoses of a section's name, or of text that says which; whether it was a section.

    Raises:
        ProbeError: neither a section nor diagnoses; a section without any.
    """
    from probe.diagnose import diagnoses, parse
    from probe.diagnose.base import SECTIONS, Diagnosis

    if text in SECTIONS:
        found: list[Any] = []
        for made in diagnoses().values():
            if made.section == text:
                found += _made(made)
        if not found:
            raise ProbeError(f"diagnose: there is no diagnosis in the section {text}")
        return found, True
    try:
        several = parse(text)
    except ProbeError as error:
        if "is not known" not in str(error):
            raise
        raise ProbeError(_unknown(text)) from None
    other = next((one for one in several if not isinstance(one, Diagnosis)), None)
    if other is not None:
        raise ProbeError(f"diagnose: {other} is no diagnosis; `probe diagnoses` lists them")
    return several, False


def _made(kind: type) -> list[Any]:
    """A diagnosis with its defaults; none where it cannot do without arguments."""
    try:
        return [kind()]
    except (TypeError, ProbeError):
        return []


def _unknown(text: str) -> str:
    import re
    from difflib import get_close_matches

    from probe.diagnose.base import SECTIONS
    from probe.diagnose.registry import DIAGNOSES
    from probe.spec import snake

    known = [*SECTIONS, *DIAGNOSES, *map(snake, DIAGNOSES)]
    words = [word for word in re.findall(r"[\w.:]+(?=\s*\(|\s*;|\s*$)", text) if word not in known]
    word = words[0] if words else text
    near = get_close_matches(word, known, 3, 0.5)
    hint = f"is it {' or '.join(near)}?" if near else "`probe diagnoses` lists them"
    return f"diagnose: '{word}' is not known; {hint}"


def _one(
    wanted: Sequence[Diagnosis],
    whole: bool,
    video: str | None,
    ask: str | None,
    answer: str | None,
    options: tuple[str, ...],
    model: str,
    frames: int,
    seed: int,
    as_json: bool,
) -> None:
    if video is None:
        raise ProbeError("diagnose: name a video file, or --testbed N for generated clips")
    if ask is None or not ask.strip():
        raise ProbeError("diagnose: the question is missing; ask one, as in --ask 'What moves?'")
    if options and answer is None:
        raise ProbeError("diagnose: --option names possible answers; say with --answer which holds")
    from probe.diagnose.case import Case
    from probe.models.loading import load, resolve
    from probe.report.commands import TESTBED, foreign, steps
    from probe.video import read

    resolve(model)
    with steps() as step:
        step("reading the video")
        clip = read(video, frames=frames)
        step(f"loading {model}")
        loaded = load(model)
        x = loaded.encode(clip, ask, frames=None)
        several = options if answer is None or answer in options else (*options, answer)
        case = Case(loaded, x, answer, several if len(several) > 1 else (), seed=seed)
        step("diagnosing")
        try:
            found, left_out = measured(case, wanted, whole)
        except ProbeError as error:
            raise ProbeError(_as_options(str(error))) from None
    if model.startswith(TESTBED):
        print(f"note: {foreign(model)}", file=sys.stderr)
    from probe.diagnose.command_show import one_as_json, show_one

    if as_json:
        about = {"model": model, "video": video, "question": ask, "answer": answer}
        print(json.dumps(about | one_as_json(found, left_out), indent=2, ensure_ascii=False))
    else:
        show_one(found, left_out)


def _as_options(text: str) -> str:
    """A message with arguments as they are written on the command line."""
    return text.replace("(gold=)", "(--answer)").replace("(answers=)", "(--option for each)")


def measured(
    case: Case, wanted: Sequence[Diagnosis], whole: bool
) -> tuple[dict[Diagnosis, dict[str, Any]], dict[Diagnosis, str]]:
    """What each diagnosis found, and why others could not.

    Args:
        case: one example.
        wanted: diagnoses.
        whole: they are a section, of which those that do not fit are left out; diagnoses that were
            asked for by name are refused.

    Raises:
        ProbeError: a diagnosis that was asked for by name cannot be made, or none can.
    """
    from probe.diagnose.base import check, diagnose

    if not whole:
        return diagnose(case, wanted), {}
    found, left_out, fitting = {}, {}, []
    for one in wanted:
        try:
            check(one, case)
            fitting.append((one, one.reads(case)))
        except ProbeError as error:
            left_out[one] = str(error)
    for group in _readable(case, fitting):
        for one in group:
            try:
                found |= diagnose(case, [one])
            except ProbeError as error:
                left_out[one] = str(error)
    if not found:
        raise ProbeError(f"diagnose: none fits; {next(iter(left_out.values()))}")
    return found, left_out


def _readable(case: Case, fitting: Sequence[tuple[Diagnosis, Any]]) -> Iterator[list[Diagnosis]]:
    """All in one group after one pass for what they read; where that is refused, one by one."""
    try:
        case.read([capture for _, reads in fitting for capture in reads])
    except ProbeError:
        yield from ([one] for one, _ in fitting)
        return
    yield [one for one, _ in fitting]


def _many(
    wanted: Sequence[Diagnosis],
    count: int,
    split: str,
    model: str,
    frames: int,
    seed: int,
    as_json: bool,
) -> None:
    from probe import testbed
    from probe.diagnose.command_show import many_as_json, pooled, show_many
    from probe.diagnose.testbed import case_of
    from probe.models.loading import load, resolve
    from probe.report.commands import steps

    resolve(model)
    try:
        items = testbed.items(split, n=count, seed=seed)
    except ValueError as error:
        raise ProbeError(f"diagnose: {error}") from None
    rows: dict[Diagnosis, list[tuple[Case, dict[str, Any]]]] = {one: [] for one in wanted}
    refused: dict[Diagnosis, list[str]] = {one: [] for one in wanted}
    with steps() as step:
        step(f"loading {model}")
        loaded = load(model)
        for number, item in enumerate(items):
            step(f"item {number + 1} of {count}")
            case = case_of(loaded, item, frames, seed)
            try:
                found, left_out = measured(case, wanted, True)
            except ProbeError as error:
                found, left_out = {}, dict.fromkeys(wanted, str(error))
            for one, values in found.items():
                rows[one].append((case, values))
            for one, why in left_out.items():
                refused[one].append(why)
    if not any(rows.values()):
        reasons = [why for several in refused.values() for why in several]
        raise ProbeError(f"diagnose: no item could be diagnosed; {reasons[0]}")
    results = pooled(rows, refused)
    if as_json:
        about = {"model": model, "split": split, "items": count, "seed": seed}
        print(json.dumps(about | many_as_json(results), indent=2, ensure_ascii=False))
    else:
        show_many(results, count)
