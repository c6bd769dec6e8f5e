"""`probe study` as a user types it, from a spec to tables and files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probe import ProbeError, cli, testbed
from probe.study import Study
from probe.study.store import Store

SPECS = Path(__file__).parents[2] / "experiments" / "specs"
SPEC = """
name: small
models: [testbed/onevision]
samples: {source: testbed, n: 4, seed: 3, types: [color, count]}
frames: 4
ablations:
  "fastv(k=2, keep={keep})": {keep: [0.5, 0.1]}
controls: {blind: true, random: 2, uniform: true}
captures:
  mass: {capture: 'AttentionMass(queries="last", keys="roles")', reduce: {mean: [head]}}
"""
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
OUT = Path("studies") / "small"


class Here:
    """A folder in which commands are typed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        self.folder = folder
        self.capsys = capsys
        monkeypatch.chdir(folder)

    def types(self, *arguments: object) -> str:
        """What a command prints."""
        self.capsys.readouterr()
        cli.app(["study", *map(str, arguments)], standalone_mode=False)
        return self.capsys.readouterr().out

    def refused(self, *arguments: object) -> str:
        """The one line of an error for users."""
        with pytest.raises(ProbeError) as caught:
            self.types(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("study")
    (made / "small.yaml").write_text(SPEC)
    return made


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Here:
    return Here(folder, monkeypatch, capsys)


@pytest.fixture
def ran(here: Here) -> Here:
    """The same after a small study."""
    if not (here.folder / OUT).is_dir():
        here.types("run", "small.yaml")
    return here


def test_a_spec_becomes_tables_and_again_there_is_nothing_to_do(here: Here) -> None:
    printed = here.types("run", "small.yaml")
    assert "small: 4 samples" in printed and printed.startswith("4 of 4 jobs done, 0 results")
    rows = {line.split("\t")[0]: line.split("\t") for line in printed.splitlines()}
    assert {"untouched", "blind", "fastv(k=2, keep=0.1)", "  random, 2 seeds"} <= rows.keys()
    assert "mass, mean of 4" in printed
    files = {path: path.read_bytes() for path in here.folder.rglob("results-*")}
    assert here.types("run", "small.yaml") == printed
    assert {path: path.read_bytes() for path in here.folder.rglob("results-*")} == files
    assert printed.endswith(here.types("show", OUT))


def test_status_says_how_far_it_is(ran: Here) -> None:
    cells = 1 + 1 + 2 * (1 + 2 + 1) + 1
    said = ran.types("status", OUT)
    assert f"4 of 4 jobs done; {4 * cells} of {4 * cells} results, 0 failed" in said


def test_the_numbers_are_those_of_the_exported_rows(ran: Here) -> None:
    for name in ("rows.parquet", "rows.csv"):
        assert name in ran.types("export", OUT, name)
    table, text = pd.read_parquet("rows.parquet"), pd.read_csv("rows.csv")
    np.testing.assert_allclose(table["margin"], text["margin"])
    data = json.loads(ran.types("show", OUT, "--json"))
    full = table[table["role"] == "untouched"].set_index("sample")["margin"]
    rows = [row for row in data["scores"] if row["role"] in ("ablation", "blind")]
    assert len(rows) == 2 * 3
    for row in [row for row in rows if row["score"] == "margin"]:
        own = table[table["label"] == row["label"]].set_index("sample")["margin"]
        assert row["mean"] == pytest.approx(own.mean())
        assert row["difference"] == pytest.approx((own - full).mean())
    assert {row["versus"] for row in data["curves"]} == {"", "blind", "random", "uniform frames"}


def test_markdown_and_a_figure(ran: Here) -> None:
    printed = ran.types("show", OUT, "--markdown", "--figure", "curve.png")
    assert printed.startswith("# small\n") and "## fastv(k=2, keep=…), margin" in printed
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


def test_bad_input_is_one_line(ran: Here) -> None:
    Path("bad.yaml").write_text(SPEC.replace("frames: 4", "frmaes: 4"))
    said = ran.refused("run", "bad.yaml")
    assert "bad.yaml" in said and "frmaes" in said and "frames" in said
    assert "nowhere.yaml" in ran.refused("run", "nowhere.yaml")
    assert "no study" in ran.refused("show", "nowhere")
    assert "no study" in ran.refused("status", "nowhere")
    assert ".parquet" in ran.refused("export", OUT, "rows.xlsx")
    assert "curve.txt" in ran.refused("show", OUT, "--figure", "curve.txt")
    assert "not both" in ran.refused("show", OUT, "--json", "--markdown")
    assert "--workers 0" in ran.refused("run", "small.yaml", "--workers", 0)
    assert not Path("nowhere").exists()


def test_failures_are_counted_and_their_reasons_shown(here: Here) -> None:
    spec = SPEC.replace('"fastv(k=2, keep={keep})": {keep: [0.5, 0.1]}', "far: fastv(k=99)")
    Path("failing.yaml").write_text(spec.replace("random: 2, uniform: true", "random: 0"))
    printed = here.types("run", "failing.yaml", "--out", "failing")
    assert "4 of 4 jobs done, 4 results failed" in printed
    assert "4 results failed" in printed.partition("small: 4 samples")[2] and "99" in printed
    said = here.types("status", "failing")
    assert "4 failed" in said and "failed 4 x: " in said and "--retry" in said


def test_ctrl_c_says_where_the_results_are_and_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(SPEC.replace("n: 4", "n: 500"))
    line = [sys.executable, "-m", "probe.cli", "study", "run", "long.yaml", "--out", "results"]
    worker = subprocess.Popen(
        line, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + 100
    while not any(path.stat().st_size for path in tmp_path.rglob("results-*.jsonl")):
        assert worker.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    worker.send_signal(signal.SIGINT)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 130 and "Traceback" not in said
    assert "`probe study run long.yaml --out results` goes on from there" in said
    status = Store(tmp_path / "results").status()
    assert 1 <= status["done"] < 500


@pytest.mark.parametrize("name", sorted(path.name for path in SPECS.glob("*.yaml")))
def test_the_examples_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SPECS.parent)
    study = Study.read(SPECS / name)
    assert len(study.cells()) >= 2


@pytest.mark.full
def test_the_example_of_ones_own_clips_runs(here: Here) -> None:
    for name in ("own_clips.yaml", "own_clips.jsonl"):
        Path(name).write_text((SPECS / name).read_text())
    rows = [json.loads(line) for line in (SPECS / "own_clips.jsonl").read_text().splitlines()]
    Path("clips").mkdir()
    for number, file in enumerate(dict.fromkeys(row["file"] for row in rows)):
        item = testbed.items("neutral", n=1, seed=number, types=["color"])[0]
        item.write(Path("clips", file))
    printed = here.types("run", "own_clips.yaml", "--out", "own")
    assert f"{len(rows)} of {len(rows)} jobs done, 0 results failed" in printed
    Path("clips", rows[-1]["file"]).unlink()
    said = here.refused("run", "own_clips.yaml")
    assert "own_clips.jsonl" in said and rows[-1]["file"] in said
