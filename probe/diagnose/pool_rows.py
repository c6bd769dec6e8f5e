"""Rows of a pool that are no plain means: ratios, shares with Wilson's interval, rankings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probe.diagnose.pool import COLUMNS
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

Row = tuple[str, float, float, float, int, int]
"""name, value, low, high, n, clusters."""

NAN = float("nan")


def frame(rows: list[Row]) -> pd.DataFrame:
    """Rows as a pool gives them."""
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS))


def append(table: pd.DataFrame, rows: list[Row]) -> pd.DataFrame:
    """A pool with rows more."""
    import pandas as pd

    return pd.concat([table, frame(rows)], ignore_index=True) if len(table) else frame(rows)


def of_sums(
    name: str,
    table: pd.DataFrame,
    columns: Mapping[str, Any],
    statistic: Callable[..., Float[np.ndarray, " resample"]],
    resamples: int = 2_000,
) -> Row:
    """A function of sums over cases, with a bootstrap interval over videos.

    Args:
        name: of the row.
        table: has the column "video".
        columns: numbers of each case; cases in which one is not finite are left out.
        statistic: of the sums of the columns [resample] each, in their order; NaN where undefined.
        resamples: of the bootstrap.

    Returns:
        The row; NaN where there is no case, low and high NaN with one video or where too few
        videos define the statistic.
    """
    from probe.study.statistics_bootstrap import interval
    from probe.study.statistics_samples import samples

    given = np.array([np.asarray(v, dtype=float) for v in columns.values()])
    kept = np.isfinite(given).all(0)
    videos = table["video"].to_numpy()[kept]
    values, count, clusters = given[:, kept], int(kept.sum()), len(set(videos))
    if not count:
        return name, NAN, NAN, NAN, 0, 0
    point = float(statistic(*values.sum(1)[:, None])[0])
    if clusters < 2 or not np.isfinite(point):
        return name, point, NAN, NAN, count, clusters
    s = samples(name, videos, **dict(zip(columns, values, strict=True)))
    sums = [s.sums(column) for column in s.columns]

    def of(weights: np.ndarray) -> np.ndarray:
        return statistic(*(weights @ total for total in sums))

    how: dict[str, Any] = {"n": s.n, "clusters": s.clusters, "level": 0.95}
    try:
        return (
            name,
            *interval(name, of, resamples=resamples, seed=0, **how),
            count,
            clusters,
        )
    except ProbeError:
        return name, point, NAN, NAN, count, clusters


def quotient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """One number over another, NaN where the lower is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def part(kept: np.ndarray, earned: np.ndarray) -> np.ndarray:
    """What is kept of a gain; NaN where there is no gain to keep a part of."""
    return quotient(kept, np.where(earned > 0, earned, 0))


def ratio(name: str, table: pd.DataFrame, top: Any, bottom: Any) -> Row:
    """Sum of `top` over sum of `bottom`, which is the ratio of their means."""
    return of_sums(name, table, {"top": top, "bottom": bottom}, quotient)


def percent(name: str, hits: float, count: int, clusters: int) -> Row:
    """100 times a share with Wilson's 95 % interval, NaN where there is no case."""
    from probe.study.statistics_extra import need

    if not count:
        return name, NAN, NAN, NAN, 0, clusters
    interval = need("statsmodels.stats.proportion").proportion_confint
    low, high = interval(hits, count, method="wilson")
    return name, 100 * hits / count, 100 * float(low), 100 * float(high), count, clusters


def ranking(name: str, table: pd.DataFrame, score: Any, truth: Any) -> Row:
    """AUROC of a score for a truth of 0 and 1, ties counting half, with its interval over videos.

    Cases whose score is not finite are left out; NaN where one class is left alone.
    """
    from probe.study.statistics_extra import need
    from probe.study.statistics_ranking import auroc

    area = need("sklearn.metrics").roc_auc_score  # said here: below its lack would be a few videos
    given, true = np.asarray(score, dtype=float), np.asarray(truth, dtype=float)
    kept = np.isfinite(given) & np.isfinite(true)
    given, true, videos = given[kept], true[kept], table["video"].to_numpy()[kept]
    count, clusters = len(given), len(set(videos))
    if not 0 < true.sum() < count:
        return name, NAN, NAN, NAN, count, clusters
    try:
        found = auroc(given, true, videos)
        return name, found.value, found.low, found.high, count, clusters
    except ProbeError:  # too few videos for an interval
        return name, float(area(true, given)), NAN, NAN, count, clusters
