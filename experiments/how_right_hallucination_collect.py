"""Raw values of the hallucination signals over testbed items, a line of JSON an item.

`how_right_hallucination.py collect` calls it; a process that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import probe
from probe.diagnose.signals import HallucinationSignals
from probe.diagnose.testbed import case_of
from probe.testbed.item import Item
from probe.testbed.shifted import captions, shifted

CLIPS = ("none", "cut", "mean", "shuffled")
ROUNDS = 10


def collect(asked: argparse.Namespace) -> None:
    part, parts = (int(number) for number in asked.part.split("/"))
    diagnosis = HallucinationSignals(CLIPS)
    asked.data.mkdir(parents=True, exist_ok=True)
    every = {shift: items_of(shift, asked) for shift in asked.shifts}
    for name in asked.models:
        model = probe.load(name)
        done = {row["id"] for shift in every for row in lines_of(asked.data, name, shift)}
        for turn in range(ROUNDS):  # a tenth of each split in turn: tables can be made early
            for shift, found in every.items():
                path = asked.data / f"{Path(name).name}-{shift}-{part}.jsonl"
                with path.open("a") as file:
                    for item in block(found, turn)[part::parts]:
                        if item.id in done:
                            continue
                        case = case_of(model, item, item.scene.frames)
                        values = dict(diagnosis.measure(case))
                        file.write(json.dumps(plain(item, values)) + "\n")
                        file.flush()


def block(found: list[Item], turn: int) -> list[Item]:
    """A tenth of the items, neighbours together, so that visible and hidden ones are both in it."""
    return found[turn * len(found) // ROUNDS : (turn + 1) * len(found) // ROUNDS]


def items_of(shift: str, asked: argparse.Namespace) -> list[Item]:
    count = {"fit": asked.fit, "test": asked.n}.get(shift)
    if count is None:
        return shifted(shift, asked.others, asked.seed)
    described = captions(shift, asked.captions, asked.seed)
    asking = shifted(shift, count, asked.seed)
    tenths = [[*block(asking, turn), *block(described, turn)] for turn in range(ROUNDS)]
    return [item for tenth in tenths for item in tenth]


def plain(item: Item, values: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item.id, "video": str(item.scene.seed), "type": item.question.type,
        "medium": item.scene.medium,
    }  # fmt: skip
    for name, value in values.items():
        if isinstance(value, xr.DataArray):
            row[name] = {
                "texts": [str(text) for text in value.token.values],
                "scores": [str(s) for s in value.score.values] if "score" in value.dims else [],
                "values": [short(v) for v in np.ravel(value.values)],
            }
        else:
            row[name] = short(value)
    return row


def short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.6g}")


def lines_of(data: Path, model: str, shift: str) -> Iterator[dict[str, Any]]:
    seen = set()
    for path in sorted(data.glob(f"{Path(model).name}-{shift}-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a process that was stopped
                continue
            if row["id"] not in seen:
                seen.add(row["id"])
                yield row
