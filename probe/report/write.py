"""Writing a report: a folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.report.findings import Findings

KIND = "probe report"
ENTRIES = {"report.html", "figures", "data.zarr", "manifest.json"}


def check_out(out: str | Path) -> Path:
    """Refuse, before any work is done, a folder in which the report cannot be put.

    Returns:
        The folder's full path.

    Raises:
        ProbeError: a file, a folder with anything that is not a report, or one that cannot be
            written.
    """
    out = Path(out)
    place = _place(out)
    try:
        if place.exists():
            _check_ours(out, place)
        parent = next(folder for folder in place.parents if folder.exists())
        os.rmdir(tempfile.mkdtemp(prefix=".probe-", dir=parent))
    except OSError as error:
        raise ProbeError(f"{out}: cannot be written ({error.strerror}); choose another") from None
    return place


def write(findings: Findings, out: str | Path) -> Path:
    """Write report.html, figures/, data.zarr and manifest.json into a folder.

    Everything is made beside it first and moved into place at the end, so that a failure at any
    moment leaves what was there. A report that is there already is replaced as a whole.

    Args:
        findings: what to show.
        out: the folder.

    Returns:
        The folder's full path.

    Raises:
        ProbeError: see `check_out`.
    """
    place = check_out(out)
    making: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        _fill(findings, making)
        _open_to_others(making)
        _swap(making, place)
    except OSError as error:
        why = error.strerror or str(error)
        raise ProbeError(f"{out}: cannot be written ({why}); choose another") from None
    finally:
        if making is not None:
            shutil.rmtree(making, ignore_errors=True)
    return place


def save_data(findings: Findings, path: Path) -> None:
    """The numbers as one zarr store: the captured run at its root, each table as a group.

    `xarray.open_zarr(path)` gives the run; `group="kept"` and so on a table.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr, about string types in its newer format
        about = {
            "model": findings.model,
            "question": findings.question,
            "answer": findings.answer,
            "target": findings.target,
            "versus": findings.versus or "",
            "gold": findings.gold or "",
            "full_margin": findings.full_margin,
            "blind_margin": findings.blind_margin,
        }
        run = findings.data.assign_attrs(findings.data.attrs | about)
        run.to_zarr(path, mode="w", zarr_format=2, consolidated=True)
        for name, table in tables(findings).items():
            _dataset(table).to_zarr(path, group=name, mode="a", zarr_format=2, consolidated=True)


def tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every table of the findings by name, and the token layout."""
    return {
        "tokens": findings.tokens,
        **findings.redundancy,
        **findings.hallucination,
        "ablations": findings.ablations,
        "checks": findings.checks,
        "layout": findings.layout.to_frame(),
    }


def _fill(findings: Findings, folder: Path) -> None:
    from probe.plot.gallery import figures
    from probe.plot.style import save
    from probe.report.page import render_page

    (folder / "report.html").write_text(render_page(findings), "utf-8")
    (folder / "figures").mkdir()
    for name, figure in figures(findings):
        save(figure, folder / "figures" / name)
    save_data(findings, folder / "data.zarr")
    drawn = sorted(p.relative_to(folder).as_posix() for p in folder.glob("figures/*"))
    manifest: dict[str, Any] = {
        **findings.manifest,
        "kind": KIND,
        "model": findings.model,
        "question": findings.question,
        "answer": findings.answer,
        "files": [*drawn, "data.zarr", "report.html"],
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    (folder / "manifest.json").write_text(text + "\n", "utf-8")


def _place(out: Path) -> Path:
    try:
        return out.resolve()
    except (OSError, RuntimeError):
        raise ProbeError(f"{out}: is not a usable path; choose another folder") from None


def _check_ours(out: Path, place: Path) -> None:
    if not place.is_dir():
        raise ProbeError(f"{out}: is a file; name a folder for the report")
    if place == Path.cwd():
        raise ProbeError(f"{out}: is the folder you are in; name one inside it, as in --out report")
    there = sorted(entry.name for entry in place.iterdir())
    if not there:
        return
    try:
        manifest = json.loads((place / "manifest.json").read_text("utf-8"))
        ours = isinstance(manifest, dict) and manifest.get("kind") == KIND
    except (FileNotFoundError, NotADirectoryError, ValueError):
        ours = False
    if not ours:
        raise ProbeError(f"{out}: is not empty and holds no report; choose an empty or new folder")
    foreign = [name for name in there if name not in ENTRIES]
    if foreign:
        raise ProbeError(
            f"{out}: holds '{foreign[0]}' beside an earlier report, which would be replaced with "
            "everything in it; move it or choose another folder"
        )


def _open_to_others(folder: Path) -> None:
    """The rights a new folder would have; a temporary one is private."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


def _swap(new: Path, place: Path) -> None:
    """Put a folder in its place; what was there comes back if that fails."""
    if not place.exists():
        new.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}-old-", dir=place.parent))
    try:
        place.rename(old / "report")
        try:
            new.rename(place)
        except BaseException:
            (old / "report").rename(place)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _dataset(table: pd.DataFrame) -> xr.Dataset:
    import xarray as xr

    columns = {}
    for name in table:
        text = table[name].dtype.kind not in "biuf"
        values = table[name].astype(str).to_numpy(str) if text else table[name].to_numpy()
        columns[str(name)] = ("entry", values)
    return xr.Dataset(columns)
