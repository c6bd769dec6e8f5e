"""Sample: one row of a study's data: what is shown, what is asked, and what is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample. Readers make them; see `Study.load`.

    Attributes:
        id: its name, unique in the study.
        video: path of a clip or an image, the bytes of an image file, or a testbed `Item`.
        question: what is asked, before the task's template.
        answer: the right answer; where there are options, the text of the right one.
        options: the choices, without letters in front.
        cluster: the video that samples share; intervals resample these.
        row: number of its row in the file, the first is 1.
        span: first and last second of the clip that are shown; None for all of it.
        meta: further columns of the row, such as its type; they are written with the results.
        texts: long columns, such as subtitles, for templates alone.
    """

    id: str
    video: Any
    question: str
    answer: str
    options: tuple[str, ...] = ()
    cluster: str = ""
    row: int = 0
    span: tuple[float, float] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that its results depend on: texts, and the content of the clip.

        Of a file its content counts, not its name or its date, so that a data set may be moved.
        """
        plain = [self.id, self.question, self.answer, list(self.options), self.cluster]
        plain += [dict(self.meta), dict(self.texts), self.span]
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(text.encode() + _content(self.video)).hexdigest()


def _content(video: Any) -> bytes:
    if isinstance(video, bytes):
        return hashlib.sha256(video).digest()
    if not isinstance(video, str | Path):
        return repr(video).encode()
    from probe.study.fingerprint import file

    return file(video).encode()
