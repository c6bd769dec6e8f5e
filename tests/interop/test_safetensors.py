"""Activations in a safetensors file: equal, lazy, and readable without probe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file

from probe import ProbeError
from probe.ablate import fastv
from probe.capture import Activations, AttentionMass, Contributions, LogitLens
from probe.engine.result import Run
from probe.interop import open_activations, save_activations
from probe.models.video_model import VideoModel
from tests.tiny import example

READS = [Activations(positions="all"), Activations("head", "video"), LogitLens(), AttentionMass()]


@pytest.fixture(scope="module")
def run(tiny: VideoModel) -> Run:
    return tiny.run(example(tiny, answer="red"), READS, [fastv(2, 0.5)])


def test_what_is_opened_is_what_was_saved(run: Run, tmp_path: Path) -> None:
    path = save_activations(run, tmp_path / "deep" / "run.safetensors")
    for name in ("activations", "activations_2"):
        found = open_activations(path, name)
        xr.testing.assert_identical(found, run.data[name])
    assert open_activations(path).name == "activations"
    assert [file.name for file in path.parent.iterdir()] == ["run.safetensors"]
    plain = load_file(path)
    np.testing.assert_array_equal(plain["activations"], run.data.activations.values)


def test_named_variables_and_steps(tiny: VideoModel, tmp_path: Path) -> None:
    run = tiny.generate(example(tiny), [Activations(), Contributions()], max_new_tokens=3)
    names = ["contributions", "contributions_logit", "activations"]
    path = save_activations(run, tmp_path / "run.safetensors", names)
    for name in names:
        xr.testing.assert_identical(open_activations(path, name), run.data[name])


@pytest.mark.parametrize(
    "index",
    [
        {"layer": 1},
        {"layer": -1, "position": slice(3, 9)},
        {"position": slice(20, 2, -3)},
        {"position": [9, 3, 4, 3, 40], "channel": slice(None, None, 5)},
        {"layer": [3, 0], "position": [1, 30], "channel": 7},
        {"position": []},
        {"position": slice(5, 5)},
        {"layer": 2, "position": 11, "channel": 0},
        {"position": [5, 6, 7, 20], "layer": slice(1, 3)},
    ],
    ids=str,
)
def test_every_index_is_numpy_s(run: Run, tmp_path: Path, index: dict) -> None:
    path = save_activations(run, tmp_path / "run.safetensors")
    found = open_activations(path).isel(index)
    xr.testing.assert_identical(found.load(), run.data.activations.isel(index))


def test_vectorized_and_labelled_indices(run: Run, tmp_path: Path) -> None:
    path = save_activations(run, tmp_path / "run.safetensors")
    found, expected = open_activations(path), run.data.activations
    points = {"layer": ("point", [0, 2, 3]), "position": ("point", [8, 1, 40])}
    xr.testing.assert_identical(found.isel(points).load(), expected.isel(points))
    xr.testing.assert_identical(found.sel(position=[3, 9]).load(), expected.sel(position=[3, 9]))
    xr.testing.assert_identical(found[1:][:, ::2].load(), expected[1:][:, ::2])
    xr.testing.assert_allclose(found.mean("channel"), expected.mean("channel"))


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    layers, positions, channels = 40, 250_000, 1000  # 40 GB: only holes on disk
    coords = {"layer": list(range(layers)), "position": [0], "channel": [0]}
    variables = {"activations": {"coords": coords, "attrs": {}}}
    coords |= {"position": list(range(positions)), "channel": list(range(channels))}
    end = 4 * layers * positions * channels
    shape = [layers, positions, channels]
    header = json.dumps(
        {
            "__metadata__": {"probe": json.dumps({"variables": variables})},
            "activations": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]},
        }
    ).encode()
    path = tmp_path / "large.safetensors"
    first = 8 + len(header)
    values = np.arange(channels, dtype=np.float32)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(first + end)
    array = open_activations(path)
    rows = array.sel(layer=20, position=[3, 249_999])  # nothing is read yet
    with path.open("r+b") as file:
        file.seek(first + 4 * ((20 * positions + 249_999) * channels))
        file.write(values.tobytes())
    np.testing.assert_array_equal(rows.values, [0 * values, values])
    assert path.stat().st_blocks * 512 < 10e6


def test_a_saved_run_opens_in_plain_xarray(run: Run, tmp_path: Path) -> None:
    path = run.save(tmp_path / "run.zarr")
    found = xr.open_zarr(path, group="data", consolidated=False)
    xr.testing.assert_identical(found.load(), run.data)
    assert found.attention_mass.attrs["units"] == "1"
    assert found.sel(layer=1, key_group="frame 2").attention_mass.dims == ("head", "query_group")


def test_one_line_errors(run: Run, tmp_path: Path) -> None:
    path = save_activations(run, tmp_path / "run.safetensors")
    with pytest.raises(ProbeError, match="has no 'mlp'; there are activations, activations_2"):
        open_activations(path, "mlp")
    with pytest.raises(ProbeError, match="mlp: not in this run; capture"):
        save_activations(run, tmp_path / "other", ["mlp"])
    with pytest.raises(ProbeError, match="logit_lens_token: is text"):
        save_activations(run, tmp_path / "other", ["logit_lens_token"])
    with pytest.raises(ProbeError, match="cannot be written"):
        save_activations(run, path / "below")
    (tmp_path / "text").write_text("nothing")
    for wrong in ("text", "missing"):
        with pytest.raises(ProbeError, match="not a file of activations"):
            open_activations(tmp_path / wrong)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.safetensors", "text"]
