"""The README's code runs as it stands."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from probe import load, testbed
from probe.capture import AttentionRows
from probe.models import family as registry

README = Path(__file__).parents[1] / "README.md"


def block(number: int) -> str:
    """A block of the README's Python."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)[number]


def run_block(number: int, **given) -> dict:
    """Names that a block defines when it is run as a script."""
    names: dict = {"__name__": "__main__", **given}
    exec(compile(block(number), "README.md", "exec", dont_inherit=True), names)
    return names


def test_the_notebook_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = testbed.items("neutral", n=1, seed=3, types=["direction"])[0]
    item.write(tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    names = run_block(0)
    mass = names["run"].data.attention_mass
    assert mass.sizes["layer"] == names["model"].n_layers
    np.testing.assert_allclose(mass.sum("key_group"), 1, atol=1e-5)


def test_the_interop_example(tmp_path: Path) -> None:
    pytest.importorskip("nnsight")
    pytest.importorskip("transformer_lens")
    model = load("testbed/onevision")
    frames = testbed.items("neutral", n=1, seed=3)[0].frames()
    x = model.encode(frames, "What moves?", seconds=np.arange(16) / 8)
    corrupted = model.encode(frames * 0 + 127, "What moves?", seconds=np.arange(16) / 8)
    script = tmp_path / "script.py"  # nnsight reads the source of a trace from its file
    script.write_text(block(1))
    given = {"model": model, "x": x, "corrupted": corrupted, "torch": torch}
    names = runpy.run_path(str(script), init_globals=given)
    plain, patched = model.run(corrupted).logits[-1], names["logits"].numpy()
    assert np.abs(patched - plain).max() > 1e-2
    assert names["cache"].decompose_resid().sum(0).shape[-1] == model.width


def test_the_model_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FAMILIES", {})
    own = runpy.run_path(str(README.parent / "experiments" / "own_family.py"))
    hf_model, processor = own["build"]()
    given = {"OwnVideoLM": own["OwnVideoLM"], "hf_model": hf_model, "processor": processor}
    model = run_block(2, **given)["model"]
    x = model.encode(np.zeros((4, 48, 48, 3), np.uint8), "What moves?")
    assert len(x.layout.select("video")) == 36 and model.run(x).logits.shape[0] == 1


def test_the_capture_of_ones_own(tiny) -> None:
    capture = run_block(3)["SinkShare"](layers=[0, 2])
    frames = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)
    x = tiny.encode(frames, "What moves?", seconds=np.arange(4))
    run = tiny.run(x, [capture, AttentionRows("last")])
    dense = run.data.attention_rows.sel(layer=[0, 2]).isel(query=0, position=0)
    np.testing.assert_allclose(run.data.sink_share.sel(layer=[0, 2]), dense, atol=1e-6)
    generated = tiny.generate(x, [capture], max_new_tokens=3)
    assert generated.data.sink_share.dims == ("step", "layer", "head")


def test_files_that_the_readme_names_are_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / path).exists(), path
