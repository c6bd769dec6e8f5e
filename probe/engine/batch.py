"""Batch: the runs of several examples, or several sequences of one, with a dim in front.

Every example runs by itself, at its own length: there is no padding that could enter a statistic,
and examples may keep different numbers of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.collect import union
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.engine.result import Run
    from probe.models.encode import Example


@dataclass(frozen=True)
class Batch:
    """Several runs.

    Attributes:
        runs: one a sample, in order.
        dim: "sample" for examples, "sequence" for sequences generated from one example.
        data: what all of them captured, with `dim` in front; NaN (or "") where a sample has no
            such frame, position or step.
    """

    runs: tuple[Run, ...]
    dim: str
    data: xr.Dataset

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, number: int) -> Run:
        return self.runs[number]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    @property
    def logits(self) -> list[np.ndarray]:
        """Logits [readout, vocab] of each sample."""
        return [run.logits for run in self.runs]

    @property
    def texts(self) -> list[str | None]:
        """The generated answers."""
        return [run.text for run in self.runs]

    def top(self, k: int = 1, readout: int = -1) -> pd.DataFrame:
        """The k most likely tokens of every sample, with a column named after the dim."""
        import pandas as pd

        tables = [run.top(k, readout).assign(**{self.dim: n}) for n, run in enumerate(self.runs)]
        return pd.concat(tables, ignore_index=True)


def gather(runs: Sequence[Run], dim: str) -> Batch:
    """Runs of the same captures as one batch."""
    import xarray as xr

    names: dict[str, None] = {}
    for run in runs:
        names.update(dict.fromkeys(map(str, run.data.data_vars)))
    joined = {}
    for name in names:
        arrays = {n: run.data[name] for n, run in enumerate(runs) if name in run.data}
        same = union(arrays)
        stacked = xr.concat(list(same.values()), dim=dim, coords="different", compat="equals",
                            join="override", combine_attrs="drop_conflicts")  # fmt: skip
        joined[name] = stacked.assign_coords({dim: list(same)})
        if len(same) < len(runs):
            joined[name] = joined[name].reindex({dim: np.arange(len(runs))})
    aligned = union(joined)
    return Batch(tuple(runs), dim, xr.Dataset(aligned))


def each(function: Callable[..., Run], examples: Sequence[Example], **arguments: Any) -> Batch:
    """Run every example by itself.

    Raises:
        ProbeError: no example, or one that fails; with its number.
    """
    if not examples:
        raise ProbeError("there is no example to run")
    runs = []
    for number, x in enumerate(examples):
        try:
            runs.append(function(x, **arguments))
        except ProbeError as error:
            raise ProbeError(f"example {number}: {error}") from error
    return gather(runs, "sample")
