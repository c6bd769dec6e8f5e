"""Clip: the frames a model is shown, when each is on screen, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from probe.errors import ProbeError


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames in the order a model sees them.

    Attributes:
        frames: RGB, [time, height, width, 3].
        seconds: when each frame is shown, on the clock of its file; never decreasing.
        source_frames: number of each frame in its source, from 0.
        fps: frames a second in the source, on average.
        source: path of the file, or "array".
        duration: seconds that the source lasts.
        note: what a reader should know about how the frames were taken, or None.

    Raises:
        ProbeError: no frames, or frames, seconds and source_frames that do not fit each other.
    """

    frames: UInt8[np.ndarray, "time height width 3"]
    seconds: Float64[np.ndarray, " time"]
    source_frames: Int64[np.ndarray, " time"]
    fps: float
    source: str
    duration: float
    note: str | None = None

    def __post_init__(self) -> None:
        shape = tuple(np.shape(self.frames))
        if len(shape) != 4 or shape[3] != 3 or self.frames.dtype != np.uint8:
            raise ProbeError(
                f"{self.source}: frames must be uint8 of shape [time, height, width, 3], "
                f"not {self.frames.dtype} of shape {list(shape)}"
            )
        if 0 in shape:
            raise ProbeError(f"{self.source}: holds no frames (shape {list(shape)})")
        if not len(self.seconds) == len(self.source_frames) == shape[0]:
            raise ProbeError(
                f"{self.source}: {shape[0]} frames need as many seconds and source_frames, "
                f"not {len(self.seconds)} and {len(self.source_frames)}"
            )
        if not np.isfinite(self.seconds).all() or (np.diff(self.seconds) < 0).any():
            raise ProbeError(f"{self.source}: seconds must be finite and never decrease")

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def from_array(
        cls,
        array: Any,
        seconds: Sequence[float] | np.ndarray | None = None,
        fps: float | None = None,
        source: str = "array",
    ) -> Clip:
        """A clip of all frames of an array; a numpy array is not copied.

        Args:
            array: numpy array or torch tensor, uint8, [time, height, width, 3], RGB.
            seconds: when each frame is shown; increasing.
            fps: frames a second, where `seconds` is not given; 1 if neither is, and the note
                says so.
            source: name for messages.

        Raises:
            ProbeError: wrong shape or dtype, or seconds that do not fit.
        """
        frames = _as_numpy(array, source)
        count = len(frames)
        note = None
        if seconds is not None and fps is not None:
            raise ProbeError(f"{source}: give seconds or fps, not both")
        if seconds is None:
            if fps is not None and not (np.isfinite(fps) and fps > 0):
                raise ProbeError(f"{source}: fps must be above 0, not {fps}")
            note = None if fps else "no times given: one frame a second is assumed"
            rate = float(fps or 1.0)
            shown = np.arange(count) / rate
        else:
            shown = np.asarray(seconds, dtype=np.float64).reshape(-1)
            if len(shown) != count:
                raise ProbeError(f"{source}: {count} frames but {len(shown)} seconds")
            if (np.diff(shown) <= 0).any():
                raise ProbeError(f"{source}: seconds must increase from frame to frame")
            rate = (count - 1) / float(shown[-1] - shown[0]) if count > 1 else 1.0
        step = float(np.median(np.diff(shown))) if count > 1 else 1.0 / rate
        return cls(
            frames=frames,
            seconds=shown,
            source_frames=np.arange(count),
            fps=rate,
            source=source,
            duration=float(shown[-1] - shown[0]) + step if count else 0.0,
            note=note,
        )

    def take(self, frames: Sequence[int] | np.ndarray, note: str | None = None) -> Clip:
        """The clip of these frames, each at its own time.

        Args:
            frames: numbers from 0, in increasing order.
            note: added to the clip's note.
        """
        index = np.asarray(frames, dtype=np.int64)
        return replace(
            self,
            frames=self.frames[index],
            seconds=self.seconds[index],
            source_frames=self.source_frames[index],
            note=join(self.note, note),
        )


def join(*notes: str | None) -> str | None:
    """Notes as one line, or None where there are none."""
    return "; ".join(note for note in notes if note) or None


def _as_numpy(array: Any, source: str) -> np.ndarray:
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    if not isinstance(array, np.ndarray):
        raise ProbeError(
            f"{source}: a video is a path or an array [time, height, width, 3] of uint8, "
            f"not {type(array).__name__}"
        )
    if array.ndim == 4 and array.shape[3] != 3 and array.shape[1] == 3:
        raise ProbeError(
            f"{source}: frames are [time, 3, height, width]; move the colours to the end, "
            "[time, height, width, 3]"
        )
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise ProbeError(
            f"{source}: frames must be uint8 of shape [time, height, width, 3], "
            f"not {array.dtype} of shape {list(array.shape)}"
        )
    return array
