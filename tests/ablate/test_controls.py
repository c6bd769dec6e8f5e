"""Controls of every recipe of reductions: one component swapped, and just as many tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import LastQuery, Random, Reduce, Uniform, controls, layer, names, parse
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.spec import from_json
from probe.video import Clip
from tests import tiny as tiny_models
from tests.ablate.recipes import peers_cases, reduction_cases

CASES = {**peers_cases.EVERY, **reduction_cases.ACTIVE}
# Pools and lattices have nothing to swap.
NONE = {
    "dpn", "fourier_vlm", "fourier_vlm in time", "llavolta", "m3", "mustdrop", "pllava", "ppllava",
    "storm", "storm mean", "yopo_drop",
}  # fmt: skip
# Where nothing else than the number decides: one group, or groups of one size; and all places of
# the clip are merged before FrameFusion comes to its score.
ALIKE = {
    *((name, "budget=Equal()") for name in (
        "dart", "divprune", "pyramiddrop", "pyramiddrop (all)", "sparsevlm v2", "vispruner",
        "earlytom", "earlytom (all)", "fastervlm", "schedule", "p_sigmoid",
    )),
    ("framefusion (all)", "score=Random(seed=0)"),
    ("framefusion (all)", "score=Uniform()"),
}  # fmt: skip


@pytest.fixture(scope="module")
def wide() -> VideoModel:
    """4 x 4 tokens a frame."""
    return tiny_models.build(tiny_models.Geometry(image=112), seed=4)


@pytest.fixture(scope="module")
def x(wide: VideoModel) -> Example:
    """Three scenes of 2, 5 and 3 frames that change a little, of noise in blocks."""
    rng = np.random.default_rng(3)
    frames: list[np.ndarray] = []
    for count in (2, 5, 3):
        scene = rng.integers(0, 255, (8, 8, 3)).repeat(14, 0).repeat(14, 1)
        for _ in range(count):
            part = rng.integers(0, 255, (28, 28, 3))
            scene = scene.copy()
            scene[28:56, 28:56] = part
            frames.append(scene)
    shown = np.stack(frames).astype(np.uint8)
    clip = Clip(shown, np.arange(10) * 0.5, np.arange(10), 2.0, "scenes", 5.0)
    return wide.encode(clip, "What moves?", frames=None)


def listed(made: Any) -> list:
    return list(made) if isinstance(made, list | tuple) else [made]


def swapped(name: str) -> dict[str, Any]:
    if name not in NONE:
        return controls(CASES[name]())
    with pytest.raises(ProbeError, match="no reduction with a component to swap"):
        controls(CASES[name]())
    return {}


@pytest.mark.parametrize("name", CASES)
def test_as_many_tokens_in_every_layer(wide: VideoModel, x: Example, name: str) -> None:
    one = listed(CASES[name]())
    run = wide.run(x, ablate=one)
    tried = swapped(name)
    for what, made in tried.items():
        other = wide.run(x, ablate=listed(made))
        assert other.cost.length == run.cost.length, what
        assert other.cost.kv_length == run.cost.kv_length, what
        pairs = zip(run.reductions, other.reductions, strict=True)
        same = [
            a.weights.dense().shape == b.weights.dense().shape
            and np.allclose(a.weights.dense(), b.weights.dense(), rtol=0, atol=1e-9)
            for a, b in pairs
        ]
        assert all(same) == ((name, what) in ALIKE), what


@pytest.mark.parametrize("name", CASES)
def test_as_text_and_json(name: str) -> None:
    for what, made in swapped(name).items():
        for part in listed(made):
            assert from_json(json.loads(json.dumps(part.to_json())), names()) == part, what
            assert parse(str(replace(part))) == [part], what


def test_a_path_swaps_one_component() -> None:
    found = parse("holitom(keep=0.15, 0.score=Random(seed=1))")
    plain = parse("holitom(keep=0.15)")
    assert found[0].score == Random(1) and found[1] == plain[1]
    assert found[0] == replace(plain[0], score=Random(1))
    inner = parse("holitom(1.rest=Drop(), 0.then.0.pieces.0.rest=Drop())")
    assert str(inner[1].rest) == str(inner[0].then[0].pieces[0].rest) == "Drop()"
    assert parse("; ".join(str(replace(part)) for part in found)) == found
    data = [json.loads(json.dumps(part.to_json())) for part in found]
    assert [from_json(part, names()) for part in data] == found
    assert parse("fastv(0.score=Random(seed=3))")[0].score == Random(3)
    with pytest.raises(ProbeError, match="there is no component 'scores'"):
        parse("holitom(0.scores=Random())")
    with pytest.raises(ProbeError, match="there is no component 5"):
        parse("holitom(5.score=Random())")


def test_fastvs_are_random_and_uniform() -> None:
    one = Reduce(at=layer(2), score=LastQuery(), keep=0.5)
    assert {what: replace(made, match=()) for what, made in controls(one).items()} == {
        "score=Random(seed=0)": Reduce(at=layer(2), score=Random(0), keep=0.5),
        "score=Uniform()": Reduce(at=layer(2), score=Uniform(), keep=0.5),
    }
