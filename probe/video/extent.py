"""How long a file says it is: the outer boxes of mp4, Matroska and AVI against the file's size."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MP4 = frozenset(
    "ftyp moov mdat free skip wide uuid moof mfra sidx styp meta pdin emsg prft ssix udta".split()
)


def missing_bytes(path: Path) -> int:
    """Bytes that the outer structure declares beyond the file's end; 0 where nothing is missing.

    Formats other than mp4 (and mov), Matroska (and WebM) and AVI declare no size: 0.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8].decode("latin-1") in _MP4:
            end = _mp4_end(file, size)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _matroska_end(file)
        elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            end = _avi_end(file, size)
        else:
            end = 0
    return max(0, end - size)


def _mp4_end(file: BinaryIO, size: int) -> int:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8].decode("latin-1")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if kind not in _MP4 or length < 8:  # junk at the end, or a box that runs to the end
            break
        position += length
    return position


def _matroska_end(file: BinaryIO) -> int:
    _element(file)
    length = _number(file, keep_marker=False)
    file.seek(length or 0, 1)
    if _element(file) != 0x18538067:  # Segment
        return 0
    length = _number(file, keep_marker=False)
    return 0 if length is None else file.tell() + length


def _element(file: BinaryIO) -> int | None:
    return _number(file, keep_marker=True)


def _number(file: BinaryIO, keep_marker: bool) -> int | None:
    """A variable-length number of EBML; None for "unknown", as live recordings have."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big")
    if keep_marker:
        return value
    value &= (1 << 7 * width) - 1
    return None if value == (1 << 7 * width) - 1 else value


def _avi_end(file: BinaryIO, size: int) -> int:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            break
        position += 8 + length + length % 2
    return position
