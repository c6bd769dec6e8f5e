"""The folder of a study: nothing whole is lost, nothing broken is read, nothing counts twice."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from probe import ProbeError
from probe.study.cell import Cell
from probe.study.order import Order, missing
from probe.study.outcome import Outcome, line
from probe.study.store import Store
from probe.study.store_table import array

CELLS = [
    Cell("untouched", "untouched", spec={"ablate": []}),
    Cell("mass", "capture", spec={"c": 1}),
]
SAMPLES = ["a", "b"]


def manifest(**changed: Any) -> dict[str, Any]:
    cells = [
        {n: getattr(cell, n) for n in ("label", "role", "of", "seed", "spec", "grid")}
        for cell in CELLS
    ]
    samples = [
        {"id": one, "fingerprint": f"f{one}", "cluster": "clip", "meta": {"kind": 1, "margin": 2}}
        for one in SAMPLES
    ]
    about = {"study": {"name": "s"}, "code": "1", "setting": "{}", "models": ["m"]}
    return about | {"samples": samples, "cells": cells} | changed


def key(sample: str, cell: int, code: str = "1", model: str = "hash") -> str:
    return CELLS[cell].key(model, f"f{sample}", "{}", code)


def record(sample: str, outcomes: dict[int, Outcome], time: float = 0.0, **how: Any) -> dict:
    cells = [
        {"key": key(sample, number, **how), "label": CELLS[number].label} | outcome.to_json()
        for number, outcome in outcomes.items()
    ]
    about = {"v": 1, "model": "m", "sample": sample, "worker": f"w{time}", "time": time}
    return about | {"seconds": 1.0, "cells": cells}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    made.describe(manifest())
    made.describe_model("m", "hash")
    return made


def margins(store: Store) -> dict[str, float]:
    table = Store(store.folder).table()
    return dict(zip(table["sample"], table.get("margin", []), strict=True))


def test_torn_lines_of_any_length(store: Store) -> None:
    writer = store.writer("w")
    for sample, margin in (("a", 1.5), ("b", -2.25)):
        writer.append(record(sample, {0: Outcome({"margin": margin, "note": "ä\n\u2028"})}))
    writer.close()
    content = writer.path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(first, len(content), 3):
        writer.path.write_bytes(content[:length])
        assert margins(store) == {"a": 1.5}
    writer.path.write_bytes(content)
    assert margins(store) == {"a": 1.5, "b": -2.25}


def test_changed_bytes_of_a_line(store: Store) -> None:
    writer = store.writer("w")
    for sample in SAMPLES:
        writer.append(record(sample, {0: Outcome({"margin": 1.5})}))
    writer.close()
    content = writer.path.read_bytes()
    for place in range(0, content.index(b"\n"), 5):
        for flip in (1, 0x20):
            byte = bytes([content[place] ^ flip])
            writer.path.write_bytes(content[:place] + byte + content[place + 1 :])
            there = margins(store)
            # Digits of the checksum may change case; a number may not change.
            assert there in ({"b": 1.5}, {"a": 1.5, "b": 1.5})
            assert len(there) == 1 or place > content.index(b'"sum"')


def test_lines_that_are_written_later_are_seen(store: Store) -> None:
    one, two = store.writer("one"), store.writer("two")
    reader = Store(store.folder)
    assert not reader.refresh()
    one.append(record("a", {0: Outcome({"margin": 1.0})}))
    assert set(reader.refresh()) == {key("a", 0)}
    two.append(record("b", {0: Outcome({"margin": 2.0})}))
    one.append(record("a", {1: Outcome({"m": 3.0})}))
    assert set(reader.refresh()) == {key("a", 0), key("b", 0), key("a", 1)}
    with two.path.open("ab") as opened:
        opened.write(b'{"half')
    assert len(reader.refresh()) == 3
    one.close(), two.close()


def test_duplicates(store: Store) -> None:
    given = [
        (3.0, Outcome(error="out of memory")),
        (5.0, Outcome({"margin": 5.0})),
        (4.0, Outcome({"margin": 4.0})),
        (9.0, Outcome(error="late")),
    ]
    for order in (given, given[::-1]):
        folder = store.folder / str(order[0][0])
        other = Store(folder)
        other.describe(manifest())
        other.describe_model("m", "hash")
        for time, outcome in order:
            writer = other.writer("w")
            writer.append(record("a", {0: outcome}, time))
            writer.close()
        table = other.table()
        assert table["margin"].tolist() == [4.0] and table["error"].tolist() == [None]
        assert len(list(other.records())) == 4


def test_other_specs_models_and_versions_never_mix(store: Store) -> None:
    writer = store.writer("w")
    writer.append(record("a", {0: Outcome({"margin": 1.0})}))
    writer.append(record("a", {0: Outcome({"margin": 2.0})}, code="2"))
    writer.append(record("a", {0: Outcome({"margin": 3.0})}, model="other"))
    writer.close()
    assert margins(store) == {"a": 1.0}
    store.describe(manifest(code="2"))
    assert margins(store) == {"a": 2.0}
    store.describe(manifest())
    store.describe_model("m", "other")
    assert margins(store) == {"a": 3.0}
    store.describe(manifest(setting="{frames}"))
    assert not margins(store)


def test_the_table(store: Store) -> None:
    writer = store.writer("w")
    values = {"margin": -math.inf, "nothing": math.nan, "count": 3, "said": "red"}
    writer.append(record("b", {0: Outcome(values), 1: Outcome(error="no")}))
    writer.append(record("a", {0: Outcome({"margin": 0.5})}))
    writer.close()
    table = store.table()
    assert table["sample"].tolist() == ["a", "b", "b"]
    assert table["label"].tolist() == ["untouched", "untouched", "mass"]
    assert table["margin"].tolist()[:2] == [0.5, -math.inf] and math.isnan(table["margin"][2])
    assert table["sample_margin"].tolist() == [2, 2, 2] and table["kind"].tolist() == [1, 1, 1]
    assert table["said"][1] == "red" and math.isnan(table["nothing"][1])
    assert table["error"].isna().tolist() == [True, True, False] and table["error"][2] == "no"
    status = store.status()
    counts = {name: status[name] for name in ("jobs", "done", "cells", "computed", "failed")}
    assert counts == {"jobs": 2, "done": 1, "cells": 4, "computed": 3, "failed": 1}
    assert status["errors"] == {"no": 1}


def test_arrays_come_back(store: Store) -> None:
    given = xr.DataArray(
        np.array([[0.1, np.nan, np.inf], [1e-30, -2.5, 7.0]], np.float32),
        {"layer": [3, 5], "group": ["video", "last", "text"], "start": ("layer", [0.5, 1.5])},
        ("layer", "group"),
        attrs={"units": "1", "description": "d"},
    )
    plain = json.loads(json.dumps(Outcome(arrays={"mass": given}).to_json(), allow_nan=False))
    xr.testing.assert_equal(array(plain["arrays"]["mass"]), given.astype(float))
    writer = store.writer("w")
    for sample in SAMPLES:
        writer.append(record(sample, {1: Outcome(arrays={"mass": given})}))
    writer.close()
    found = store.arrays("mass")["mass"]
    assert found.dims == ("sample", "layer", "group") and found["sample"].values.tolist() == SAMPLES
    xr.testing.assert_equal(found.sel(sample="b", drop=True), given.astype(float))
    assert found.attrs["units"] == "1"
    with pytest.raises(ProbeError, match='no "masses" in this study'):
        store.arrays("masses")


def test_a_capture_has_the_label_of_the_study_as_it_is_now(store: Store) -> None:
    writer = store.writer("w")
    one = xr.DataArray([1.0, 2.0], dims=["layer"])
    writer.append(record("a", {1: Outcome({"mass": 0.5}, {"mass": one})}))
    writer.close()
    renamed = manifest()
    renamed["cells"][1]["label"] = "share"  # labels are no part of the key
    store.describe(renamed)
    assert store.table()["share"].tolist() == [0.5] and "mass" not in store.table()
    assert list(store.arrays("share")) == ["share"]


def test_names_that_are_not_utf_8_are_written(store: Store) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    writer = store.writer("w")
    writer.append(record("a", {0: Outcome(error=line(ProbeError(f"{name}: no such file")))}))
    writer.close()
    assert store.table()["error"].tolist() == ["caf\\udce9.mp4: no such file"]


def test_a_light_store_knows_what_is_there_alone(store: Store) -> None:
    writer = store.writer("w")
    writer.append(record("a", {0: Outcome({"margin": 1.0}), 1: Outcome(error="no")}))
    writer.close()
    found = Store(store.folder, light=True).refresh()
    assert found.keys() == store.refresh().keys()
    assert not any({"values", "arrays"} & cell.keys() for cell in found.values())
    assert {key: cell["error"] for key, cell in found.items()} == {
        key("a", 0): None, key("a", 1): "no"
    }  # fmt: skip


def test_only_errors_of_an_earlier_run_are_computed_again() -> None:
    order = Order({"name": "s"}, ".", ".", "w", retry=5.0)
    results = {
        "right": {"error": None, "time": 1.0},
        "before": {"error": "no", "time": 4.0},
        "since": {"error": "3 workers died", "time": 6.0},
    }
    keys = [*results, "none"]
    assert missing(order, keys, results) == [1, 3]
    assert missing(replace(order, retry=None), keys, results) == [3]


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no study here"):
        Store(tmp_path).table()
    with pytest.raises(ProbeError, match="no study here"):
        Store(tmp_path / "gone").status()
