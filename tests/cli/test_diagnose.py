"""`probe diagnose` and `probe diagnoses` as a user types them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from probe import ProbeError, cli, testbed
from probe.diagnose import case_of, diagnose
from probe.diagnose.base import SECTIONS
from probe.diagnose.registry import DIAGNOSES
from probe.listing_diagnoses import entries
from probe.models.loading import load

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FIGURE = Path(__file__).parents[2] / "figures" / "diagnoses.md"
OWN = "own_diagnosis:LastGlance"
ASK = ("--ask", "Which way does the triangle move?")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    item = testbed.items("neutral", n=1, seed=1012, types=["direction"])[0]
    return item.write(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """What a command prints; diagnoses of one's own are found."""
    monkeypatch.syspath_prepend(EXPERIMENTS)

    def typed(*arguments: object) -> str:
        capsys.readouterr()
        cli.app(["diagnose", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return typed


def refused(types, *arguments: object) -> str:
    with pytest.raises(ProbeError) as caught:
        types(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def own_module() -> dict:
    return runpy.run_path(str(EXPERIMENTS / "own_diagnosis.py"))


def test_one_clip(types, clip: Path) -> None:
    answers = ("--answer", "up", "--option", "up", "--option", "down", "--frames", 8)
    data = json.loads(types(OWN, clip, *ASK, *answers, "--json"))
    [found] = data["diagnoses"]
    assert found["diagnosis"] == "LastGlance()" and data["answer"] == "up"
    cut = found["arrays"]["cut"]
    assert cut["dims"] == ["layer"] and cut["coords"]["layer"] == list(range(6))
    printed = types(f"{OWN}(keep=0.5)", clip, *ASK, *answers)
    assert "LastGlance(keep=0.5)" in printed
    assert f"margin       {found['values']['margin']:.4g}" in printed
    assert printed.count("\n    ") == 2  # the layers, and a margin for each


def test_many_items_are_pooled(types) -> None:
    data = json.loads(types(OWN, "--testbed", 2, "--seed", 4, "--json"))
    [found] = data["diagnoses"]
    pool = {row["name"]: row for row in found["pool"]}
    assert list(pool) == ["margin", "last_glance", "wrong without any cut"]
    model, one = load("testbed/onevision"), own_module()["LastGlance"]()
    cases = [case_of(model, item) for item in testbed.items("neutral", n=2, seed=4)]
    values = [diagnose(case, [one])[one] for case in cases]
    own = np.mean([v["margin"] for v in values])
    assert pool["margin"]["value"] == pytest.approx(own, abs=1e-4)
    mean = np.mean([v["cut"].values for v in values], 0)
    np.testing.assert_allclose(found["arrays"]["cut"]["mean"]["data"], mean, atol=1e-4)
    assert found["cases"] == 2 and found["arrays"]["cut"]["n"]["data"] == [2] * 6
    printed = types(OWN, "--testbed", 1)
    assert "LastGlance(); 1 of 1 items" in printed and "cut: mean of 1" in printed


def test_a_section_runs_what_fits(types, monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    own = own_module()["LastGlance"]
    needy = type("Needy", (own,), {"needs": ("truth",), "__doc__": "Needs truth."})
    monkeypatch.setattr("probe.diagnose.diagnoses", lambda: {"LastGlance": own, "Needy": needy})
    data = json.loads(types("redundancy", clip, *ASK, "--answer", "up", "--frames", 4, "--json"))
    assert [one["diagnosis"] for one in data["diagnoses"]] == ["LastGlance()"]
    assert list(data["left_out"]) == ["Needy()"] and "known truth" in data["left_out"]["Needy()"]
    assert "none fits" in refused(types, "redundancy", clip, *ASK, "--frames", 4)


def test_bad_input_is_one_line(types, clip: Path) -> None:
    assert "'nonsense' is not known" in refused(types, "nonsense", clip, *ASK)
    some = sorted(DIAGNOSES)[0]
    assert some in refused(types, f"{some}s()", clip, *ASK)
    assert "--ask" in refused(types, OWN, clip)
    assert "--testbed" in refused(types, OWN)
    assert "--testbed" in refused(types, OWN, clip, "--testbed", 2)
    assert "--testbed 0" in refused(types, OWN, "--testbed", 0)
    assert "no split" in refused(types, OWN, "--testbed", 2, "--split", "sideways")
    assert "--answer" in refused(types, OWN, clip, *ASK, "--option", "up")
    assert "--answer" in refused(types, OWN, clip, *ASK, "--frames", 4)  # it needs one
    assert "keeps" in refused(types, f"{OWN}(keeps=2)", clip, *ASK)
    assert "no_such_module" in refused(types, "no_such_module:Mine()", clip, *ASK)
    assert "nowhere.mp4" in refused(types, OWN, "nowhere.mp4", *ASK)


def test_the_list_has_every_diagnosis_with_its_source(capsys: pytest.CaptureFixture) -> None:
    rows = entries()
    assert sorted(row.call.partition("(")[0] for row in rows) == sorted(DIAGNOSES)
    for row in rows:
        assert row.section in SECTIONS and row.what and row.needs, row
    sections = [SECTIONS.index(row.section) for row in rows]
    assert sections == sorted(sections)
    cli.app(["diagnoses"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) + 1 and all(line.count("\t") == 4 for line in lines)
    cli.app(["diagnoses", "--markdown"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed == FIGURE.read_text(), "see figures/README.md for the command"
    text = printed.replace("\\|", "")
    assert {line.count("|") for line in text.splitlines()} == {0, 5}
    assert text.count("\n| `") == len(rows)


def test_long_defaults_are_left_out_of_the_list() -> None:
    calls = {row.call.partition("(")[0]: row.call for row in entries()}
    assert calls["FindsEvidence"] == "FindsEvidence(maps=..., heads=True, least=0.25)"
    assert calls["Blackout"] == 'Blackout(width=0, blind="blackout", least=0.1)'
    assert max(map(len, calls.values())) < 120


def test_ones_own_finds_what_was_put_in() -> None:
    """Margins that a model loses layer by layer, through a case that says so."""
    one = own_module()["LastGlance"]()

    class Known:
        model = type("Model", (), {"n_layers": 4})

        def sweep(self, ablations: list) -> dict:
            assert [str(a[0].layers) for a in ablations] == ["0-", "1-", "2-", "3-"]
            return {"value": np.array([10.0, -2, 5, 9.5, 10])}

    found = one.measure(Known())
    assert found["last_glance"] == 2 and found["margin"] == 10
    assert found["cut"].values.tolist() == [-2, 5, 9.5, 10]
