"""How many bits a codec spends on each frame of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from probe.errors import ProbeError
from probe.video.container import opened


def packet_bits(
    path: Path, stream: int | None = None
) -> tuple[Int64[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """Size of each frame's packet in the order frames are shown, and whether it is a key frame.

    Args:
        path: a video file.
        stream: number of its stream; the best one by default.

    Raises:
        ProbeError: not a video; packets that do not tell when they are shown.
    """
    with opened(path, stream) as (container, video):
        found = [
            (packet.pts, 8 * packet.size, packet.is_keyframe)
            for packet in container.demux(video)
            if packet.size and not packet.is_corrupt and not packet.is_discard
        ]
    times = [pts for pts, _, _ in found]
    if not found or None in times or len(set(times)) < len(times):
        raise ProbeError(f"{path}: its packets do not tell when they are shown; convert it to mp4")
    found.sort()
    return (
        np.array([bits for _, bits, _ in found], dtype=np.int64),
        np.array([key for _, _, key in found], dtype=bool),
    )
