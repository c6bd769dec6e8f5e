"""What the numbers of many cases say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "value", "low", "high", "n", "clusters")


def means(table: pd.DataFrame, resamples: int = 2_000) -> pd.DataFrame:
    """Mean of every number of a table, with a bootstrap 95 % interval over videos.

    Args:
        table: sample, video, and columns of numbers; NaN where a case has none.

    Returns:
        name, value, low, high, n, clusters; low and high are NaN with one video.
    """
    import pandas as pd

    from probe.study.statistics_difference import mean_interval
    from probe.study.statistics_samples import samples

    rows = []
    for name in table.columns.difference(["sample", "video", "seed"], sort=False):
        column = table[name]
        if column.dtype.kind not in "bif":
            continue
        finite = np.isfinite(column.to_numpy(float))
        values, videos = column.to_numpy(float)[finite], table["video"].to_numpy()[finite]
        row = (name, float(values.mean()) if len(values) else float("nan"))
        try:
            s = samples(name, videos, values=values)
            row = (name, *mean_interval(name, s, s.columns[0], 0.95, resamples, 0))
        except ProbeError:  # one video or none: a mean without an interval
            row = (*row, float("nan"), float("nan"))
        rows.append((*row, len(values), len(set(videos))))
    return pd.DataFrame(rows, columns=list(COLUMNS))
