"""A small study of the tiny model: eight questions about two clips, in about a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from probe.study.spec import Study
from probe.study.store import Store
from tests.video.write import write

SAMPLES = 8


def spec(folder: Path, **changed: Any) -> dict[str, Any]:
    """The spec, and the files it names."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            write(folder / f"{number}.mp4", 4 + number)
        lines = [
            {
                "id": f"q{n}",
                "video": f"{n // 4}.mp4",
                "clip": f"clip {n // 4}",
                "question": f"What is number {n}?",
                "options": ["red", "green"],
                "answer": "red",
                "kind": "even" if n % 2 == 0 else "odd",
            }
            for n in range(SAMPLES)
        ]
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plain = {
        "name": "small",
        "models": ["tiny"],
        "samples": {"source": "jsonl", "path": "rows.jsonl", "fields": {"cluster": "clip"}},
        "task": {"kind": "choice"},
        "frames": 4,
        "ablations": {"fastv": "fastv(1, 0.5)", "edges": 'Knockout("video -> question")'},
        "captures": {"mass": {"capture": "AttentionMass()", "reduce": {"mean": ["head"]}}},
    }
    return plain | changed


def study(folder: Path, **changed: Any) -> Study:
    """The study."""
    return Study.from_mapping(spec(folder, **changed), folder)


def table(folder: Path) -> pd.DataFrame:
    """What a study gave, without who computed it and when."""
    return Store(folder).table().drop(columns=["seconds", "worker"])


def lines(folder: Path) -> list[bytes]:
    """Every line of every worker."""
    several = (path.read_bytes() for path in sorted(folder.glob("results-*.jsonl")))
    return [line for content in several for line in content.splitlines()]
