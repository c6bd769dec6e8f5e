"""Each ablation against its own controls: a random choice, uniform frames, one part swapped."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study.show_scores import by_sample, methods

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("model", "score", "label", "control", "difference", "low", "high", "p", "p_holm"),
    *("significant", "effect", "n", "videos", "seeds"),
)


def versus(
    table: pd.DataFrame,
    names: Sequence[str],
    drawn: Container[tuple[str, str, str]] = (),
    *,
    resamples: int = 2_000,
    permutations: int = 9_999,
    seed: int = 0,
) -> pd.DataFrame:
    """The paired difference of each ablation to each of its controls.

    Args:
        table: of `Store.table()`.
        names: columns that are scores.
        drawn: (model, score, label) of ablations that are in a curve, which has their random,
            uniform and blind controls; the swaps of these are left here.
        resamples, permutations, seed: of the statistics.

    Returns:
        The columns `COLUMNS`, difference is ablation - control; Holm's correction is over the
        ablations against one kind of control.
    """
    import pandas as pd

    from probe.study.statistics_difference import difference
    from probe.study.statistics_holm import families

    rows: list[dict[str, Any]] = []
    how = {"resamples": resamples, "permutations": permutations, "seed": seed}
    for model, of_model in table.groupby("model", sort=False):
        videos = dict(zip(of_model["sample"], of_model["video"], strict=True))
        found = methods(of_model)
        for name in names:
            for about, its in found:
                if about["role"] != "ablation":
                    continue
                values = by_sample(its, name)
                in_curve = (str(model), name, about["label"]) in drawn
                for control, other in _controls(found, about["label"], in_curve):
                    against = by_sample(other, name)
                    both = values.index.intersection(against.index, sort=False)
                    clips = [videos[sample] for sample in both]
                    try:
                        d = difference(
                            values[both].to_numpy(), against[both].to_numpy(), clips, **how
                        )
                    except ProbeError:  # no samples in common, or one video
                        continue
                    seeds = other["seed"].nunique() if control == "random" else 1
                    row = {"model": str(model), "score": name, "label": about["label"]}
                    row |= {"control": control, "difference": d.mean, "low": d.low}
                    row |= {"high": d.high, "p": d.p, "effect": d.effect, "n": d.n}
                    rows.append(row | {"videos": d.clusters, "seeds": seeds})
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    corrected = families(pd.DataFrame(rows), ["model", "score", "control"])
    return corrected.loc[:, list(COLUMNS)]


def _controls(
    found: list[tuple[dict[str, Any], Any]], label: str, in_curve: bool
) -> list[tuple[str, Any]]:
    """Kind and rows of the controls of one ablation."""
    several = []
    for about, rows in found:
        role = about["role"]
        if about["of"] == label and role == "swap":
            several.append((str(about["label"]).removeprefix(f"{label} | "), rows))
        elif not in_curve and (role == "blind" or about["of"] == label):
            several.append((role, rows))
    return several
