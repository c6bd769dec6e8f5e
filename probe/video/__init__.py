"""A file or an array becomes frames with timestamps."""

from probe.video.clip import Clip
from probe.video.source import read

__all__ = ["Clip", "read"]
