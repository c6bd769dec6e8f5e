"""Views of a store: the table of results, their arrays, how far the study is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.study.store import Store

BEFORE = ("study", "model", "sample", "video")
OF_CELL = ("role", "label", "of", "seed")
BEHIND = ("error", "seconds", "worker", "key")
_SPECIAL = {"Infinity": np.inf, "-Infinity": -np.inf, None: np.nan}  # JSON has none of them


def table(store: Store) -> pd.DataFrame:
    """See `Store.table`."""
    import pandas as pd

    manifest, results = store.manifest, store.refresh()
    name = manifest["study"]["name"]
    rows = []
    scores: dict[str, None] = {}
    for model, sample, cell, key in store.asked():
        result = results.get(key)
        if result is None:
            continue
        values = {k: _SPECIAL.get(v, v) for k, v in named(cell, result["values"]).items()}
        scores |= dict.fromkeys(values)
        rows.append((model, sample, cell, result, values))
    taken = {*BEFORE, *OF_CELL, *BEHIND, *scores}
    lines = []
    for model, sample, cell, result, values in rows:
        about = dict(zip(BEFORE, (name, model, sample["id"], sample["cluster"]), strict=True))
        about |= _apart(sample["meta"], "sample_", taken)
        about |= {column: cell[column] for column in OF_CELL}
        about |= _apart(cell["grid"], "grid_", taken | sample["meta"].keys())
        about |= {score: values.get(score, np.nan) for score in scores}
        lines.append(about | {column: result[column] for column in BEHIND})
    columns = [*BEFORE, *OF_CELL, *BEHIND] if not lines else None
    return pd.DataFrame(lines, columns=columns)


def named(cell: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a cell gave by name. What is captured has its label's, which may have been another when
    it was computed.
    """
    if cell["role"] != "capture":
        return found
    return dict(zip([cell["label"]], found.values(), strict=False))


def _apart(data: Mapping[str, Any], front: str, taken: set[str]) -> dict[str, Any]:
    """Columns of a sample or a grid; those whose names are taken with something in front."""
    return {f"{front}{name}" if name in taken else name: value for name, value in data.items()}


def arrays(store: Store, label: str) -> dict[str, xr.DataArray]:
    """See `Store.arrays`."""
    known = [cell["label"] for cell in store.manifest["cells"]]
    if label not in known:
        raise ProbeError(f'{store.folder}: no "{label}" in this study; there is {", ".join(known)}')
    results = store.refresh()
    found: dict[str, list[tuple[tuple[str, str, str], Mapping[str, Any]]]] = {}
    for model, sample, cell, key in store.asked(label):
        if key in results:
            who = sample["id"], sample["cluster"], model
            for name, plain in named(cell, results[key]["arrays"]).items():
                found.setdefault(name, []).append((who, plain))
    return {name: _stacked(several).rename(name) for name, several in found.items()}


def _stacked(several: Sequence[tuple[tuple[str, str, str], Mapping[str, Any]]]) -> xr.DataArray:
    """Arrays of samples as one, those of one shape at once: joining thousands takes minutes."""
    import xarray as xr

    alike: dict[str, list[int]] = {}
    for number, (_, plain) in enumerate(several):
        shape = np.shape(np.array(plain["data"], dtype=object))
        alike.setdefault(repr((shape, plain["dims"], plain["coords"])), []).append(number)
    parts = []
    for numbers in alike.values():
        one = array(several[numbers[0]][1])
        values = np.stack([_filled(several[number][1]["data"]) for number in numbers])
        coords: dict[Any, Any] = dict(one.coords)
        for place, name in enumerate(("sample", "video", "model")):
            coords[name] = "sample", [several[number][0][place] for number in numbers]
        parts.append(xr.DataArray(values, coords, ["sample", *one.dims], attrs=one.attrs))
    if len(parts) == 1:
        return parts[0]
    how: Any = {"dim": "sample", "join": "outer", "combine_attrs": "override"}
    order = np.argsort([number for numbers in alike.values() for number in numbers])
    return xr.concat(parts, **how).isel(sample=order)


def array(plain: Mapping[str, Any]) -> xr.DataArray:
    """An array as a line of results holds it."""
    import xarray as xr

    coords = {
        name: (one["dims"], np.array(one["data"])) if one["dims"] else one["data"]
        for name, one in plain["coords"].items()
    }
    return xr.DataArray(_filled(plain["data"]), coords, plain["dims"], attrs=plain.get("attrs"))


def _filled(data: Any) -> np.ndarray:
    """Nested lists of numbers, null for NaN."""
    made = np.array(data, dtype=object)
    flat = [_SPECIAL.get(one, one) for one in made.ravel()]
    if any(isinstance(one, str) for one in flat):
        return np.array(flat, dtype=str).reshape(made.shape)
    if all(isinstance(one, bool) for one in flat):
        return np.array(flat, dtype=bool).reshape(made.shape)
    return np.array(flat, dtype=np.float64).reshape(made.shape)


def status(store: Store) -> dict[str, Any]:
    """See `Store.status`."""
    from probe.study.claim import Claims

    manifest = store.manifest
    results = store.refresh()
    asked = len(manifest["samples"]) * len(manifest["cells"])
    missing: Counter[tuple[str, str]] = Counter()
    there, errors = 0, Counter[str]()
    for model, sample, _, key in store.asked():
        result = results.get(key)
        missing[model, sample["id"]] += result is None
        there += result is not None
        if result is not None and result["error"]:
            errors[result["error"]] += 1
    claims = Claims(store.folder / "claims", "status").every()
    return {
        "study": manifest["study"]["name"],
        "code": manifest["code"],
        "jobs": len(manifest["samples"]) * len(manifest["models"]),
        "done": sum(count == 0 for count in missing.values()),
        "cells": asked * len(manifest["models"]),
        "computed": there,
        "failed": errors.total(),
        "damaged_lines": store.damaged,
        "claims": [vars(claim) for claim in claims],
        "errors": dict(errors.most_common()),
    }
