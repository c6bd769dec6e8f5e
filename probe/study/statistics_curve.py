"""A curve of pruning or selection with the controls that it has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from probe.errors import ProbeError
from probe.study.statistics_difference import difference, mean_interval
from probe.study.statistics_holm import families
from probe.study.statistics_samples import samples

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = ("blind", "random", "uniform frames")


def curve(
    table: pd.DataFrame,
    by: str,
    value: str,
    controls: Sequence[str] = CONTROLS,
    *,
    method: str = "method",
    sample: str = "sample",
    video: str = "video",
    seed: str = "seed",
    level: float = 0.95,
    resamples: int = 2_000,
    permutations: int = 9_999,
    rng: int = 0,
) -> pd.DataFrame:
    """Means of a curve with intervals, and paired differences to each control at each point.

    Random choice is run with several seeds: a sample's value is its mean over them. A control
    without a point (NaN in `by`: a blind run keeps nothing) stands at every point of the curve that
    it has no run at; a method without one (the untouched model) gets its mean alone, and as a
    control shows what the others lose. Holm's correction is over all methods and points against
    one control.

    Args:
        table: a row a measurement.
        by: column of the points of the curve, such as the share of tokens kept.
        value: column of what is compared, such as the gold margin.
        controls: values of `method` that are controls.
        method, sample, video: columns of the method, of what is paired, and of what is clustered.
        seed: column of the seed of random choices, where the table has one.
        level: of the intervals; 1 - level is the chance of any false claim against one control.
        rng: seed of the resamples.

    Returns:
        A row a method, point and `versus`: where it is empty `estimate` is the mean of the method
        (or control), elsewhere the mean difference to that control. Columns: method, the point,
        versus, estimate, low, high, p, p_holm, significant, effect, n, clusters, seeds, seed_sd
        (standard deviation over seeds of the mean).

    Raises:
        ProbeError: a column or control that is not there, a repeated measurement, a sample with two
            videos, samples that a control lacks, or as in `difference`.
    """
    import pandas as pd

    _check(table, by, value, controls, method, sample, video, seed)
    videos = dict(zip(table[sample], table[video], strict=True))
    cells = _cells(table, by, value, method, sample, seed)
    how = {"level": level, "resamples": resamples, "seed": rng}
    rows = []
    for (name, point), cell in cells.items():
        of_sample = cell["values"]
        place = {method: name, by: point}
        label = f"curve: {name} at {by} {point}"
        clips = [videos[number] for number in of_sample.index]
        s = samples(label, clips, values=of_sample.to_numpy())
        mean, low, high = mean_interval(label, s, s.columns[0], level, resamples, rng)
        rows.append(
            place
            | {"versus": "", "estimate": mean, "low": low, "high": high, "n": s.n}
            | {"clusters": s.clusters, "seeds": cell["seeds"], "seed_sd": cell["seed_sd"]}
        )
        for control in controls if name not in controls and point is not None else ():
            other = cells.get((control, point), cells.get((control, None)))
            if other is None:
                raise ProbeError(f"curve: {control} was not run at {by} {point}; {name} was")
            paired = _paired(of_sample, other["values"], f"{name} at {by} {point}", control)
            d = difference(of_sample.to_numpy(), paired, clips, permutations=permutations, **how)
            rows.append(
                place
                | {"versus": control, "estimate": d.mean, "low": d.low, "high": d.high, "p": d.p}
                | {"effect": d.effect, "n": d.n, "clusters": d.clusters, "seeds": other["seeds"]}
            )
    result = families(pd.DataFrame(rows), "versus", level=level)
    columns = [method, by, "versus", "estimate", "low", "high", "p", "p_holm", "significant"]
    return result.loc[:, [*columns, "effect", "n", "clusters", "seeds", "seed_sd"]]


def _check(
    table: pd.DataFrame,
    by: str,
    value: str,
    controls: Sequence[str],
    method: str,
    sample: str,
    video: str,
    seed: str,
) -> None:
    for name in (by, value, method, sample, video):
        if name not in table.columns:
            raise ProbeError(
                f"curve: the table has no column {name!r}; it has {', '.join(table.columns)}"
            )
    there = set(table[method])
    for control in controls:
        if control not in there:
            raise ProbeError(f"curve: the control {control!r} is not in column {method!r}: run it")
    if not there - set(controls):
        raise ProbeError("curve: the table holds controls alone: there is nothing to compare")
    missing = int(np.isnan(table[value].to_numpy(dtype=float)).sum())
    if missing:
        raise ProbeError(f"curve: {missing} of {len(table)} values of {value} are NaN: drop them")
    pairs = table[[sample, video]].drop_duplicates()
    several = len(pairs) - len(set(pairs[sample]))
    if several:
        raise ProbeError(f"curve: {several} samples are on a second video: {sample} must name one")
    keys = [method, by, sample] + ([seed] if seed in table.columns else [])
    repeated = len(table) - len(table[keys].drop_duplicates())
    if repeated:
        raise ProbeError(f"curve: {repeated} rows repeat another's {', '.join(keys)}")


def _cells(
    table: pd.DataFrame, by: str, value: str, method: str, sample: str, seed: str
) -> dict[tuple[Any, Any], dict[str, Any]]:
    """Values by sample of each method and point; the point of missing ones is None."""
    import pandas as pd

    cells = {}
    for key, rows in table.groupby([method, by], dropna=False):
        name, point = cast(tuple[Any, Any], key)
        of_seed = np.ones(1)
        if seed in rows.columns:
            of_seed = np.asarray(rows.groupby(seed, dropna=False)[value].mean())
        cells[name, None if pd.isna(point) else point] = {
            "values": rows.groupby(sample)[value].mean(),
            "seeds": len(of_seed),
            "seed_sd": float(of_seed.std(ddof=1)) if len(of_seed) > 1 else float("nan"),
        }
    return cells


def _paired(values: pd.Series, control: pd.Series, at: str, name: str) -> np.ndarray:
    """The control's values of the same samples."""
    lacking = len(values.index.difference(control.index))
    if lacking:
        raise ProbeError(
            f"curve: {lacking} of {len(values)} samples of {at} are not there for {name}: "
            "run them, or leave them out"
        )
    return control.reindex(values.index).to_numpy()
