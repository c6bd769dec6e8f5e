"""A report appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from probe.errors import ProbeError
from probe.plot import gallery, style
from probe.plot.answer import generated_tokens
from probe.report import write as writing
from probe.report.findings import Findings
from probe.report.write import check_out, save_data, write
from tests.report import example


@pytest.fixture(scope="module")
def found() -> Findings:
    return example.findings()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One figure instead of all of them, and only a little data."""

    def one(findings: Findings) -> Iterator:
        yield "generated_tokens", generated_tokens(findings.tokens)

    monkeypatch.setattr(gallery, "figures", one)
    monkeypatch.setattr(writing, "save_data", lambda findings, path: path.mkdir())


def test_everything_is_there(found: Findings, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    write(found, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(writing.ENTRIES)
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert {"overview.pdf", "overview.png", "kept_tokens.pdf", "logit_lens.png"} <= drawn
    assert len({Path(name).stem for name in drawn}) * 2 == len(drawn)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"] == "probe demo --seed 0"
    assert manifest["answer"] == "red circle"
    assert all((out / name).exists() for name in manifest["files"])
    assert (out / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_data_can_be_opened_again(found: Findings, tmp_path: Path) -> None:
    save_data(found, tmp_path / "data.zarr")
    back = xr.open_zarr(tmp_path / "data.zarr")
    for name in found.data:
        np.testing.assert_array_equal(back[name].values, found.data[name].values)
        assert back[name].dims == found.data[name].dims
    assert back.attention_mass.attrs["units"] == "1"
    assert back.attrs["question"] == example.QUESTION
    kept = xr.open_zarr(tmp_path / "data.zarr", group="kept").to_dataframe()
    np.testing.assert_array_equal(kept["margin"], found.redundancy["kept"]["margin"])
    assert kept["score"].tolist() == found.redundancy["kept"]["score"].tolist()
    layout = xr.open_zarr(tmp_path / "data.zarr", group="layout").to_dataframe()
    assert len(layout) == len(found.layout)
    checks = xr.open_zarr(tmp_path / "data.zarr", group="checks")
    assert checks.passed.values.all()


def test_a_report_is_replaced_as_a_whole(found: Findings, tmp_path: Path, quick) -> None:
    out = tmp_path / "report"
    write(found, out)
    (out / "figures" / "stale.pdf").touch()
    write(example.findings(question="Another?"), out)
    assert not (out / "figures" / "stale.pdf").exists()
    assert "Another?" in (out / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_changes_nothing(
    error: BaseException, found: Findings, tmp_path: Path, quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write(found, out)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    calls = []

    def fail(figure: object, stem: Path) -> list[Path]:
        calls.append(stem)
        stem.with_suffix(".pdf").write_text("half")
        raise error

    monkeypatch.setattr(style, "save", fail)
    with pytest.raises(type(error)):
        write(example.findings(question="Another?"), out)
    assert calls
    assert {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_full_disk_is_one_line(
    found: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "save_data", full)
    monkeypatch.setattr(gallery, "figures", lambda findings: iter(()))
    with pytest.raises(ProbeError, match="No space left"):
        write(found, tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_if_the_move_fails_the_old_report_stays(
    found: Findings, tmp_path: Path, quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write(found, out)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.startswith(".report-"):
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ProbeError, match="cannot be written"):
        write(example.findings(question="Another?"), out)
    assert example.QUESTION in (out / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def foreign_file(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("mine")


def foreign_manifest(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "a web page"}')


def broken_manifest(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text("{")


def extra_beside_a_report(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"kind": writing.KIND}))
    (out / "notes.txt").write_text("mine")


def a_file(out: Path) -> None:
    out.write_text("mine")


@pytest.mark.parametrize(
    "make", [foreign_file, foreign_manifest, broken_manifest, extra_beside_a_report, a_file]
)
def test_what_is_not_ours_is_refused(
    make: Callable[[Path], None], found: Findings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make(out)
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    for refuse in (lambda: check_out(out), lambda: write(found, out)):
        with pytest.raises(ProbeError) as caught:
            refuse()
        assert str(out) in str(caught.value) and "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ProbeError, match="cannot be written"):
        check_out(tmp_path / "file" / "below")
    with pytest.raises(ProbeError, match="cannot be written"):
        check_out("/proc/report")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProbeError, match="the folder you are in"):
        check_out(".")


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert check_out(tmp_path / "empty") == (tmp_path / "empty").resolve()
    check_out(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_empty_folder_is_filled(found: Findings, tmp_path: Path, quick) -> None:
    (tmp_path / "empty").mkdir()
    write(found, tmp_path / "empty")
    assert (tmp_path / "empty" / "manifest.json").exists()
