"""What a user gives as visual input becomes clips and pictures, and a prompt a list of turns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from probe.errors import ProbeError
from probe.video import Clip, read

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, eq=False)
class Picture:
    """A still image.

    Attributes:
        pixels: RGB, [height, width, 3].
        source: path of the file, or "array".
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    source: str = "array"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: "system", "user" or "assistant".
        parts: texts, clips and pictures in order.
    """

    role: str
    parts: tuple[str | Clip | Picture, ...]


def visual(given: Any, **how: Any) -> Clip | Picture:
    """A clip or a picture from a path, an array, a PIL image, or what is one already.

    Args:
        given: path of a video or of an image (by its ending), uint8 array [time, height, width, 3]
            or [height, width, 3], PIL image, `Clip` or `Picture`.
        how: passed to `probe.read_video` for clips.

    Raises:
        ProbeError: a file that is no video or image.
    """
    if isinstance(given, Clip | Picture):
        return given
    if isinstance(given, str | os.PathLike) and Path(given).suffix.lower() in PICTURES:
        return _picture_file(Path(given))
    convert: Any = getattr(given, "convert", None)
    if convert is not None:  # a PIL image
        return Picture(np.array(convert("RGB")))
    if not isinstance(given, str | os.PathLike) and getattr(given, "ndim", 4) == 3:
        pixels = np.asarray(given)
        if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
            raise ProbeError(
                f"an image must be uint8 [height, width, 3], not {pixels.dtype} of shape "
                f"{list(pixels.shape)}"
            )
        return Picture(pixels)
    return read(given, **how)


def turns(messages: Sequence[Mapping[str, Any]], **how: Any) -> list[Turn]:
    """Turns from messages in the form that chat templates use.

    Args:
        messages: [{"role": "user", "content": [{"type": "video", "video": ...}, {"type": "image",
            "image": ...}, {"type": "text", "text": "..."}]}, ...]; content may be a string.
        how: passed to `probe.read_video`.

    Raises:
        ProbeError: a message of another form.
    """
    made = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant") or content is None:
            raise ProbeError(
                f"message {dict(message)!r:.80}: write role (system, user, assistant) and content"
            )
        parts = [content] if isinstance(content, str) else content
        made.append(Turn(role, tuple(_part(part, how) for part in parts)))
    return made


def _part(part: Any, how: dict[str, Any]) -> str | Clip | Picture:
    if isinstance(part, str):
        return part.strip()
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "video", "image") or kind not in part:
        raise ProbeError(
            f'part {part!r:.80}: write {{"type": "text", "text": ...}}, or "video" or "image" '
            "in the same way"
        )
    return str(part["text"]).strip() if kind == "text" else visual(part[kind], **how)


def _picture_file(path: Path) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return Picture(np.array(image.convert("RGB")), str(path))
    except FileNotFoundError:
        raise ProbeError(f"{path}: no such file") from None
    except (OSError, UnidentifiedImageError):
        raise ProbeError(f"{path}: cannot be read as an image") from None
