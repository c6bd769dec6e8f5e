"""Curves in a study: one recipe at several points, beside its controls."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study.show_scores import UNTOUCHED, all_alike, methods

if TYPE_CHECKING:
    import pandas as pd

AMOUNTS = ("keep", "keep_tokens", "tokens", "budget", "frames", "m", "r", "rate", "ratio", "k")
"""What a curve runs over where several arguments vary, first come first."""
CONTROLS = ("blind", "random", "uniform frames")


@dataclass(frozen=True)
class Curve:
    """Ablations that differ in one number.

    Attributes:
        name: the recipe without the number.
        by: the argument that varies.
        points: its value, by label of the ablation.
    """

    name: str
    by: str
    points: Mapping[str, float]


def curves(texts: Mapping[str, str], grids: Mapping[str, Mapping[str, Any]]) -> list[Curve]:
    """Curves among ablations.

    Args:
        texts: label -> how the ablation is written.
        grids: label -> values of the grid it comes from, where it does.

    Returns:
        Every set of two or more ablations that are equal but for one number, which has a name in
        the text or is a place of the grid. An ablation is in one of them.
    """
    shapes = {}
    for label, text in texts.items():
        shapes[label] = _numbers(text, grids.get(label, {}))
    found: dict[tuple[str, str], Curve] = {}
    for label in texts:
        for by in _axes(label, shapes):
            shape, numbers = shapes[label]
            key = (_name(shape, numbers, by), by)
            before = found[key].points if key in found else {}
            if numbers[by] not in before.values():
                found[key] = Curve(*key, {**before, label: float(numbers[by])})
            break
    return [one for one in found.values() if len(one.points) > 1]


def curve_table(
    table: pd.DataFrame,
    several: Sequence[Curve],
    names: Sequence[str],
    *,
    resamples: int = 2_000,
    permutations: int = 9_999,
    rng: int = 0,
) -> tuple[pd.DataFrame, list[str]]:
    """Each curve with its controls by model and score, on the samples that all of them have.

    Args:
        table: of `Store.table()`.
        several: curves.
        names: columns that are scores.
        resamples, permutations, rng: of the statistics.

    Returns:
        What `statistics.curve` returns (with columns model, score, curve, by and point), Holm's
        correction over all points and curves against one control; and notes: controls that were not
        run, samples that were left out.
    """
    import pandas as pd

    from probe.study.statistics_curve import curve
    from probe.study.statistics_holm import families

    tables, notes = [], []
    for model, of_model in table.groupby("model", sort=False):
        for one in several:
            for name in names:
                rows = _rows(of_model, one, name)
                place = f"{one.name}, {name}" + (f", {model}" if _several(table) else "")
                rows, lost = _with_controls(rows, one.name)
                notes += [f"{place}: {text}" for text in lost]
                whole, left_out = _complete(rows)
                missing = [control for control in CONTROLS if control not in set(whole["method"])]
                notes += [f"{place}: {left_out} samples lack a point or a control"] * bool(left_out)
                notes += [f"{place}: without {', '.join(missing)}"] * bool(missing)
                has = [control for control in CONTROLS if control not in missing]
                how: dict[str, Any] = {"resamples": resamples, "permutations": permutations}
                try:
                    made = curve(whole, "point", "value", has, rng=rng, **how)
                except ProbeError as error:
                    notes.append(f"{place}: {error}")
                    continue
                made = _alike(made, whole)
                about = {"model": model, "score": name, "curve": one.name, "by": one.by}
                tables.append(made.assign(**about))
    if not tables:
        return pd.DataFrame(), notes
    together = pd.concat(tables, ignore_index=True)
    return families(together, ["model", "score", "versus"]), notes


def _rows(table: Any, one: Curve, name: str) -> Any:
    """sample, video, method, point, seed, value of a curve, its controls and the untouched run."""
    import pandas as pd

    parts = []
    for about, rows in methods(table):
        role, label = about["role"], about["label"]
        point, method = float("nan"), role
        if role == "ablation" and label in one.points:
            point, method = one.points[label], one.name
        elif role in ("random", "uniform frames") and about["of"] in one.points:
            point = one.points[about["of"]]
        elif role not in (UNTOUCHED, "blind"):
            continue
        part = rows[["sample", "video", "seed"]].assign(method=method, point=point)
        parts.append(part.assign(value=rows[name].astype(float)))
    return pd.concat(parts, ignore_index=True)


def _with_controls(rows: Any, name: str) -> tuple[Any, list[str]]:
    """Without the points that a control which ran elsewhere has no value at; and what they are."""
    there, lost = rows.dropna(subset=["value"]), []
    for control in CONTROLS[1:]:
        points = set(there.loc[there["method"] == control, "point"])
        own = set(there.loc[there["method"] == name, "point"])
        for point in sorted(own - points) if points else ():
            lost.append(f"left out {point:g}, at which {control} could not be run")
            rows = rows[rows["point"] != point]
            there = there[there["point"] != point]
    return rows, lost


def _complete(rows: Any) -> tuple[Any, int]:
    """Samples that have a value everywhere, and how many do not."""
    there = rows.dropna(subset=["value"])
    cells = there.groupby(["method", "point", "seed"], dropna=False, sort=False)["sample"]
    whole = set(rows["sample"])
    every = len(whole)
    for _, samples in cells:
        whole &= set(samples)
    return there[there["sample"].isin(whole)], every - len(whole)


def _alike(made: Any, rows: Any) -> Any:
    """Shares of 0 and 1 with intervals: all samples alike is no certainty."""
    if not set(rows["value"]) <= {0.0, 1.0}:
        return made
    made = made.copy()
    certain = (made["versus"] == "") & (made["low"] == made["high"])
    for place in made.index[certain]:
        ends = all_alike(made.loc[place, "estimate"], int(made.loc[place, "clusters"]))
        made.loc[place, ["low", "high"]] = ends
    return made


def _several(table: Any) -> bool:
    return table["model"].nunique() > 1


def _axes(label: str, shapes: Mapping[str, tuple[str, Mapping[str, float]]]) -> list[str]:
    """Arguments by which another ablation differs, and by no other; the best one first."""
    shape, numbers = shapes[label]
    found = set()
    for other, (its_shape, its_numbers) in shapes.items():
        if other == label or its_shape != shape or its_numbers.keys() != numbers.keys():
            continue
        different = [name for name in numbers if its_numbers[name] != numbers[name]]
        found |= set(different) if len(different) == 1 else set()
    rank = {name: number for number, name in enumerate(AMOUNTS)}
    return sorted(found, key=lambda name: (rank.get(name, len(rank)), name))


def _name(shape: str, numbers: Mapping[str, float], by: str) -> str:
    """The text with the other numbers in it."""
    for name, value in numbers.items():
        shape = shape.replace(f"⟨{name}⟩", "…" if name == by else f"{value:g}")
    return shape


def _numbers(text: str, grid: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The text with ⟨name⟩ for its named numbers, and the numbers; a name counts once.

    Numbers without a name have the name of the place of the grid that has this value.
    """
    try:
        tree = ast.parse(text.strip())
    except SyntaxError:
        return text, {}
    found: dict[str, float] = {}
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        for word in call.keywords:
            value = _number(word.value)
            if value is not None and word.arg and word.arg not in (*found, "seed"):
                found[word.arg] = value
                word.value = ast.Name(f"⟨{word.arg}⟩")
        for place, one in enumerate(call.args):
            value = _number(one)
            name = next((n for n in grid if n not in found and grid[n] == value), None)
            if value is not None and name is not None:
                found[name] = value
                call.args[place] = ast.Name(f"⟨{name}⟩")
    return ast.unparse(tree).replace("\n", "; "), found


def _number(node: ast.expr) -> float | None:
    """The number that is written."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
