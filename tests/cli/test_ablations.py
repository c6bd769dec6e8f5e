"""`probe ablations`, `probe sweep` and `probe run --ablate` as a user types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import probe
from probe import ProbeError, ablate, testbed
from probe.ablate.base import PLACES
from probe.ablate.registry import OPERATORS, PARTS, RECIPES
from probe.catalogue import KINDS, catalogue, entry
from probe.report.ablated import amount, by_layer
from probe.report.sweep_command import named

FIGURE = Path(__file__).parents[2] / "figures" / "ablations.md"
ASK = "In which direction does the triangle move?"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    item = testbed.items("neutral", n=1, seed=1012, types=["direction"])[0]
    return item.write(tmp_path_factory.mktemp("clips") / "clip.mp4")


def command(*arguments: object, columns: int = 100) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, "-m", "probe.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_the_catalogue_has_every_name_once() -> None:
    found = catalogue()
    by_kind = {kind: [one.name for one in found if one.kind == kind] for kind in KINDS}
    for kind, names in zip(KINDS, (OPERATORS, RECIPES, PARTS), strict=True):
        assert sorted(by_kind[kind]) == sorted(names)
    places = [PLACES.index(one.group) for one in found if one.kind != "Components"]
    assert places[: len(OPERATORS)] == sorted(places[: len(OPERATORS)])
    for one in found:
        assert one.what and "\n" not in one.what and one.what[-5:] != "et al", one.name
        assert one.group != "other" or one.kind == "Components", one.name
        assert one.kind == "Components" or one.source, one.name
        assert one.call.startswith(f"{one.name}(")
    fastv = next(one for one in found if one.name == "fastv")
    assert fastv.group == "hidden states" and fastv.prefill.endswith("%")


def test_the_committed_table_is_what_the_command_prints() -> None:
    done = command("ablations", "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout == FIGURE.read_text(), "see figures/README.md for the command"
    widths = {line.count("|") for line in done.stdout.replace("\\|", "").splitlines()} - {0}
    assert widths == {4, 7, 3}


def test_a_pipe_gets_tabs_and_a_terminal_a_hundred_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from probe import listing

    listing.ablations()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(OPERATORS) + len(RECIPES) + len(PARTS)
    assert all(line.count("\t") == 6 for line in lines)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")
    listing.ablations()
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    drawn = drawn[: next(i for i, line in enumerate(drawn) if line.startswith("prefill: "))]
    assert max(map(len, drawn)) <= 100
    names = {line.split(" ")[0] for line in drawn if line and line[0] != " "}
    assert {"Knockout", "fastv", "LastQuery", "OPERATORS"} <= names


def test_one_of_them_with_all_that_is_known() -> None:
    found, text = entry("dycoke")
    assert found.stages and "window" in text
    done = command("ablations", "fastv")
    assert done.returncode == 0
    assert done.stdout.startswith("fastv(k=2, keep=0.5)\nPublished methods, hidden states\n")
    assert "2403.06764" in done.stdout and "prefill: " in done.stdout
    with pytest.raises(ProbeError, match=r"'fastvv' is not known; is it fastv"):
        entry("fastvv")


def test_names_of_rows() -> None:
    rows = named(("fastv(keep=.1, k=3)", "fastv(); edvt()", "holitom(0.score=Random(1), k=3)"))
    first, second, third = rows
    assert first == "fastv(k=3, keep=0.1)"
    assert second.startswith("edvt(") and second.endswith("; fastv(k=2, keep=0.5)")  # by place
    assert third.startswith("holitom(keep=") and "0.score=Random(seed=1)" in third
    assert str(rows[third][0].score) == "Random(seed=1)"
    beside = named(("fastv(keep=.1, k=3)", "edvt()"), with_controls=True)
    assert [name for name in beside if name.startswith("fastv")] == [
        "fastv(k=3, keep=0.1)",
        "fastv(k=3, keep=0.1), score=Random(seed=0)",
        "fastv(k=3, keep=0.1), score=Uniform()",
    ]
    with pytest.raises(ProbeError, match="swaps a part of a reduction"):
        named(("edvt()",), with_controls=True)


def test_counts_by_layer_in_words() -> None:
    assert by_layer([576] * 6) == "576 in every layer"
    assert by_layer([1576, 58, 58, 7]) == "1,576 in layers 0, 58 in 1-2, 7 in 3"
    assert amount(1234567, "B") == "1.23 MB" and amount(12, "B") == "12 B"


@pytest.mark.timeout(240)
def test_sweep_is_the_sweep(clip: Path) -> None:
    texts = ["fastv(k=2, keep=0.1)", "Knockout('video -> question'); edvt()"]
    asked = [part for text in texts for part in ("--ablate", text)]
    done = command("sweep", clip, "--ask", ASK, *asked, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    model = probe.load("testbed/onevision")
    x = model.encode(clip, ASK, frames=16)
    expected = model.sweep(x, [ablate.parse(text) for text in texts])
    assert [row["ablation"] for row in found["rows"]] == expected["ablation"].tolist()
    np.testing.assert_allclose(
        [row["margin"] for row in found["rows"]], expected["value"], rtol=0, atol=1e-4
    )
    assert [row["answer"] for row in found["rows"]] == expected["answer"].tolist()
    run = model.run(x, ablate=ablate.parse(texts[0]))
    row = found["rows"][1]
    assert (row["macs"], row["macs_full"]) == (run.cost.macs, run.cost.macs_full)
    assert row["visual_tokens"] == [576, 576, 58, 58, 58, 58]
    plain = command("sweep", clip, "--ask", ASK, "--ablate", texts[0])
    head, *rows = (line.split("\t") for line in plain.stdout.splitlines())
    assert head[:3] == ["ablation", "margin", "change"] and len(rows) == 2
    assert rows[1][0] == texts[0] and "58 in 2-5" in rows[1][6]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ask", "What?", "--ablate", "nonsense()"], "'nonsense' is not known"),
        (["--ask", " ", "--ablate", "fastv()"], "the question is empty"),
        (["--ask", "What?", "--ablate", "fastv(k=9)"], "fastv(k=9, keep=0.5): reduce: layer 9"),
        (["--ask", "What?", "--ablate", "LastQuery()"], "is not an ablation"),
        (["--ask", "What?", "--ablate", "fastv(0.nothing=1)"], "no component 'nothing'"),
        (["--ask", "What?", "--ablate", "edvt()", "--controls"], "--controls swaps"),
        (["--ask", "What?", "--ablate", "fastv()", "--model", "testbed/x"], "testbed/x"),
    ],
)
def test_bad_sweeps_are_one_line(arguments: list[str], words: str, clip: Path) -> None:
    done = command("sweep", clip, *arguments)
    assert done.returncode == 2 and not done.stdout
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("probe: ") and words in line


@pytest.mark.timeout(240)
def test_run_prints_what_ablations_left(clip: Path, tmp_path: Path) -> None:
    texts = ["holitom(k=3, 0.score=Random(seed=1)); edvt()", "Frames('reverse')", "Contrast()"]
    asked = [part for text in texts for part in ("--ablate", text)]
    short = ["--frames", 6, "--max-new-tokens", 2, "--out", tmp_path / "out"]
    done = command("run", clip, "--ask", ASK, *asked, *short)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "of the prefill MACs" in line]
    assert len(lines) == 3
    model = probe.load("testbed/onevision")
    run = model.run(model.encode(clip, ASK, frames=6), ablate=ablate.parse(texts[0]))
    tokens = by_layer(run.kept[:, run.layout.select("video")].sum("position").values.tolist())
    assert f"visual tokens: {tokens};" in lines[0] and "0.score=Random(seed=1)" in lines[0]
    assert f"{run.cost.macs / run.cost.macs_full:.0%} of the prefill MACs" in lines[0]
    assert "216 in every layer; 100%" in lines[1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "0.score=Random(seed=1)" in page and "nan%" not in page
