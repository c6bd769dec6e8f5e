"""Turning a stored frame the way it is to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from av import VideoFrame

Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)


def orientation(frame: VideoFrame, metadata: Mapping[str, str]) -> Matrix:
    """(a, b, c, d) of the display matrix: stored (x, y) is shown at (ax + cy, bx + dy).

    From the frame's display matrix; failing that, from the stream's old "rotate" tag. Angles
    between quarter turns go to the nearest.

    Args:
        frame: decoded.
        metadata: tags of its stream.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
        return _nearest(a, b, c, d)
    try:
        turns = round(float(metadata.get("rotate", metadata.get("ROTATE", 0))) / 90) % 4
    except (ValueError, OverflowError):
        return UPRIGHT
    return [UPRIGHT, (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)][turns]  # clockwise


def turn(
    image: UInt8[np.ndarray, "height width 3"], matrix: Matrix
) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """The image as shown: quarter turns and mirrors, no interpolation."""
    a, b, c, d = matrix
    if a or d:
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _nearest(a: int, b: int, c: int, d: int) -> Matrix:
    if not any((a, b, c, d)):
        return UPRIGHT
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (_sign(a), 0, 0, _sign(d))
    return (0, _sign(b), _sign(c), 0)


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
