"""Every notebook runs from top to bottom, and is stored with the outputs a reader looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SLOW = ("02_another_checkpoint", "03_ablations", "04_how_right")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_its_outputs(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs the `notebook` extra")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len([cell for cell in code if cell.outputs]) > 5, "store it with its outputs"
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.full] if path.stem in SLOW else [])
        for path in NOTEBOOKS
    ],
)
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")  # the kernel's own machinery warns
def test_runs(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the `notebook` extra")
    nbformat = pytest.importorskip("nbformat", reason="needs the `notebook` extra")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert "Traceback" not in output.get("text", "")
