"""`probe run` and `probe demo` from the command line to the files a user opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import probe

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"
CLIPS = sorted(path.name for path in VIDEOS.glob("*.m*") if path.suffix in (".mp4", ".mkv"))


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "probe.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
    )


def check_report(out: Path) -> dict:
    page = (out / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert (out / "figures" / "overview.pdf").read_bytes().startswith(b"%PDF")
    assert (out / "figures" / "overview.png").stat().st_size > 10_000
    data = xr.open_zarr(out / "data.zarr")
    sums = data.attention_mass.sum("key_group")
    assert float(abs(sums - 1).max()) < 1e-5
    assert not list(out.parent.glob(f".{out.name}-*"))
    return json.loads((out / "manifest.json").read_text())


@pytest.mark.timeout(300)
def test_demo(tmp_path: Path) -> None:
    done = command("demo", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "checks: all passed" in done.stdout
    assert [f"{n}. " in done.stdout for n in range(1, 6)] == [True] * 5
    manifest = check_report(tmp_path / "report")
    assert manifest["command"] == "probe demo --seed 0"
    assert manifest["versions"]["probe"] == probe.__version__
    again = command("demo", "--out", "report", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout == done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if "nasa" in n else pytest.mark.full) for n in CLIPS]
)
def test_run_on_real_clips(name: str, tmp_path: Path) -> None:
    arguments = ["--ask", "What happens?", "--frames", 4, "--max-new-tokens", 4, "--out", "out"]
    done = command("run", VIDEOS / name, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "knows only coloured shapes" in done.stderr
    assert "Traceback" not in done.stderr
    manifest = check_report(tmp_path / "out")
    assert manifest["settings"]["video"] == name
    assert "knows only coloured shapes" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("name", CLIPS or ["none"])
def test_the_model_takes_every_real_clip(name: str) -> None:
    if name == "none":
        pytest.skip("the folder of shared videos is not there")
    model = probe.load("testbed/onevision")
    x = model.encode(VIDEOS / name, "What happens?", frames=4)
    assert len(x.layout.seconds) == 4 and (x.layout.ends > x.layout.seconds).all()
    run = model.run(x)
    assert model.generate(x, max_new_tokens=2).logits[0].argmax() == run.logits[0].argmax()
