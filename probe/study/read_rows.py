"""Rows of files become samples, checked: every row that is wrong is counted, the first is named."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study.field_maps import ANSWERS, MAPS, USUAL
from probe.study.read_files import ENDINGS, Row, files
from probe.study.read_options import answer_of, options_of, split_listed
from probe.study.sample import Sample
from probe.study.spec_check import hint

if TYPE_CHECKING:
    from probe.study.task import Task

LONG = 200  # characters; longer columns are for templates alone
_PLACE = re.compile(r"\{(\w+)\}")
_ANY = tuple(dict.fromkeys(ending for several in ENDINGS.values() for ending in several))


def read(given: Mapping[str, Any], task: Task, folder: str) -> list[Sample]:
    """The samples of `samples:`, as `read_samples.check` gave it.

    Raises:
        ProbeError: "file: row: what is wrong with it (and how many more rows)".
    """
    source, several = given["source"], False
    if source == "datasets":
        from probe.study.read_datasets import rows as stored

        places = [Path(folder, Path(path).expanduser()) for path in given["path"]]
        found: Iterable[Row] = (row for p in places for row in stored(p, given.get("split")))
    else:
        from probe.study.read_files import rows

        places = files(given["path"], folder, ENDINGS.get(source, _ANY))
        found = (row for path in places for row in rows(path))
        several = len(places) > 1
    fields = USUAL | MAPS.get(source, {}) | dict(given.get("fields") or {})
    if fields["answer_as"] not in ANSWERS:
        text = str(fields["answer_as"])
        raise ProbeError(f'samples: fields: answer_as: "{text}" is none; {hint(text, ANSWERS)}')
    root = given.get("videos")
    videos = None if root is None else Path(folder, Path(root).expanduser())
    reader = _Reader(task, fields, videos, several)
    samples = _checked(_wanted(found, given.get("where") or {}), reader)
    if not samples:
        raise ProbeError(
            f"{places[0]}: there is no row" + (" like that" * bool(given.get("where")))
        )
    return samples


def _wanted(found: Iterable[Row], where: Mapping[str, Any]) -> Iterator[Row]:
    """Rows whose columns have one of the values that are wanted."""
    for row in found:
        if row.error:
            yield row
            continue
        for column, value in where.items():
            if column not in row.values:
                raise ProbeError(f"samples: where: {column}: {hint(column, row.values)}")
            allowed = value if isinstance(value, list | tuple) else [value]
            if str(row.values[column]) not in [str(one) for one in allowed]:
                break
        else:
            yield row


def _checked(found: Iterable[Row], reader: _Reader) -> list[Sample]:
    samples: list[Sample] = []
    seen: dict[str, str] = {}
    wrong: list[str] = []
    for row in found:
        try:
            if row.error:
                raise ProbeError(row.error)
            sample = reader.sample(row)
            if sample.id in seen:
                raise ProbeError(f'the id "{sample.id}" is there already, in {seen[sample.id]}')
            seen[sample.id] = row.place
            samples.append(sample)
        except ProbeError as error:
            wrong.append(f"{row.file}: {row.place}: {error}")
    if wrong:
        more = len(wrong) - 1
        rest = f" (and {more} more row{'s' * (more > 1)})" if more else ""
        raise ProbeError(wrong[0] + rest)
    return samples


@dataclass(frozen=True)
class _Reader:
    """What turns a row into a sample.

    Attributes:
        task: what is asked.
        fields: of a field map.
        videos: folder of the clips; that of the file where None.
        several: there are several files, so that ids get the name of theirs.
    """

    task: Task
    fields: Mapping[str, Any]
    videos: Path | None
    several: bool

    def sample(self, row: Row) -> Sample:
        values = {"file": row.file.stem} | dict(row.values)
        question, answer = str(self._needed("question", values)), self._needed("answer", values)
        options, rest = self._options(values, question)
        video, span = self._video(row, values)
        name = self._value("id", values)
        name = str(row.number) if name is None else str(name)
        cluster = self._value("cluster", values)
        meta, texts = self._columns(row.values)
        sample = Sample(
            f"{row.file.stem}/{name}" if self.several else name,
            video,
            rest.strip(),
            answer_of(answer, options, self.fields["answer_as"]),
            tuple(options),
            str(self._cluster(row, video) if cluster is None else cluster),
            row.number,
            span,
            meta,
            texts,
        )
        self.task.check(sample)
        try:
            said = f"{sample.question}{sample.answer}{sample.options}{meta}{texts}"
            f"{sample.id}{sample.cluster}{said}".encode()
        except UnicodeEncodeError:
            raise ProbeError("holds half a character (a lone surrogate)") from None
        return sample

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        """A field of a row; None where it has none, or an empty one."""
        written = self.fields[name]
        for one in written if isinstance(written, list | tuple) else [written]:
            value = _filled(one, values)
            if value is not None and value != "":
                return value
        return None

    def _needed(self, name: str, values: Mapping[str, Any]) -> Any:
        value = self._value(name, values)
        if value is None:
            written = self.fields[name]
            one = written if isinstance(written, str) else " or ".join(written)
            empty = isinstance(written, str) and written in values
            there = "is empty" if empty else f"is missing; there is {', '.join(list(values)[1:])}"
            raise ProbeError(f"{name}: {one} {there}")
        return value

    def _options(self, values: Mapping[str, Any], question: str) -> tuple[list[str], str]:
        """The options, and the question without them."""
        written = self.fields["options"]
        names = [written] if isinstance(written, str) else list(written)
        given = self.fields["options"] is not USUAL["options"]
        columns = [name for name in names if name in values]
        if self.task.kind in ("yesno", "caption"):
            return [], question
        lists = [name for name in columns if not isinstance(values[name], str)]
        if given and len(columns) > 1 and not lists and str(values[columns[-1]]) != question:
            return [str(values[n]).strip() for n in columns if str(values[n]).strip()], question
        for name in columns:
            value = values[name]
            if value is None or value == "":
                continue
            if isinstance(value, str) and value == question:
                before, listed = split_listed(value)
                return listed, before
            return options_of(value), split_listed(question)[0]
        if self.task.kind == "choice":
            raise ProbeError(f"options: {' or '.join(names)} is missing")
        return [], question

    def _video(self, row: Row, values: Mapping[str, Any]) -> tuple[Any, tuple[float, float] | None]:
        """What is shown: the first path of the field that is a file, or an image in the row."""
        written = self.fields["video"]
        names = list(written) if isinstance(written, list | tuple) else [written]
        known = self.fields["folders"].get(row.file.stem, [])
        names = [f"{folder}/{name}" for folder in known for name in names] + names
        root = self._root(row)
        tried: list[Path] = []
        for name in names:
            value = _filled(name, values)
            if isinstance(value, Mapping) and value.get("bytes"):
                return value["bytes"], None
            if isinstance(value, Mapping):
                value = value.get("path")
            if value is None or value == "":
                continue
            if isinstance(value, bytes):
                return value, None
            path = Path(root, Path(str(value)).expanduser())
            if path.is_file():
                return str(path), self._span(values, path)
            tried.append(path)
        if not tried:
            raise ProbeError(f"video: {' or '.join(map(str, names[:3]))} is missing")
        what = "is a folder, not a clip" if tried[0].is_dir() else "no such file"
        raise ProbeError(f"video: {tried[0]}: {what}")

    def _cluster(self, row: Row, video: Any) -> str:
        """Name of a clip that stays when the data set is moved."""
        if isinstance(video, bytes):
            return hashlib.sha256(video).hexdigest()[:16]
        root = self._root(row)
        path = Path(video)
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else video

    def _root(self, row: Row) -> Path:
        """The folder that paths of clips start from."""
        return self.videos or (row.file if row.file.is_dir() else row.file.parent)

    def _span(self, values: Mapping[str, Any], path: Path) -> tuple[float, float] | None:
        start, end = self._value("start", values), self._value("end", values)
        cut = self.fields["cut"]
        if end is None or (cut and path.parent.name.endswith(cut)):
            return None
        try:
            span = float(start or 0), float(end)
        except (TypeError, ValueError):
            raise ProbeError(f"start and end: {start!r} and {end!r} are no seconds") from None
        if not 0 <= span[0] < span[1]:
            raise ProbeError(f"start and end: {span[0]:g} to {span[1]:g} s is no part of a clip")
        return span

    def _columns(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Short columns, which go with the results, and long ones for templates."""
        wanted = self.fields.get("meta")
        used = {self.fields[n] for n in ("question", "answer") if isinstance(self.fields[n], str)}
        used |= {"question", "answer", "text", "label"}
        meta, texts = {}, {}
        for name, value in values.items():
            if isinstance(value, str) and (len(value) > LONG or "\n" in value):
                texts[name] = value
            elif wanted is not None and name not in wanted:
                texts[name] = str(value)
            elif isinstance(value, float) and not math.isfinite(value):
                continue
            elif isinstance(value, str | int | float | bool) and name not in used:
                meta[name] = value
        return meta, texts


def _filled(written: Any, values: Mapping[str, Any]) -> Any:
    """A column, or a template filled from columns; None where one is not there."""
    text = str(written)
    places = _PLACE.findall(text)
    if not places:
        return values.get(text)
    if any(values.get(place) is None for place in places):
        return None
    if text == f"{{{places[0]}}}":
        return values[places[0]]
    return _PLACE.sub(lambda match: str(values[match[1]]), text)
