"""The README's code runs as it stands."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from probe import load, testbed
from probe.capture import AttentionRows
from probe.models import family as registry

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)


def block(word: str) -> str:
    """The one block of the README's Python that has this in it."""
    [found] = [b for b in BLOCKS if word in b]
    return found


def run_block(word: str, **given) -> dict:
    """Names that a block defines when it is run as a script."""
    names: dict = {"__name__": "__main__", **given}
    exec(compile(block(word), "README.md", "exec", dont_inherit=True), names)
    return names


def test_the_notebook_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = testbed.items("neutral", n=1, seed=3, types=["direction"])[0]
    item.write(tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    names = run_block('probe.load("testbed')
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
    script.write_text(block("to_nnsight"))
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
    model = run_block("OwnVideoLM", **given)["model"]
    x = model.encode(np.zeros((4, 48, 48, 3), np.uint8), "What moves?")
    assert len(x.layout.select("video")) == 36 and model.run(x).logits.shape[0] == 1


def test_the_capture_of_ones_own(tiny) -> None:
    capture = run_block("SinkShare")["SinkShare"](layers=[0, 2])
    frames = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)
    x = tiny.encode(frames, "What moves?", seconds=np.arange(4))
    run = tiny.run(x, [capture, AttentionRows("last")])
    dense = run.data.attention_rows.sel(layer=[0, 2]).isel(query=0, position=0)
    np.testing.assert_allclose(run.data.sink_share.sel(layer=[0, 2]), dense, atol=1e-6)
    generated = tiny.generate(x, [capture], max_new_tokens=3)
    assert generated.data.sink_share.dims == ("step", "layer", "head")


def test_the_ablation_example() -> None:
    model = load("testbed/onevision")
    item = testbed.items("neutral", n=1, seed=3, types=["direction"])[0]
    x = model.encode(item.frames()[:6], item.question.text, seconds=np.arange(6) / 8)
    names = run_block("PerFrame(), score=TextQuery()", model=model, x=x)
    run, table = names["run"], names["table"]
    assert len(run.reductions[0].anchors) == 6 * 9
    assert run.cost.macs < run.cost.macs_full
    assert table["ablation"].iloc[0] == "nothing" and len(table) > 2 + model.n_layers
    assert table["value"].nunique() > 5


def test_the_ablation_and_the_score_of_ones_own(tiny) -> None:
    from probe.ablate import Reduce, layer

    frames = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)
    x = tiny.encode(frames, "What moves?", seconds=np.arange(4))
    blur = run_block("class TimeBlur")["TimeBlur"](layer=1)
    centre = run_block("class Centre")["Centre"]()
    plain = tiny.run(x).logits
    for one in (blur, Reduce(at=layer(1), score=centre, keep=0.5)):
        assert np.abs(tiny.run(x, ablate=[one]).logits - plain).max() > 1e-3
    source = (README.parent / "experiments" / "own_ablation.py").read_text()
    assert block("class TimeBlur").partition("@dataclass")[2] in source
    assert block("class Centre").partition("@dataclass")[2] in source


def test_methods_and_operators_that_the_readme_names_are_all_there_are() -> None:
    from probe.ablate import parse
    from probe.ablate.registry import OPERATORS, RECIPES

    text = README.read_text()
    part = text[text.index("## Ablations") : text.index("**Every reduction comes")]
    lists = part[part.index("- frames:") :]
    assert set(re.findall(r"`(\w+)`", lists)) == set(RECIPES)
    missing = [name for name in OPERATORS if not re.search(rf"`{name}\b", part)]
    assert not missing
    table = part[part.index("| part | says") : part.index("```python")]
    for call in re.findall(r"`([A-Z]\w+\(.*?\)|[a-z_]+\(\w*\))`", table):
        if call not in ("layer(k)", "mid(k)", "vision(l)", "Step(...)"):
            parse(f"Reduce(at=layer(2), keep=0.5, then=[{call}])")  # the part can be written


def test_files_that_the_readme_names_are_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / path).exists(), path


def test_the_diagnosis_example() -> None:
    model = load("testbed/onevision")
    item = testbed.items("neutral", n=1, seed=3, types=["direction"])[0]
    x = model.encode(item.frames()[:6], item.question.text, seconds=np.arange(6) / 8)
    names = run_block("ClipMargins(), TokensNeeded()", model=model, x=x)
    margins, needed = (dict(values) for values in names["found"].values())
    assert np.isfinite(margins["margin_blind"]) and 0 <= needed["needed"] <= 6 * 36
    assert names["GradientMap"]("norm").painted(names["case"]).shape[0] == 6


def test_the_diagnosis_of_ones_own() -> None:
    own = (README.parent / "experiments" / "own_diagnosis.py").read_text()
    assert block("class LastGlance").partition("@dataclass")[2] in own


def test_the_study_is_the_one_that_is_there() -> None:
    (spec,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), flags=re.S)
    path = README.parent / re.findall(r"# (\S+)\n", spec)[0]
    assert yaml.safe_load(spec) == yaml.safe_load(path.read_text())
