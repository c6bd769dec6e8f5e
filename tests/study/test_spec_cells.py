"""Cells of a study: what is measured, its controls, and when a result counts as there already."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import parse
from probe.diagnose.case import Case
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.study import Cell, Sample, Study
from probe.study.cell import ROLES
from probe.study.controls import UniformFrames, at_random, visual_tokens
from probe.study.measure import Measured, measure
from tests import tiny as tiny_models
from tests.study import own_killer

BASE: dict[str, Any] = {
    "name": "s",
    "model": "testbed/onevision",
    "samples": {"source": "testbed", "n": 2},
    "ablations": [
        {"fastv(k={k}, keep={keep})": {"k": [1, 2], "keep": [0.5, 0.25]}},
        {"cut": ["Knockout('video -> question')", "NoRope('video -> video')"]},
        "Frames('reverse')",
    ],
    "controls": {"blind": True, "random": 2, "uniform": True, "swaps": True},
    "captures": {
        "mass": {"capture": "AttentionMass()",
                 "reduce": {"mean": ["head"], "sel": {"query_group": "last"}}},
        "entropy": {"capture": "AttentionEntropy()",
                    "reduce": {"isel": {"layer": -1, "query_group": 0}, "max": ["head"]}},
    },
    "seed": 4,
}  # fmt: skip
SAMPLE = Sample("one", None, "What moves?", "left", ("left", "up"), "clip")


def study(**change: Any) -> Study:
    return Study.from_mapping(BASE | change)


def by_label(made: Study) -> dict[str, Cell]:
    return {cell.label: cell for cell in made.cells()}


@pytest.fixture
def x(tiny: VideoModel) -> Example:
    return tiny_models.example(tiny, 8)


def test_a_grid_has_every_combination_and_every_control() -> None:
    cells = study().cells()
    assert cells[0].role == "untouched" and {cell.role for cell in cells} == {*ROLES} - {
        "diagnosis"
    }
    points = [cell.grid for cell in cells if cell.role == "ablation"]
    expected = [{"k": k, "keep": keep} for k in (1, 2) for keep in (0.5, 0.25)]
    assert points == [*expected, {}, {}]
    labels = [f"fastv(k={k}, keep={keep})" for k in (1, 2) for keep in (0.5, 0.25)]
    for label, point in zip(labels, expected, strict=True):
        own = [cell for cell in cells if cell.of == label]
        assert [(c.role, c.seed) for c in own] == [
            ("random", 4), ("random", 5), ("uniform frames", 0), ("swap", 0), ("swap", 0),
        ]  # fmt: skip
        assert {cell.label.rpartition(" | ")[2] for cell in own if cell.role == "swap"} == {
            "score=Random(seed=0)", "score=Uniform()",
        }  # fmt: skip
        assert all(cell.grid == point for cell in own)
    # Edges can be drawn at random, but leave no tokens to match; an order has no control at all.
    assert [c.role for c in cells if c.of == "cut"] == ["random", "random"]
    assert not [c for c in cells if c.of == "Frames('reverse')"]
    assert len([c for c in cells if c.role == "blind"]) == 1


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"fastv(k={k})": {"k": []}}, "k: write a list of values"),
        ({"fastv(k={k})": {"l": [1]}}, "has no values for {k}"),
        ({"fastv(k={k})": {"k": [1], "l": [2]}}, "has no place {l}"),
        (["fastv(k={k})"], "has no values for {k}"),
        (["fastv()", "fastv()"], '"fastv()" is there twice'),
        ({"x": 3}, '"x": write a text'),
        ([3], "3 is neither a text nor a label"),
        (3, "write a list of texts"),
        (["fastvv()"], "ablations: fastvv(): 'fastvv' is not known"),
        ({"untouched": "fastv()"}, '"untouched" is there twice'),
    ],
)
def test_ablations_that_make_no_sense(written: Any, message: str) -> None:
    with pytest.raises(ProbeError) as error:
        study(ablations=written)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_key_changes_with_what_the_number_depends_on() -> None:
    made = study()
    keys = [cell.key("m", "s", made.setting, "c") for cell in made.cells()]
    assert len(set(keys)) == len(keys)
    again = Study.from_mapping(made.to_json())
    assert [cell.key("m", "s", again.setting, "c") for cell in again.cells()] == keys
    cell = by_label(made)["fastv(k=1, keep=0.5)"]
    same = study(ablations={"another name": "fastv(1, keep=1/2)".replace("1/2", ".5")})
    assert by_label(same)["another name"].key("m", "s", same.setting, "c") in keys
    for other in (("M", "s", made.setting, "c"), ("m", "S", made.setting, "c"),
                  ("m", "s", made.setting, "C")):  # fmt: skip
        assert cell.key(*other) not in keys
    for change in ({"frames": 8}, {"seed": 1}, {"task": {"normalise": True}}):
        assert cell.key("m", "s", study(**change).setting, "c") not in keys


def kept(model: VideoModel, x: Example, ablations: list) -> list[int]:
    run = model.run(x, ablate=ablations)
    shown = run.layout.select("video")
    return run.kept.values[:, shown].sum(1).tolist()


RECIPES = [
    "fastv(k=2, keep=0.3)",
    "pyramiddrop((1, 2, 3), (0.7, 0.4, 0.2))",
    "divprune(keep=0.3)",
    "vidcom2(0.3)",
    "fastervlm(0.3, EncoderReceived())",
    "Reduce(at=tokens(), score=Norm(), keep=0.5, segment=PerFrame(), rest=Merge())",
    "Reduce(at=tokens(), pool=Pool(kernel=(2, 1, 1)))",
    "Reduce(at=layer(1), score=Norm(), keep=0.5, rest=Bypass())",
    "Reduce(at=mid(1), score=Norm(), keep=0.4)",
]


@pytest.mark.parametrize("text", RECIPES)
def test_random_choices_leave_the_same_count(tiny: VideoModel, x: Example, text: str) -> None:
    recipe = parse(text)
    drawn = [at_random(recipe, seed) for seed in (0, 0, 1)]
    assert all(one is not None for one in drawn)
    runs = [tiny.run(x, ablate=one) for one in drawn]
    assert [kept(tiny, x, one or []) for one in drawn] == [kept(tiny, x, recipe)] * 3
    assert np.array_equal(runs[0].logits, runs[1].logits)
    assert not np.array_equal(runs[0].logits, runs[2].logits)


def test_a_changed_class_of_ones_own_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "changing_killer.py"
    shutil.copy(str(own_killer.__file__), module)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = ["changing_killer:Length()", "ClipMargins()"]
    before = study(diagnoses=text).cells()
    assert [cell.key(*"abcd") for cell in before] == [
        cell.key(*"abcd") for cell in study(diagnoses=text).cells()
    ]
    module.write_text(module.read_text() + "\n# another version\n")
    after = study(diagnoses=text).cells()
    changed = [
        a.label for a, b in zip(before, after, strict=True) if a.key(*"abcd") != b.key(*"abcd")
    ]
    assert len(changed) == 1 and "Length" in changed[0]


def test_random_choices_are_drawn_anew_for_each_sample() -> None:
    cell = by_label(study())["fastv(k=1, keep=0.5) | random 0"]
    other = by_label(study())["fastv(k=1, keep=0.5) | random 1"]
    assert cell.ablations("a") == cell.ablations("a")
    drawn = [cell.ablations("a"), cell.ablations("b"), other.ablations("a")]
    assert len({str(one) for one in drawn}) == 3


def test_uniform_frames_cost_what_the_recipe_costs(tiny: VideoModel, x: Example) -> None:
    a_frame, total = 4, len(x.layout.select("video"))
    for text in (
        *RECIPES[:4],
        "fastv(k=1, keep=0.05)",
        "Reduce(at=tokens(), score=Norm(), keep=0.01)",
    ):
        recipe = parse(text)
        run = tiny.run(x, ablate=[UniformFrames(tuple(recipe))])
        want = np.mean(kept(tiny, x, recipe))
        frames = max(1, round(want / total * 8))
        assert abs(visual_tokens(run) - max(want, a_frame)) <= a_frame / 2 + 1
        fewer = tiny.encode(x.clips[0].take(np.floor(np.linspace(0, 7, frames) + 0.5).astype(int)),
                            "What moves?", frames=None)  # fmt: skip
        assert np.allclose(run.logits, tiny.run(fewer).logits, atol=1e-5)


def test_everything_is_measured_in_its_place(tiny: VideoModel, x: Example) -> None:
    made = study(ablations=["fastv(k=2, keep=0.5)", "fastv(k=7, keep=0.5)"])
    case = Case(tiny, x, "left", ("left", "up"))
    cells = made.cells()
    found = dict(zip([c.label for c in cells], measure(made, SAMPLE, case, cells), strict=True))
    errors = {label for label, one in found.items() if isinstance(one, ProbeError)}
    assert errors == {label for label in found if label.startswith("fastv(k=7")}
    plain = made.task.score(case, [[]])[0]
    assert not isinstance(plain, ProbeError)
    assert found["untouched"] == Measured(plain)
    from probe.capture import AttentionEntropy, AttentionMass

    mass = tiny.run(x, [AttentionMass()]).data.attention_mass.sel(query_group="last").mean("head")
    array = found["mass"].arrays["mass"]
    assert array.dims == ("layer", "key_group") and np.allclose(array, mass)
    entropy = tiny.run(x, [AttentionEntropy()]).data.attention_entropy
    expected = entropy.isel(layer=-1, query_group=0).max("head")
    assert found["entropy"].values == {"entropy": pytest.approx(float(expected))}
    some = [cell for cell in cells if cell.label in ("mass", "blind")]
    again = measure(made, SAMPLE, Case(tiny, x, "left", ("left", "up")), some)
    assert again[0] == found["blind"] and list(again[1].arrays) == ["mass"]


def test_a_reduction_that_does_not_fit_is_named(tiny: VideoModel, x: Example) -> None:
    how = {"capture": "AttentionMass()", "reduce": {"mean": ["token"]}}
    made = study(captures={"m": how}, ablations=[])
    (one,) = measure(made, SAMPLE, Case(tiny, x, "left", ("left", "up")), [by_label(made)["m"]])
    assert isinstance(one, ProbeError)
    assert "captures: m: 'token'" in str(one) and "the dims are layer, head" in str(one)
