"""The documented example of a model that is not in transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from probe import ProbeError, load
from probe.ablate import fastv
from probe.capture import AttentionMass
from probe.doctor import doctor
from probe.models import family as registry
from probe.models import register
from tests.tiny import clip


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch):
    path = Path(__file__).parents[2] / "experiments" / "own_family.py"
    spec = importlib.util.spec_from_file_location("own_family", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    monkeypatch.setattr(registry, "_FAMILIES", {})
    return made


def test_it_is_unknown_until_it_is_registered(own) -> None:
    with pytest.raises(ProbeError, match=r"no token layout.*register\(Family"):
        load(own.build())
    register(own.FAMILY)
    model = load(own.build())
    x = model.encode(clip(4), "What moves?", frames=None)
    run = model.run(x, [AttentionMass()], [fastv(1, 0.5)])
    assert len(x.layout.select("video")) == 4 * 9
    assert run.kept[:, x.layout.select("video")].sum("position").values.tolist() == [36, 18, 18]
    assert model.generate(x, max_new_tokens=3).text is not None


def test_the_doctor_finds_nothing_wrong(own) -> None:
    register(own.FAMILY)
    report = doctor(load(own.build()))
    assert report.ok, [check for check in report.checks if check.status == "failed"]
