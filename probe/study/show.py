"""Summary: what a study says, as tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.study.show_curves import Curve
    from probe.study.spec import Study
    from probe.study.store import Store


@dataclass(frozen=True)
class Summary:
    """What a study says.

    Attributes:
        name: of the study.
        scores: see `show_scores.scores`.
        versus: see `show_versus.versus`.
        curves: see `show_curves.curve_table`; empty where no ablations form a curve.
        yes_no: see `show_yes_no.yes_no`; empty for tasks that are not of yes and no.
        captures: model, label, name, value, low, high, n, clusters of captured numbers.
        diagnoses: model, label, name, value, low, high, n, clusters, by `pool` of each.
        arrays: (model, label, name) -> mean, low, high, n of captured and measured arrays.
        errors: messages with how often and where they occur.
        notes: what the tables lack, and why.
        samples, videos, models: in the study's table.
    """

    name: str
    scores: pd.DataFrame
    versus: pd.DataFrame
    curves: pd.DataFrame
    yes_no: pd.DataFrame
    captures: pd.DataFrame
    diagnoses: pd.DataFrame
    arrays: Mapping[tuple[str, str, str], xr.Dataset]
    errors: pd.DataFrame
    notes: tuple[str, ...] = ()
    samples: int = 0
    videos: int = 0
    models: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite become None."""
        from probe.study.show_arrays import plain

        tables = ("scores", "versus", "curves", "yes_no", "captures", "diagnoses", "errors")
        found: dict[str, Any] = {"study": self.name, "samples": self.samples, "videos": self.videos}
        for name in tables:
            found[name] = json.loads(str(getattr(self, name).to_json(orient="records")))
        found["arrays"] = [
            {"model": model, "label": label, "name": name}
            | {part: plain(array[part]) for part in ("mean", "low", "high", "n")}
            for (model, label, name), array in self.arrays.items()
        ]
        return found | {"notes": list(self.notes)}


@dataclass(frozen=True)
class Names:
    """Which columns of a table are what.

    Attributes:
        scores: of the untouched run and the ablations.
        meta: of the samples.
        values: numbers of each capture and diagnosis, by label.
    """

    scores: tuple[str, ...]
    meta: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def summarise(store: Store, *, resamples: int = 2_000, permutations: int = 9_999) -> Summary:
    """Everything that a study's results say, finished or not.

    Raises:
        ProbeError: a folder without a study, or without results.
    """
    from probe.study.spec import Study

    table = store.table()
    if not len(table):
        raise ProbeError(f"{store.folder}: no results yet; `probe study run` computes them")
    found, spec, notes = names_of(store), store.manifest["study"], []
    try:
        study = Study.from_mapping(spec)
    except ProbeError as error:  # such as a diagnosis of one's own that is not on the path
        study = None
        notes.append(f"the spec cannot be read here, so diagnoses have their means alone: {error}")
    arrays = {label: store.arrays(label) for label in found.values}
    made = summary_of(spec["name"], table, found, study, arrays, resamples, permutations)
    return replace(made, notes=(*notes, *made.notes))


def summary_of(
    name: str,
    table: pd.DataFrame,
    names: Names,
    study: Study | None = None,
    arrays: Mapping[str, Mapping[str, xr.DataArray]] | None = None,
    resamples: int = 2_000,
    permutations: int = 9_999,
) -> Summary:
    """A summary of a table of results.

    Args:
        name: of the study.
        table: as `Store.table()` gives it.
        names: which columns are what.
        study: what was run; None: no curves by grid, and diagnoses are pooled by their means.
        arrays: label -> name -> [sample, ...] with coords model, sample and video.
        resamples, permutations: of the statistics.
    """
    from probe.study.show_curves import curve_table, curves
    from probe.study.show_measured import array_means, measured
    from probe.study.show_scores import scores
    from probe.study.show_versus import versus
    from probe.study.show_yes_no import yes_no

    how = {"resamples": resamples, "permutations": permutations}
    ablated = table[table["role"] == "ablation"]
    texts, grids = {label: label for label in dict.fromkeys(ablated["label"])}, {}
    if study is not None:
        written = {label: study.ablations[label] for label in texts if label in study.ablations}
        texts = {label: one["text"] for label, one in written.items()}
        grids = {label: one["grid"] for label, one in written.items()}
    several = curves(texts, grids)
    drawn, notes = curve_table(table, several, names.scores, **how)
    in_curves = _in_curves(drawn, several)
    cells = {} if study is None else {cell.label: cell for cell in study.cells()}
    captures, more = measured(table, names, "capture", cells)
    diagnoses, further = measured(table, names, "diagnosis", cells)
    means, last = array_means(arrays or {})
    return Summary(
        name,
        scores(table, names.scores, **how),
        versus(table, names.scores, in_curves, **how),
        drawn,
        yes_no(table),
        captures,
        diagnoses,
        means,
        errors(table),
        (*notes, *more, *further, *last, *unread(table)),
        len(set(table["sample"])),
        len(set(table["video"])),
        tuple(dict.fromkeys(table["model"])),
    )


def _in_curves(drawn: pd.DataFrame, several: Sequence[Curve]) -> set[tuple[str, str, str]]:
    """(model, score, label) of what is drawn in a curve, beside its controls."""
    found: set[tuple[str, str, str]] = set()
    for one in several if len(drawn) else ():
        its: Any = drawn[(drawn["curve"] == one.name) & (drawn["by"] == one.by)]
        its = its[its["method"] == one.name]
        there = set(zip(its["model"], its["score"], its["point"], strict=True))
        found |= {
            (str(model), str(score), label)
            for label, point in one.points.items()
            for model, score, at in there
            if at == point
        }
    return found


def names_of(store: Store) -> Names:
    """Which columns of a store's table are what."""
    from probe.study.show_scores import ROLES
    from probe.study.store_table import named

    scores: dict[str, None] = {}
    values: dict[str, dict[str, None]] = {}
    results = store.refresh()
    for _, _, cell, key in store.asked():
        found = dict.fromkeys(named(cell, results[key]["values"]) if key in results else ())
        if cell["role"] in ROLES:
            scores |= found
        else:
            values[cell["label"]] = values.get(cell["label"], {}) | found
    meta = dict.fromkeys(name for one in store.manifest["samples"] for name in one["meta"])
    there = {label: tuple(names) for label, names in values.items()}
    return Names(tuple(n for n in scores if not _beside(n)), tuple(meta), there)


def _beside(name: str) -> bool:
    """What is measured beside the scores: visual tokens, and whether an answer could be read."""
    return name == "tokens" or name.endswith("_parsed")


def unread(table: pd.DataFrame) -> list[str]:
    """Notes on answers in the model's own words that could not be read."""
    found = []
    for name in table.columns:
        if not str(name).endswith("_parsed"):
            continue
        said: Any = table[name].dropna().astype(float)
        if len(said) and said.min() < 1:
            kind = str(name).removesuffix("_parsed")
            lost = f"{(said < 1).sum():,} of {len(said):,} answers could not be read"
            found.append(f"{kind}: {lost}; they count as wrong")
    return found


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """Failed cells: model, message, how many cells and samples, the first sample and label."""
    import pandas as pd

    columns = ["model", "error", "cells", "samples", "sample", "label"]
    failed: Any = table[table["error"].notna() & (table["error"] != "")]
    rows = []
    counts = Counter(zip(failed["model"], failed["error"], strict=True))
    for (model, error), times in counts.most_common():
        at = failed[(failed["model"] == model) & (failed["error"] == error)]
        first = at.iloc[0]
        several = at["sample"].nunique()
        rows.append((model, error, times, several, first["sample"], first["label"]))
    return pd.DataFrame(rows, columns=columns)
