"""Three routes: scenes have the answers they should, and probes find what is planted alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from probe.capture.activations import Activations
from probe.diagnose.three_route import (
    encoded,
    predicted,
    rendering,
    states,
    tasks_of,
    three_routes,
)
from probe.errors import ProbeError
from probe.models.loading import load
from tests.diagnose import seeing


@pytest.mark.parametrize("label", [0, 1])
def test_scenes_have_the_answer_of_their_label(label: int) -> None:
    tasks = tasks_of()
    for seed in range(4):
        (thing,) = tasks["attribute"].scene(label, seed).things
        assert thing.name == ("red circle", "blue circle")[label]
        things = tasks["referring"].scene(label, seed).things
        assert [t.shape for t in things if t.color == "red"] == [("circle", "square")[label]]
        assert len({t.shape for t in things}) == 2
        scene = tasks["order"].scene(label, seed)
        first, second = sorted(scene.things, key=lambda t: t.first)
        assert first.name == tasks["order"].answers[label]
        assert second.first - first.first >= 5
        assert rendering(scene).startswith(f"A {first.name} appears in frame 1. A {second.name}")


def test_a_probe_finds_what_is_planted_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise = rng.normal(size=(90, 12))
    planted = noise + 4 * np.eye(12)[labels]
    assert (predicted(planted, labels) == labels).mean() > 0.95
    assert abs((predicted(noise, labels) == labels).mean() - 1 / 3) < 0.17
    assert (predicted(np.ones((90, 4)), labels) == labels).mean() == pytest.approx(1 / 3)


def test_no_sample_is_in_its_own_fit() -> None:
    """By hand: scaling and fitting on the other folds alone."""
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    features = rng.normal(size=(40, 5)) + labels[:, None]
    expected = np.empty(40, int)
    for fit, test in StratifiedKFold(4, shuffle=True, random_state=0).split(features, labels):
        scaler = StandardScaler().fit(features[fit])
        probe = LogisticRegression(C=0.1, max_iter=2000)
        probe.fit(scaler.transform(features[fit]), labels[fit])
        expected[test] = probe.predict(scaler.transform(features[test]))
    np.testing.assert_array_equal(predicted(features, labels, 4), expected)


def test_features_are_means_over_frames(tiny) -> None:
    x = encoded(tiny, tasks_of()["attribute"].scene(0, 1), "What color is the circle?")
    capture = Activations("residual", "all")
    run = tiny.run(x, [capture])
    found = states(run, x, capture)
    assert len(found) == tiny.n_layers
    whole = run.of(capture).values[2]
    frames = whole[x.layout.select("video")].reshape(16, -1, whole.shape[-1]).mean(1)
    np.testing.assert_allclose(found[2][0], frames.reshape(-1), atol=1e-5)
    np.testing.assert_array_equal(found[2][1], whole[x.layout.last])


def test_a_model_to_which_all_clips_look_the_same_is_at_chance_on_every_route() -> None:
    table = three_routes(seeing.zero_projector(), ["attribute"], n=8, folds=2)
    assert (table["accuracy"] == 0.5).all()
    assert set(table["route"]) == {"video", "text", "vision features", "layer", "last token"}
    layers = table[table["route"] == "last token"]["layer"].tolist()
    assert layers == list(range(4))


@pytest.mark.full
def test_the_testbed_knows_what_its_features_know() -> None:
    table = three_routes(load("testbed/onevision"), ["order"], n=20).set_index(["route", "layer"])
    assert table.loc[("video", -1), "accuracy"] > 0.9
    assert table.loc[("vision features", -1), "accuracy"] > 0.9
    assert table.loc[("last token", 0), "accuracy"] < 0.7 < table.loc[("last token", 5), "low"]


def test_wrong_arguments(tiny) -> None:
    with pytest.raises(ProbeError, match='no task "grounding"; there are attribute'):
        three_routes(tiny, ["grounding"])
    with pytest.raises(ProbeError, match="at least 15 scenes, not 14"):
        three_routes(tiny, ["referring"], n=14)
