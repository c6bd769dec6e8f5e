"""What must not be imported until it is used, and that array types are checked in tests."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from jaxtyping import TypeCheckError

HEAVY = ("torch", "transformers", "pandas", "plotly")


def heavy_after(code: str) -> list[str]:
    """Which heavy packages a fresh interpreter holds after running the code."""
    report = f"import sys; print('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rsplit("HEAVY", 1)[1].split()


@pytest.mark.parametrize(
    "code",
    [
        "import probe",
        "import probe.capture",
        "import probe.ablate",
        "import probe.video",
        "import probe; probe.read_video",
        "import sys; sys.argv = ['probe', '--help']\n"
        "from probe.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code",
    ],
)
def test_light(code: str) -> None:
    assert heavy_after(code) == []


def test_heavy_is_seen() -> None:
    assert heavy_after("import pandas") == ["pandas"]


def test_help_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "probe.cli", "--help"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_top_level() -> None:
    import probe
    from probe.engine.result import open_run
    from probe.models.loading import load
    from probe.video import read

    assert (probe.load, probe.open, probe.read_video) == (load, open_run, read)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        probe.nothing_like_it  # noqa: B018


def test_array_types_are_checked() -> None:
    from probe.video.orient import UPRIGHT, turn

    assert turn(np.zeros((2, 3, 3), np.uint8), UPRIGHT).shape == (2, 3, 3)
    with pytest.raises(TypeCheckError):
        turn(np.zeros((2, 3, 3), np.float32), UPRIGHT)
    with pytest.raises(TypeCheckError):
        turn(np.zeros((2, 3, 4), np.uint8), UPRIGHT)
