"""FindsEvidence on planted maps, whose numbers are known, and on the trained testbed model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest

import probe
from probe import testbed
from probe.diagnose import (
    AttentionMap,
    Case,
    CentreMap,
    EvidenceMap,
    FindsEvidence,
    OcclusionMap,
    RandomMap,
    UniformMap,
    case_of,
    diagnose,
    diagnoses,
    parse,
)
from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.truth import known
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.families import models
from tests.tiny import example


@dataclass(frozen=True)
class Away(ImportanceMap):
    """Backwards."""

    def scores(self, case: Case) -> np.ndarray:
        return -EvidenceMap().scores(case)


@dataclass(frozen=True)
class Anything(ImportanceMap):
    """Every object, whatever is asked."""

    def scores(self, case: Case) -> np.ndarray:
        truth = known(case)
        return (truth.evidence | truth.rivals).astype(float)


@cache
def cases(name: str = "onevision", split: str = "neutral") -> list[Case]:
    model = probe.load(f"testbed/{name}")
    types = ["color", "shape"] if split == "hidden" else ["color", "order"]
    return [case_of(model, item) for item in testbed.items(split, n=4, seed=5, types=types)]


def numbers(case: Case, *maps: ImportanceMap) -> dict:
    diagnosis = FindsEvidence(maps, heads=False)
    return diagnose(case, [diagnosis])[diagnosis]


@pytest.mark.parametrize("name", ["onevision", "qwen"])
def test_the_truth_is_perfect_and_a_constant_is_chance(name: str) -> None:
    for case in cases(name):
        found = numbers(case, EvidenceMap(), Away(), Anything(), UniformMap())
        truth = known(case)
        share = truth.evidence.sum() / truth.clear.sum()
        groups = len(np.unique(truth.group))
        frames = len(np.unique(truth.group[truth.evidence])) / groups
        perfect = {"auroc": 1, "average_precision": 1, "pointing": 1, "precision_within": 1}
        for metric, value in perfect.items():
            assert found[f"{metric} EvidenceMap()"] == pytest.approx(value)
        assert found["auroc Away()"] == 0 and found["pointing Away()"] == 0
        assert found["auroc UniformMap()"] == 0.5
        assert found["average_precision UniformMap()"] == pytest.approx(share)
        assert found["pointing UniformMap()"] == pytest.approx(share)
        assert found["auroc Anything()"] > 0.7
        if frames < 1:
            assert found["frame_recall EvidenceMap()"] == 1
            assert found["frame_recall UniformMap()"] == pytest.approx(frames)
        if truth.rivals.any():
            assert found["auroc_objects EvidenceMap()"] == 1
            assert found["auroc_objects Anything()"] == 0.5
        assert found["share"] == pytest.approx(truth.evidence.mean())
    assert any(known(case).rivals.any() for case in cases(name))


def test_without_evidence_everything_is_undefined() -> None:
    for case in cases("onevision", "hidden"):
        assert np.isnan(list(numbers(case, AttentionMap(), RandomMap()).values())).all()


def test_a_trained_model_attends_to_the_evidence() -> None:
    """Mean of four items; on sixty it is .89, against .50 and .74."""
    found = pd.DataFrame([numbers(c, AttentionMap(), RandomMap(), CentreMap()) for c in cases()])
    mean = found.mean()
    assert mean["auroc AttentionMap()"] > 0.8
    assert 0.4 < mean["auroc RandomMap()"] < 0.6
    assert mean["auroc AttentionMap()"] > mean["auroc CentreMap()"] + 0.05


def test_heads_are_the_maps_of_single_heads() -> None:
    case = cases()[0]
    found = diagnose(case, [FindsEvidence(AttentionMap())])[FindsEvidence(AttentionMap())]
    one = numbers(case, AttentionMap(4, 2))
    at = {"layer": 4, "head": 2}
    assert float(found["heads_auroc"].sel(at)) == one["auroc AttentionMap(layer=4, head=2)"]
    precision = float(found["heads_average_precision"].sel(at))
    assert precision == one["average_precision AttentionMap(layer=4, head=2)"]
    assert found["heads_auroc"].shape == (6, 4)


def test_the_pool_is_the_mean_over_items() -> None:
    made = FindsEvidence(AttentionMap(), heads=False)
    found = [numbers(case, AttentionMap()) for case in cases()]
    table = pd.DataFrame(found).assign(sample=range(4), video=range(4))
    row = made.pool(table).set_index("name").loc["auroc AttentionMap()"]
    assert row["value"] == pytest.approx(np.mean([one["auroc AttentionMap()"] for one in found]))
    assert row["low"] < row["value"] < row["high"] and row["n"] == 4


def test_truth_may_be_an_array(tiny: VideoModel) -> None:
    x = example(tiny)
    marked = np.zeros(len(x.layout), bool)
    marked[x.layout.select("frame 1")] = True
    case = Case(tiny, x, "r", ("r", "b"), truth=marked)
    found = numbers(case, EvidenceMap(), UniformMap())
    assert found["auroc EvidenceMap()"] == 1 and found["share"] == 4 / 20
    assert np.isnan(found["auroc_objects EvidenceMap()"])  # nobody says where other objects are
    case.truth = marked[:-1]
    with pytest.raises(ProbeError, match="an array of bool with one value for each of the"):
        numbers(case, EvidenceMap())
    case.truth = None
    with pytest.raises(ProbeError, match="needs known truth"):
        numbers(case, EvidenceMap())


FEW = ("instructblipvideo", "qwen3_vl")  # each treats tokens its own way


@pytest.mark.parametrize(
    "name",
    [n if n in FEW else pytest.param(n, marks=pytest.mark.full) for n in models.NAMES],
)
def test_in_every_family(name: str) -> None:
    """All default maps give a number for every token."""
    model = models.build(name)
    x = models.example(model)
    marked = np.zeros(len(x.layout), bool)
    marked[x.layout.select("video")[:3]] = True
    case = Case(model, x, "r", ("r", "b"), truth=marked)
    found = diagnose(case, [FindsEvidence()])[FindsEvidence()]
    aurocs = {k: v for k, v in found.items() if k.startswith("auroc ")}
    assert len(aurocs) == 3 * model.n_layers + 18
    assert np.isfinite(list(aurocs.values())).all()
    assert len({round(v, 6) for v in aurocs.values()}) > 5


def test_as_text_and_json() -> None:
    text = 'FindsEvidence(maps=[AttentionMap(layer="each"), OcclusionMap("change")], least=0.5)'
    (made,) = parse(text)
    assert made == FindsEvidence((AttentionMap("each"), OcclusionMap("change")), least=0.5)
    assert parse(str(made)) == [made]
    assert from_json(json.loads(json.dumps(made.to_json())), diagnoses()) == made
