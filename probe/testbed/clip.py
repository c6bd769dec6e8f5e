"""Frames become a real H.264 file."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_clip(path: str | Path, frames: np.ndarray, fps: int = 8) -> Path:
    """Write frames as an mp4 that any player reads. Equal frames give an equal file.

    Args:
        path: where; its folder must exist.
        frames: uint8 [time, height, width, 3], height and width even.
        fps: frames a second.
    """
    import av

    frames = np.ascontiguousarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError("frames must be uint8 [time, height, width, 3], one or more")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError("height and width must be even")
    path = Path(path)
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # x264's macroblock tree reads memory it has not written: other files for equal frames.
        stream.options = {
            "crf": "12", "preset": "fast", "threads": "1", "x264-params": "mbtree=0",
        }  # fmt: skip
        stream.thread_count = 1
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return path
