"""What an importance map is: one number for each video token of a case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from probe.diagnose.base import Diagnosis, Values
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case

EACH = "each"
Which = int | str | None
"""The number of a layer or head, "each" for one map of each, None for the mean of all."""


@dataclass(frozen=True)
class ImportanceMap(Diagnosis):
    """Base of all maps. Implement `scores`, and `reads` for what it reads of the untouched run.

    As a diagnosis it gives the map itself: `map` [position], labelled with the positions of the
    video tokens. Paint it onto the frames with `painted`.
    """

    section: ClassVar[str] = "importance"

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        """One number per video token, in the order of `case.video_tokens`; higher is more
        important.
        """
        raise NotImplementedError(f"{self.kind} has no scores()")

    def each(self, case: Case) -> tuple[ImportanceMap, ...]:
        """The single maps that it stands for: those of all layers where its layer is "each"."""
        return (self,)

    def measure(self, case: Case) -> Values:
        import xarray as xr

        attrs = {"description": f"importance of each video token by {self}"}
        coords = {"position": case.video_tokens}
        return {"map": xr.DataArray(self.scores(case), coords, ["position"], attrs=attrs)}

    def painted(self, case: Case, clip: int = 0) -> Float[np.ndarray, "time height width"]:
        """The map on the pixels of a clip, NaN where there is no token."""
        full = np.full(len(case.x.layout), np.nan)
        full[case.video_tokens] = self.scores(case)
        return case.x.layout.paint(full, clip=clip)


def single(maps: Iterable[ImportanceMap], case: Case) -> tuple[ImportanceMap, ...]:
    """Every single map that some stand for, without doubles, in their order."""
    return tuple(dict.fromkeys(one for many in maps for one in many.each(case)))


def pick(owner: Any, values: np.ndarray, layer: Which, head: Which = None) -> np.ndarray:
    """One map of [layer, token] or [layer, head, token], the mean over what is None.

    Raises:
        ProbeError: a layer or head that the model does not have.
    """
    for name, which in (("layer", layer), ("head", head)):
        if which == EACH:
            raise ProbeError(f'{owner}: {name}="each" is one map of each; name one of them')
        count = values.shape[0]
        if which is not None and (not isinstance(which, int) or not 0 <= which < count):
            raise ProbeError(f"{owner}: {name} {which!r}; the model has {name}s 0 to {count - 1}")
        if name == "head" and values.ndim == 1:
            continue
        values = values.mean(0) if which is None else values[which]
    return values.astype(np.float64)


def numbers(which: Which, count: int) -> list[Which]:
    """The single ones that "each" stands for."""
    return list(range(count)) if which == EACH else [which]
