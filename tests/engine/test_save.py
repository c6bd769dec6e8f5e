"""A saved run is the run, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import probe
from probe import ProbeError
from probe.ablate import fastv
from probe.capture import (
    Activations,
    AttentionMass,
    AttentionReceived,
    AttentionRows,
    Contributions,
    LogitLens,
    TokenNorms,
)
from probe.models.video_model import VideoModel
from tests.tiny import example


@pytest.mark.parametrize("way", ["run", "generate", "bare"])
def test_save_and_open(tiny: VideoModel, way: str, tmp_path: Path) -> None:
    x = example(tiny, options=["red", "blue"])
    reads = [
        AttentionMass(),
        AttentionReceived(),
        AttentionRows(),
        TokenNorms(),
        LogitLens(words=("r",)),
        LogitLens(top=2),
        Contributions("r"),
        Activations(),
    ]
    if way == "generate":
        run = tiny.generate(x, reads, [fastv(2, 0.5)], max_new_tokens=3)
    else:
        run = tiny.run(x, reads if way == "run" else [], [fastv(2, 0.5)])
    path = run.save(tmp_path / "a" / "run.zarr" if way == "run" else tmp_path / "run.zarr")
    found = probe.open(path)
    xr.testing.assert_identical(found.data.load(), run.data)
    xr.testing.assert_equal(found.kept.drop_vars("readout", errors="ignore"), run.kept)
    assert np.array_equal(found.logits, run.logits) and found.logits.dtype == np.float32
    assert found.readout.tolist() == run.readout.tolist()
    assert (found.cost, found.text, found.tokens, found.meta) == (
        run.cost,
        run.text,
        run.tokens,
        run.meta,
    )
    assert found.layout is None
    for readout in (0, -1):
        assert found.top(5, readout).equals(run.top(5, readout))
    with pytest.raises(ProbeError, match="is there already"):
        run.save(path)


def test_open_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    xr.Dataset({"a": 1}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    for name in ("empty", "file", "other.zarr", "missing"):
        with pytest.raises(ProbeError, match="not a run saved by probe"):
            probe.open(tmp_path / name)


def test_a_save_that_fails_leaves_nothing(tiny: VideoModel, tmp_path: Path, monkeypatch) -> None:
    run = tiny.run(example(tiny), [TokenNorms()])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(run.data), "to_zarr", full)
    with pytest.raises(ProbeError, match=r"cannot be written \(No space left on device\)"):
        run.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
