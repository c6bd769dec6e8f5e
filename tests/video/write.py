"""Small files for the tests: every frame carries its number, readable after lossy coding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SIZE = 64  # height; the width is twice this
BITS = 10


def stamped(number: int) -> np.ndarray:
    """A frame whose number stands in it as a row of black and white blocks."""
    image = np.full((SIZE, 2 * SIZE, 3), 90, np.uint8)
    for bit in range(BITS):
        image[16:32, 10 * bit : 10 * bit + 10] = 255 * (number >> bit & 1)
    return image


def number_of(image: np.ndarray) -> int:
    """The number that `stamped` wrote."""
    blocks = [image[20:28, 10 * bit + 3 : 10 * bit + 7].mean() > 128 for bit in range(BITS)]
    return sum(int(white) << bit for bit, white in enumerate(blocks))


def numbers_of(images: np.ndarray) -> list[int]:
    """The numbers of all frames of a clip."""
    return [number_of(image) for image in images]


def write(
    path: Path,
    images: Sequence[np.ndarray] | int = 30,
    *,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    turn: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write frames (or that many stamped ones) at 25 a second, or at `ticks` in milliseconds."""
    if isinstance(images, int):
        images = [stamped(number) for number in range(images)]
    base = Fraction(1, 25) if ticks is None else Fraction(1, 1000)
    with av.open(str(path), "w", options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.options = options or {}
        stream.time_base = stream.codec_context.time_base = base
        stream.metadata.update(tags or {})
        if turn:
            stream.set_display_rotation(**turn)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if ticks is None else ticks[number]
            frame.time_base = base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_sound(path: Path, picture: bool = False) -> Path:
    """Write a second of silence, with a cover picture if asked."""
    with av.open(str(path), "w") as out:
        if picture:
            cover: Any = out.add_stream("png", rate=1)
            cover.height, cover.width, cover.pix_fmt = SIZE, SIZE, "rgb24"
            cover.disposition = av.stream.Disposition.attached_pic
        sound: Any = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        frame.pts = 0
        if picture:
            image = av.VideoFrame.from_ndarray(np.zeros((SIZE, SIZE, 3), np.uint8), format="rgb24")
            image.pts = 0
            out.mux(cover.encode(image))
            out.mux(cover.encode())
        out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """The beginning of a file, as a copy."""
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short
