"""The selection grammar: words such as "frames 2-5 & video" become positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.layout import Layout

Selection = str | int | Sequence[int] | np.ndarray
Edge = str | tuple[Selection, Selection]
Edges = Edge | Sequence[Edge]
Partition = str | Sequence[str]

_VISUAL = ("video", "newline", "image")
_NUMBER = r"\d+(?:\.\d+)?"


def select(layout: Layout, what: Selection) -> np.ndarray:
    """Positions named by a selection; see `Layout.select`."""
    if not isinstance(what, str):
        found = np.unique(np.atleast_1d(np.asarray(what, dtype=np.int64)))
        if found.size == 0 or found[0] < 0 or found[-1] >= len(layout):
            raise ProbeError(f"selection {what!r}: positions are 0 to {len(layout) - 1}")
        return found
    pieces = re.split(r"\s+([+&-])\s+", what.strip())
    found = _term(layout, pieces[0])
    for operator, term in zip(pieces[1::2], pieces[2::2], strict=True):
        other = _term(layout, term)
        combine = {"+": np.union1d, "&": np.intersect1d, "-": np.setdiff1d}[operator]
        found = combine(found, other)
    if found.size == 0:
        raise ProbeError(f'selection "{what}" has no token; {_labels(layout)}')
    return np.sort(found).astype(np.int64)


def edges(layout: Layout, spec: Edges) -> list[tuple[np.ndarray, np.ndarray]]:
    """Source and destination positions of each edge; see `Layout.edges`."""
    single = isinstance(spec, str) or (
        isinstance(spec, tuple) and len(spec) == 2 and not any("->" in str(end) for end in spec)
    )
    found = []
    for edge in [spec] if single else list(spec):
        ends = re.split(r"\s*->\s*", edge.strip()) if isinstance(edge, str) else list(edge)
        if len(ends) != 2:
            raise ProbeError(f'edge "{edge}": write it as "video -> question"')
        source = select(layout, ends[0])
        into = "readout" if ends[1] == "answer" else ends[1]
        destination = select(layout, into)
        if source[0] > destination[-1]:
            raise ProbeError(f'edge "{edge}" selects nothing: its source comes after its end')
        found.append((source, destination))
    return found


def partition(layout: Layout, by: Partition) -> dict[str, np.ndarray]:
    """Labelled groups of positions; see `Layout.partition`."""
    if not isinstance(by, str):
        return {label: select(layout, label) for label in by}
    if by == "tokens":
        return {f"token {p}": np.array([p]) for p in range(len(layout))}
    roles = dict.fromkeys(layout.role.tolist())
    if by == "text":
        groups = {r: np.flatnonzero(layout.role == r) for r in roles if r not in _VISUAL}
        return groups | {"last": np.array([layout.last])}
    if by == "roles":
        return {role: np.flatnonzero(layout.role == role) for role in roles}
    if by == "frames":
        groups = {}
        for role in roles:
            here = layout.role == role
            if role == "video":
                for number, label in enumerate(layout.groups):
                    groups[label] = np.flatnonzero(here & (layout.group == number))
            else:
                groups[role] = np.flatnonzero(here)
        return groups
    return {by: select(layout, by)}


def _term(layout: Layout, term: str) -> np.ndarray:
    if term in layout.role:
        return np.flatnonzero(layout.role == term)
    if term == "all":
        return np.arange(len(layout))
    if term == "text":
        return np.flatnonzero(~np.isin(layout.role, _VISUAL))
    if term == "options":
        return np.flatnonzero(np.char.startswith(layout.role.astype(str), "option "))
    if term == "last":
        return np.array([layout.last])
    if term == "readout":
        return layout.readout
    if match := re.fullmatch(r"tokens? (\d+)(?:-(\d+))?", term):
        first, final = int(match[1]), int(match[2] or match[1])
        if first > final or final >= len(layout):
            raise ProbeError(f'"{term}": positions are 0 to {len(layout) - 1}')
        return np.arange(first, final + 1)
    if match := re.fullmatch(r"frames? (\d+)(?:-(\d+))?", term):
        return _frames(layout, term, int(match[1]), int(match[2] or match[1]))
    if match := re.fullmatch(rf"seconds ({_NUMBER})-({_NUMBER})", term):
        return _seconds(layout, float(match[1]), float(match[2]))
    box = rf"box ({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER})(?: (frames? .+))?"
    if match := re.fullmatch(box, term):
        inside = _box(layout, *(float(match[i]) for i in range(1, 5)))
        return np.intersect1d(inside, _term(layout, match[5])) if match[5] else inside
    raise ProbeError(f'selection "{term}" is not known; {_labels(layout)}')


def _frames(layout: Layout, term: str, first: int, final: int) -> np.ndarray:
    count = len(layout.seconds)
    if layout.video is None or first > final or final >= count:
        there = f"frames 0 to {count - 1}" if count else "no frames"
        raise ProbeError(f'"{term}": the model was given {there}')
    groups = [g for g, f in enumerate(layout.video.frames) if f[-1] >= first and f[0] <= final]
    return np.flatnonzero(np.isin(layout.group, groups) & (layout.role == "video"))


def _seconds(layout: Layout, start: float, end: float) -> np.ndarray:
    inside = np.flatnonzero((layout.seconds < end) & (layout.ends > start))
    if layout.video is None or not inside.size:
        return np.zeros(0, np.int64)
    groups = [g for g, f in enumerate(layout.video.frames) if np.isin(f, inside).any()]
    return np.flatnonzero(np.isin(layout.group, groups) & (layout.role == "video"))


def _box(layout: Layout, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    if layout.video is None:
        return np.zeros(0, np.int64)
    height, width = layout.frame_size
    rows, cols = layout.video.row_edges * height, layout.video.col_edges * width
    hit_rows = np.flatnonzero((rows[:, 0] < y1) & (rows[:, 1] > y0))
    hit_cols = np.flatnonzero((cols[:, 0] < x1) & (cols[:, 1] > x0))
    return np.flatnonzero(np.isin(layout.row, hit_rows) & np.isin(layout.col, hit_cols))


def _labels(layout: Layout) -> str:
    roles = ", ".join(dict.fromkeys(layout.role.tolist()))
    frames = len(layout.seconds)
    more = f", frame 0 to frame {frames - 1}" if frames else ""
    return f"there are {roles}, text, all, last, readout, token 0 to token {len(layout) - 1}{more}"
