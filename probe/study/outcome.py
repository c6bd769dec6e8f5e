"""One sample on one model: its cells measured together, or one by one where that fails."""

from __future__ import annotations

import gc
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.models.video_model import VideoModel
    from probe.study.cell import Cell
    from probe.study.measure import Measured
    from probe.study.sample import Sample
    from probe.study.spec import Study

LARGEST = 200_000  # numbers in an array that goes into a line of results


@dataclass(frozen=True)
class Outcome:
    """What one cell gave.

    Attributes:
        values: numbers and texts by name.
        arrays: small arrays by name.
        error: one line, where it failed.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, xr.DataArray] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes null."""
        arrays = {name: _array(one) for name, one in self.arrays.items()}
        values = {name: _plain(one) for name, one in self.values.items()}
        return {"values": values, "arrays": arrays, "error": self.error}


def outcomes(
    study: Study, model: VideoModel, sample: Sample, cells: Sequence[Cell]
) -> list[Outcome]:
    """Outcomes of some cells of one sample, in their order.

    All are measured together. Where that fails, for memory or for anything else, each is measured
    alone, and the error of those that fail again is their outcome.
    """
    try:
        return _together(study, model, sample, cells)
    except Exception as error:
        if len(cells) == 1:
            return [Outcome(error=line(error))]
        _free(error)
    try:  # what cannot be encoded fails for all cells alike
        study.task.case(model, sample, study.frames, study.seed)
    except Exception as error:
        return [Outcome(error=line(error))] * len(cells)
    found = []
    for cell in cells:
        try:
            found += _together(study, model, sample, [cell])
        except Exception as error:
            found.append(Outcome(error=line(error)))
            _free(error)
    return found


def _together(
    study: Study, model: VideoModel, sample: Sample, cells: Sequence[Cell]
) -> list[Outcome]:
    from probe.study.measure import measure

    case = study.task.case(model, sample, study.frames, study.seed)
    return [_outcome(one) for one in measure(study, sample, case, cells)]


def _outcome(one: Measured | Exception) -> Outcome:
    if isinstance(one, Exception):
        return Outcome(error=line(one))
    large = next((array for array in one.arrays.values() if array.size > LARGEST), None)
    if large is None:
        return Outcome(one.values, one.arrays)
    return Outcome(
        error=f"an array of {large.size:,} numbers is too large for results; reduce it to at most "
        f"{LARGEST:,} (captures: reduce)"
    )


def line(error: BaseException) -> str:
    """An error in one line; where it is not meant for users, with its type and place."""
    # Names of files may hold bytes that are no UTF-8, which no file of results can hold.
    text = str(error).encode("utf-8", "backslashreplace").decode()
    text = " ".join(text.split())[:500]
    if isinstance(error, ProbeError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def _free(error: Exception) -> None:
    """After a lack of memory, give back what nobody holds."""
    import torch

    if not isinstance(error, MemoryError | torch.OutOfMemoryError):
        return
    error.__traceback__ = None  # its frames hold tensors
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return None if math.isnan(number) else number


def _array(array: xr.DataArray) -> dict[str, Any]:
    coords = {
        str(name): {"dims": list(one.dims), "data": _nested(one.values.tolist())}
        for name, one in array.coords.items()
    }
    about = {str(k): v for k, v in array.attrs.items() if isinstance(v, str | int | float)}
    return {
        "dims": list(array.dims),
        "coords": coords,
        "attrs": about,
        "data": _nested(array.values.tolist()),
    }


def _nested(data: Any) -> Any:
    return [_nested(one) for one in data] if isinstance(data, list) else _plain(data)
