"""The selection grammar: words such as "frames 2-5 & video" become positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.layout import Layout

Selection = str | int | Sequence[int] | np.ndarray
Edge = str | tuple[Selection, Selection]
Edges = Edge | Sequence[Edge]
Partition = str | Sequence[str]

_VISUAL = ("video", "newline", "cls", "image", "timestamp", "separator", "summary")
_OF_A_CLIP = r"video|timestamp|(?:video|frames?|seconds) .*"
_VISUALS = r"newline|cls|image|separator|summary|(?:image|box) .*"
_NEAR = 1e-6  # pixels: edges are fractions of a side, and rounded
_NUMBER = r"\d+(?:\.\d+)?"


class NoClip(ProbeError):
    """Visual tokens are selected in a prompt without a clip; ablations of them are neutral."""


def select(layout: Layout, what: Selection) -> np.ndarray:
    """Positions named by a selection; see `Layout.select`."""
    if not isinstance(what, str):
        found = np.unique(np.asarray(what))
        whole = found.size and found.dtype.kind in "iu"
        if not whole or found[0] < 0 or found[-1] >= len(layout):
            raise ProbeError(f"selection {what!r}: positions are 0 to {len(layout) - 1}")
        return found.astype(np.int64)
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
    if not isinstance(spec, str | list | tuple):
        raise ProbeError(f'edges {spec!r}: write them as "video -> question"')
    found = []
    for edge in [spec] if _is_edge(spec) else list(spec):
        ends: Any = re.split(r"\s*->\s*", edge.strip()) if isinstance(edge, str) else edge
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise ProbeError(f'edge "{edge}": write it as "video -> question"')
        into = "readout" if isinstance(ends[1], str) and ends[1] == "answer" else ends[1]
        try:
            source, destination = select(layout, ends[0]), select(layout, into)
        except NoClip:
            continue
        if source[0] > destination[-1]:
            raise ProbeError(f'edge "{edge}" selects nothing: its source comes after its end')
        found.append((source, destination))
    return found


def _is_edge(spec: Edges) -> bool:
    """One edge, and not a list of them: a string, or a pair of ends."""
    if isinstance(spec, str):
        return True
    return len(spec) == 2 and not any(
        (isinstance(end, tuple | list) and any(isinstance(part, str) for part in end))
        or (isinstance(end, str) and "->" in end)
        for end in spec
    )


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
    if not layout.clips and re.fullmatch(_OF_A_CLIP, term):
        raise NoClip(f'selection "{term}": this prompt has no clip; {_labels(layout)}')
    if not layout.visuals:
        wrong = NoClip if re.fullmatch(_VISUALS, term) else ProbeError
        raise wrong(f'selection "{term}": this prompt has no clip; {_labels(layout)}')
    if match := re.fullmatch(r"(video|image) (\d+)", term):
        return _visual(layout, term)
    if match := re.fullmatch(r"frames? (\d+)(?:-(\d+))?", term):
        return _frames(layout, term, int(match[1]), int(match[2] or match[1]))
    if match := re.fullmatch(rf"seconds ({_NUMBER})-({_NUMBER})", term):
        return _seconds(layout, float(match[1]), float(match[2]))
    box = rf"box ({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER})(?: (.+))?"
    if match := re.fullmatch(box, term):
        inside = _box(layout, *(float(match[i]) for i in range(1, 5)))
        return np.intersect1d(inside, _term(layout, match[5])) if match[5] else inside
    raise ProbeError(f'selection "{term}" is not known; {_labels(layout)}')


def _visual(layout: Layout, term: str) -> np.ndarray:
    for number, visual in enumerate(layout.visuals):
        if visual.label == term:
            here = (layout.visual == number) & (layout.role == visual.kind)
            return np.flatnonzero(here)
    there = ", ".join(visual.label for visual in layout.visuals)
    raise ProbeError(f'selection "{term}": this prompt has {there}')


def _frames(layout: Layout, term: str, first: int, final: int) -> np.ndarray:
    count = len(layout.seconds)
    if first > final or final >= count:
        raise ProbeError(f'"{term}": the model was given frames 0 to {count - 1}')
    groups = [g for g, f in enumerate(layout.frames) if f[-1] >= first and f[0] <= final]
    return np.flatnonzero(np.isin(layout.group, groups) & (layout.role == "video"))


def _seconds(layout: Layout, start: float, end: float) -> np.ndarray:
    shown = (layout.seconds < end) & (layout.ends > start) | (layout.seconds == start)
    groups = [g for g, f in enumerate(layout.frames) if shown[list(f)].any()]
    return np.flatnonzero(np.isin(layout.group, groups) & (layout.role == "video"))


def _box(layout: Layout, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    inside = np.zeros(len(layout), bool)
    if not any(visual.cells for visual in layout.visuals):
        raise ProbeError('"box": the visual tokens of this family have no place in the frame')
    for number, visual in enumerate(layout.visuals):
        if visual.grid is None or visual.cells is None:
            continue
        height, width = visual.size
        rows, cols = visual.grid.row_edges * height, visual.grid.col_edges * width
        hit_rows = np.flatnonzero((rows[:, 0] < y1 - _NEAR) & (rows[:, 1] > y0 + _NEAR))
        hit_cols = np.flatnonzero((cols[:, 0] < x1 - _NEAR) & (cols[:, 1] > x0 + _NEAR))
        hit = np.isin(layout.row, hit_rows) & np.isin(layout.col, hit_cols)
        inside |= hit & (layout.visual == number)
    return np.flatnonzero(inside)


def _labels(layout: Layout) -> str:
    roles = ", ".join(dict.fromkeys(layout.role.tolist()))
    frames = len(layout.seconds)
    more = f", frame 0 to frame {frames - 1}" if frames else ""
    return f"there are {roles}, text, all, last, readout, token 0 to token {len(layout) - 1}{more}"
