"""Position ids made anew for a whole sequence: maps from ids to ids that look back only.

All work on ids [axis, position] of a sequence and on its layout, and give every position a value
that depends on earlier positions alone, so that a token generated later changes none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from probe.engine.rotary import has_axes
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.anatomy import Anatomy
    from probe.models.layout import Layout

AXES = ("time", "row", "col")


def axis_number(model: Anatomy, axis: str | None, owner: str) -> int | None:
    """Number of an axis of rotary positions; None for all of them.

    Raises:
        ProbeError: an unknown axis, or a model whose positions have one only.
    """
    if axis is None:
        return None
    if axis not in AXES:
        raise ProbeError(f'{owner}: axis="{axis}"; there are {", ".join(AXES)}')
    if not has_axes(model):
        raise ProbeError(
            f'{owner}: axis="{axis}": the rotary positions of {model.name} have one axis; '
            "leave axis out"
        )
    return AXES.index(axis)


def frame_of(layout: Layout) -> Int[np.ndarray, " position"]:
    """Number of the frame or image that each position is part of, in the order of the prompt;
    -1 for text, timestamps, and what stands between frames.
    """
    inside = (layout.group >= 0) & (layout.role != "timestamp") | (layout.role == "image")
    keys = np.stack([layout.visual, layout.group], 1)[inside]
    found = np.full(len(layout), -1)
    if len(keys):
        _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        found[inside] = np.argsort(np.argsort(first))[number.reshape(-1)]
    return found


def time_index(layout: Layout) -> Int[np.ndarray, " position"]:
    """The time index of dual rotary positions: tokens of a frame share one, text counts on."""
    frame = frame_of(layout)
    inside = frame >= 0
    known, first, number = np.unique(frame, return_index=True, return_inverse=True)
    starts = ~inside
    starts[first[known >= 0]] = True
    time = np.cumsum(starts) - 1
    return np.where(inside, time[first][number.reshape(-1)], time)


def compressed(
    ids: Float[np.ndarray, "axis position"], layout: Layout, factor: float
) -> Float[np.ndarray, "axis position"]:
    """A run of visual tokens takes 1 / factor of the positions up to the text behind it.

    On one axis each visual token advances by 1 / factor (V2PE, arXiv 2412.09616).
    """
    visual = frame_of(layout) >= 0
    new = ids.copy()
    was = now = ids[:, 0].max() - 1  # id of the last text token, as given and as made
    for part in _runs(visual):
        here = ids[:, part]
        if visual[part[0]]:
            new[:, part] = now + (here - was) / factor
            continue
        first = here[:, 0].max()
        start = now + (first - 1 - was) / (factor if part[0] else 1) + 1
        new[:, part] = start + here - first
        was, now = here.max(), start + here.max() - first
    return new


def contiguous(ids: Float[np.ndarray, "axis position"]) -> Float[np.ndarray, "axis position"]:
    """One up for every token on all axes, from the first one's."""
    return np.broadcast_to(ids[:, 0].max() + np.arange(ids.shape[1]), ids.shape).copy()


def constant(
    ids: Float[np.ndarray, "axis position"], chosen: np.ndarray, axis: int | None
) -> Float[np.ndarray, "axis position"]:
    """Every run of chosen positions [position] of bool has the id of its first one, on an axis or
    on all.
    """
    new = ids.copy()
    which = slice(None) if axis is None else slice(axis, axis + 1)
    for part in _runs(chosen):
        if chosen[part[0]]:
            new[which, part[0] : part[-1] + 1] = ids[which, part[0], None]
    return new


def _runs(flags: np.ndarray) -> list[np.ndarray]:
    cuts = np.flatnonzero(np.diff(flags.astype(int))) + 1
    return [part for part in np.split(np.arange(len(flags)), cuts) if len(part)]
