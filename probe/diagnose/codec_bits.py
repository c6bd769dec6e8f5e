"""CodecBits: does the codec spend its bits where the model's tokens change?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.cells import by_frame
from probe.diagnose.input_cosine import InputCosine
from probe.diagnose.packets import packet_bits
from probe.diagnose.ranks import spearman

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class CodecBits(Diagnosis):
    """Bits of the file between two frames that the model is shown, against what stays in them.

    The definition is ours. Between a temporal group and the next the file has packets: those of
    the frames after the first of the one, up to the last of the other. Their bits are compared
    with the static fraction of `StaticFraction` (places whose cosine is above `tau`) and with the
    mean cosine, by Spearman's rank correlation over the pairs of one clip. Key frames are large
    whatever happens; without them it is the mean bits of an interval's other frames. One forward,
    shared, and the file is read once more, not decoded.

    Attributes:
        tau: cosine above which a place is static.

    Values: bits, bits_inter, static, cosine [pair]. bits_static: Spearman of all bits and the
    static fraction (expected: below 0), bits_inter_static: of bits without key frames;
    bits_cosine, bits_inter_cosine: with the mean cosine; kilobits_per_frame. NaN for clips
    that are not files, and where one side is constant or has fewer than three pairs. A testbed
    item's clip is written again.
    """

    tau: float = 0.8

    def reads(self, case: Case) -> list[Capture]:
        return [InputCosine()]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        cosine = case.of(InputCosine()).values
        static = (cosine > self.tau).mean(-1)
        every, inter = intervals(case, self.kind)
        arrays = {
            "bits": (every, "bit", "bits of the file between the frames"),
            "bits_inter": (inter, "bit", "bits a frame between them, key frames left out"),
            "static": (static, "1", f"share of places whose cosine is above {self.tau:g}"),
            "cosine": (cosine.mean(-1), "1", "cosine of places, mean"),
        }
        pairs = np.arange(len(cosine))
        values: dict[str, float | xr.DataArray] = {
            name: xr.DataArray(
                found, {"pair": pairs}, ["pair"], attrs={"units": units, "description": about}
            )
            for name, (found, units, about) in arrays.items()
        }
        for name, found in (("bits", every), ("bits_inter", inter)):
            values[f"{name}_static"] = _spearman(found, static)
            values[f"{name}_cosine"] = _spearman(found, cosine.mean(-1))
        known = inter[np.isfinite(inter)]
        values["kilobits_per_frame"] = float(known.mean() / 1000) if len(known) else float("nan")
        return values


def intervals(case: Case, owner: str) -> tuple[np.ndarray, np.ndarray]:
    """[pair] of bits, and of mean bits of the frames that are no key frames; NaN without a file."""
    layout, clip = case.x.layout, case.x.clip
    table = by_frame(layout, owner)
    groups = [layout.frames[number] for number in layout.group[table[:, 0]]]
    nothing = np.full(len(groups) - 1, np.nan)
    found = None if clip is None else _bits(case)
    if found is None:
        return nothing, nothing
    bits, key = found
    shown = layout.source_frame
    every, inter = nothing.copy(), nothing.copy()
    for pair, (one, other) in enumerate(pairwise(groups)):
        start, stop = int(shown[one[0]]) + 1, int(shown[other[-1]]) + 1
        if stop < start or stop > len(bits):  # shown in another order, or cut since
            return nothing, nothing
        inside = slice(start, stop)
        every[pair] = bits[inside].sum()
        if (~key[inside]).any():
            inter[pair] = bits[inside][~key[inside]].mean()
    return every, inter


def _bits(case: Case) -> tuple[np.ndarray, np.ndarray] | None:
    clip = case.x.clip
    assert clip is not None
    path = Path(clip.source)
    if path.is_file():
        return packet_bits(path)
    if not hasattr(case.truth, "write"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return packet_bits(case.truth.write(Path(folder) / "clip.mp4"))


def _spearman(bits: np.ndarray, other: np.ndarray) -> float:
    """Over the pairs of which the bits are known."""
    there = np.isfinite(bits)
    return float(spearman(bits[there], other[there]))
