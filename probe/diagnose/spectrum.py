"""Spectrum: are visual tokens smooth enough to be stored with half the frequencies?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.cells import by_frame, grid
from probe.diagnose.spectrum_energy import VideoSpectrum, half

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class Spectrum(Diagnosis):
    """Part of the DCT energy of visual tokens in the low half of the frequencies, by layer.

    Fourier-VLM keeps the low frequencies of each frame's grid of tokens, for which they should
    hold most of the energy. The mean of a frame (DC) is left out, since it holds most of it
    whatever the rest is. White noise then has (h'w' - 1) / (hw - 1) in a block of h' x w' of
    h x w frequencies: .229 for 3 x 3 of 6 x 6, and .25 only for large grids. The axis of time is
    an extra of ours, with (t' - 1) / (t - 1). One forward, shared; sums are made on the way.

    Values: spectrum [layer, axis, statistic], see `VideoSpectrum`. For space (low_fraction...)
    and time (time_low_fraction...): ..._first at layer 0, ..._mean over layers, both of all
    channels together; white_noise, time_white_noise: what noise has; over_white,
    time_over_white: mean minus that (expected: well above 0). NaN where an axis has no two
    frequencies, or tokens have no grid.
    """

    source: ClassVar[str] = "Fourier-VLM (spectrum of visual tokens)"

    def reads(self, case: Case) -> list[Capture]:
        return [VideoSpectrum()]

    def measure(self, case: Case) -> Values:
        layout = case.x.layout
        found = case.of(VideoSpectrum())
        cells = grid(layout, self.kind)
        frames = len(by_frame(layout, self.kind))
        noise = {"space": float("nan"), "time": white_noise(frames)}
        if cells is not None:
            noise["space"] = white_noise(*cells.shape[1:])
        values: dict[str, object] = {"spectrum": found}
        for axis, prefix in (("space", ""), ("time", "time_")):
            line = found.sel(axis=axis, statistic="pooled").values
            mean = float(line.mean())
            values |= {
                f"{prefix}low_fraction_first": float(line[0]),
                f"{prefix}low_fraction_mean": mean,
                f"{prefix}white_noise": noise[axis],
                f"{prefix}over_white": mean - noise[axis],
            }
        return values  # type: ignore[return-value]


def white_noise(*sides: int) -> float:
    """Expected part of the energy of white noise in the low block, DC left out; NaN where there is
    nothing but DC.
    """
    low, total = 1, 1
    for side in sides:
        low, total = low * half(side), total * side
    return (low - 1) / (total - 1) if total > 1 else float("nan")
