"""What each ablation does to each score: means, paired differences, tests, equivalence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

UNTOUCHED = "untouched"
ROLES = (UNTOUCHED, "ablation", "blind", "random", "uniform frames", "swap")
PART = 0.02
"""A loss below this part of what the video is worth (full - blind) does not matter."""
NEITHER = ("says_yes", "confidence")
COLUMNS = (
    *("model", "score", "label", "role", "of", "mean", "low", "high", "n", "videos", "seeds"),
    "tokens",
    *("difference", "difference_low", "difference_high", "paired", "p", "p_holm", "significant"),
    *("effect", "only_untouched", "only_this", "mcnemar_p", "equivalence", "margin"),
    *("equivalence_p", "samples_needed", "note"),
)


def scores(
    table: pd.DataFrame,
    names: Sequence[str],
    *,
    resamples: int = 2_000,
    permutations: int = 9_999,
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each model, score and ablation or control.

    Differences are to the untouched run on the same samples, with a bootstrap 95 % interval over
    videos and a permutation test; Holm's correction is over the ablations of a model and score, and
    over their controls as a family of its own. McNemar's test (mid-p) stands beside scores of 0 and
    1. "No loss" is tested against `PART` of full - blind. Random choice counts as the mean over its
    seeds. Tokens are visual tokens per layer, on average over layers and samples.

    Args:
        table: of `Store.table()`: model, sample, video, role, label, of, seed, and the scores.
        names: columns that are scores.
        resamples, permutations, seed: of the statistics.

    Returns:
        The columns `COLUMNS`; NaN, None or "" where something does not apply. `note` says why a
        test could not be made.
    """
    import pandas as pd

    from probe.study.statistics_holm import families

    rows = []
    how = {"resamples": resamples, "permutations": permutations, "seed": seed}
    for model, of_model in table.groupby("model", sort=False):
        for name in names:
            rows += _of_score(str(model), name, of_model, how)
    found = pd.DataFrame(rows)
    if not len(found):
        return pd.DataFrame(columns=list(COLUMNS))
    found["family"] = np.where(found["role"].isin(("ablation", "swap")), "ablations", "controls")
    found = families(found, ["model", "score", "family"])
    return found.reindex(columns=list(COLUMNS))


def methods(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Runs that belong together, in order: what they are, and their rows.

    The seeds of a random control are one method; everything else is its label.
    """
    ablated = table[table["role"].isin(ROLES)]
    found: dict[tuple, list[Any]] = {}
    for place, (role, label, of) in enumerate(
        zip(ablated["role"], ablated["label"], ablated["of"], strict=True)
    ):
        found.setdefault((role, f"random for {of}" if role == "random" else label, of), []).append(
            place
        )
    order = {role: number for number, role in enumerate((UNTOUCHED, "blind"))}
    keys = sorted(found, key=lambda key: order.get(key[0], 2))
    return [
        ({"role": role, "label": label, "of": of}, ablated.iloc[found[role, label, of]])
        for role, label, of in keys
    ]


def by_sample(rows: Any, name: str) -> Any:
    """A score by sample, a Series, the mean over seeds; samples without it are left out."""
    values = rows[["sample", name]].dropna()
    return values[name].astype(float).groupby(values["sample"], sort=False).mean()


def _of_score(model: str, name: str, table: Any, how: dict[str, Any]) -> list[dict[str, Any]]:
    videos = dict(zip(table["sample"], table["video"], strict=True))
    cells = [(about, rows, by_sample(rows, name)) for about, rows in methods(table)]
    cells = [(about, rows, values) for about, rows, values in cells if len(values)]
    full = next((v for about, _, v in cells if about["role"] == UNTOUCHED), None)
    blind = next((v for about, _, v in cells if about["role"] == "blind"), None)
    limit, why = _limit(full, blind)
    found = []
    rows: Any
    for about, rows, values in cells:
        row = {"model": model, "score": name, **about, "p": float("nan"), "note": ""}
        row |= _mean(values, videos, how)
        if "tokens" in rows:
            row["tokens"] = float(rows["tokens"].astype(float).mean())
        row["seeds"] = rows["seed"].nunique() if about["role"] == "random" else 1
        if full is not None and about["role"] != UNTOUCHED:
            row |= _beside(values, full, videos, how)
            if about["role"] in ("ablation", "swap"):
                row |= _no_loss(name, values, full, videos, limit, why)
        found.append(row)
    return found


def _mean(values: Any, videos: dict, how: dict[str, Any]) -> dict[str, Any]:
    from probe.study.statistics_difference import mean_interval
    from probe.study.statistics_samples import samples

    clips = [videos[sample] for sample in values.index]
    found = {"mean": float(values.mean()), "n": len(values), "videos": len(set(clips))}
    try:
        s = samples("mean", clips, values=values.to_numpy())
        _, low, high = mean_interval("mean", s, s.columns[0], 0.95, how["resamples"], how["seed"])
    except ProbeError as error:
        return found | {"low": float("nan"), "high": float("nan"), "note": _reason(error)}
    if set(values) <= {0.0, 1.0} and low == high:
        low, high = all_alike(low, s.clusters)
    return found | {"low": low, "high": high}


def all_alike(value: float, videos: int) -> tuple[float, float]:
    """Interval of a share of 0 or 1, which is no certainty: Wilson's, each video counted once."""
    from probe.study.statistics_extra import need

    wilson = need("statsmodels.stats.proportion").proportion_confint
    low, high = wilson(round(value) * videos, videos, 0.05, method="wilson")
    return float(low), float(high)


def _beside(values: Any, full: Any, videos: dict, how: dict[str, Any]) -> dict[str, Any]:
    """Paired difference to the untouched run; McNemar where both are 0 or 1."""
    from probe.study.statistics_accuracy import mcnemar
    from probe.study.statistics_difference import difference

    a, b, clips = _paired(values, full, videos)
    try:
        d = difference(a, b, clips, **how)
    except ProbeError as error:
        mean = float((a - b).mean()) if len(a) else float("nan")
        return {"difference": mean, "paired": len(a), "note": _reason(error)}
    found: dict[str, Any] = {
        "difference": d.mean,
        "difference_low": d.low,
        "difference_high": d.high,
        "paired": d.n,
        "p": d.p,
        "effect": d.effect,
    }
    if set(a) | set(b) <= {0.0, 1.0}:
        m = mcnemar(b, a)
        found |= {"only_untouched": m.only_a, "only_this": m.only_b, "mcnemar_p": m.p_mid}
    return found


def _limit(full: Any | None, blind: Any | None) -> tuple[float, str]:
    """The loss that does not matter, and why there is none."""
    if full is None:
        return float("nan"), "needs the untouched run"
    if blind is None:
        return float("nan"), "needs the blind control"
    both = full.index.intersection(blind.index)
    worth = float((full[both] - blind[both]).mean()) if len(both) else float("nan")
    if not worth > 0:
        return float("nan"), "the video is worth nothing here: blind is not below the untouched run"
    return PART * worth, ""


def _no_loss(
    name: str, values: Any, full: Any, videos: dict, limit: float, why: str
) -> dict[str, Any]:
    """Equivalence to the untouched run; not of scores that are neither better nor worse."""
    from probe.study.statistics_equivalence import equivalence

    if name in NEITHER:
        return {}
    if why:
        return {"equivalence": why}
    a, b, clips = _paired(values, full, videos)
    if len(a) and np.array_equal(a, b):
        return {"margin": limit} | _nothing_changed(a, limit, len(set(clips)))
    try:
        e = equivalence(a, b, limit, clips)
    except ProbeError as error:
        return {"equivalence": "not tested", "margin": limit, "note": _reason(error)}
    found = {"equivalence": e.verdict, "margin": limit, "equivalence_p": e.p}
    return found | {"samples_needed": e.samples}


def _nothing_changed(values: np.ndarray, limit: float, videos: int) -> dict[str, Any]:
    """Every sample is as before. Of scores of 0 and 1 this bounds how many are not: if a part of
    `limit` were, none of so many videos would be with this probability.
    """
    if not set(values) <= {0.0, 1.0} or limit >= 1:
        return {"equivalence": "holds: every sample is as before"}
    p = float((1 - limit) ** videos)
    if p <= 0.05:
        return {"equivalence": "holds", "equivalence_p": p}
    needed = math.ceil(math.log(0.05) / math.log1p(-limit) * len(values) / videos)
    return {"equivalence": "inconclusive", "equivalence_p": p, "samples_needed": needed}


def _paired(values: Any, full: Any, videos: dict) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    both = values.index.intersection(full.index, sort=False)
    clips = [videos[sample] for sample in both]
    return values[both].to_numpy(float), full[both].to_numpy(float), clips


def _reason(error: ProbeError) -> str:
    return str(error).partition(": ")[2] or str(error)
