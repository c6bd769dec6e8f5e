"""Scenes: what a seed gives, and what every one of them keeps to."""

import json

import numpy as np
import pytest

from probe.testbed import Scene, make_scene, render
from probe.testbed.drawing import RGB, covers, mask
from probe.testbed.scene import SHAPES

SCENES = [make_scene(seed, hidden=seed % 5 == 0) for seed in range(60)]
CELL = 16


def pixels_of(scene, number):
    """Brute force: the pixels an object shows, painted one object at a time."""
    owner = np.full((scene.frames, scene.size, scene.size), -1)
    for index, thing in enumerate(scene.things):
        for frame, box in enumerate(thing.boxes):
            if box is not None:
                for y, x in np.argwhere(mask(thing.shape, thing.size)):
                    owner[frame, box[1] + y, box[0] + x] = index
    return owner == number


def test_a_seed_gives_one_scene_and_one_clip():
    for seed in (0, 7, 12345678901):
        assert make_scene(seed) == make_scene(seed)
        assert np.array_equal(render(make_scene(seed)), render(make_scene(seed)))
    assert make_scene(1) != make_scene(2)
    assert not np.array_equal(render(make_scene(1)), render(make_scene(2)))


@pytest.mark.parametrize("scene", SCENES[:10], ids=lambda scene: str(scene.seed))
def test_json_round_trip(scene):
    text = scene.to_json()
    assert Scene.from_json(text) == scene
    known = json.loads(text)
    assert known["background"] == scene.background
    assert known["things"][0]["boxes"][-1] is None or len(known["things"][0]["boxes"][-1]) == 4


def test_variety():
    shapes = {thing.shape for scene in SCENES for thing in scene.things}
    assert shapes == set(SHAPES)
    assert {thing.color for scene in SCENES for thing in scene.things} == set(RGB)
    assert {thing.motion for scene in SCENES for thing in scene.things} == {
        "left", "right", "up", "down", "stays",
    }  # fmt: skip
    assert {scene.background for scene in SCENES} == {"plain", "gradient", "noisy"}
    assert {len(scene.things) for scene in SCENES} == {1, 2, 3, 4}
    hidden_part = [v for s in SCENES for t in s.things for v in t.visible if 0 < v < 1]
    assert len(hidden_part) > 50
    assert any(thing.first > 0 for scene in SCENES for thing in scene.things)
    assert any(thing.boxes[-1] is None for scene in SCENES for thing in scene.things)


def test_every_object_is_seen_for_half_the_clip_and_covers_2_to_9_cells():
    for scene in SCENES:
        plain = [thing.color for thing in scene.things if not thing.hidden]
        assert len(set(plain)) == len(plain)
        for thing in scene.things:
            assert sum(part >= 0.5 for part in thing.visible) >= scene.frames / 2
            ys, xs = np.nonzero(mask(thing.shape, thing.size))
            for frame in thing.present:
                x0, y0, x1, y1 = thing.boxes[frame]
                assert 0 <= x0 < x1 <= scene.size and 0 <= y0 < y1 <= scene.size
                cells = {(x, y) for x, y in zip((xs + x0) // CELL, (ys + y0) // CELL, strict=True)}
                assert 2 <= len(cells) <= 9


def test_motion_is_large_and_straight():
    for scene in SCENES:
        for thing in scene.things:
            boxes = [thing.boxes[frame] for frame in thing.present]
            assert thing.present == tuple(range(thing.present[0], thing.present[-1] + 1))
            way = np.subtract(boxes[-1], boxes[0])[:2]
            if thing.motion == "stays":
                assert not way.any()
            else:
                assert np.count_nonzero(way) == 1
                assert np.abs(way).sum() >= 30


@pytest.mark.parametrize("scene", SCENES[:12], ids=lambda scene: str(scene.seed))
def test_visible_fraction_and_cover_against_brute_force(scene):
    shown = covers(scene)
    for number, thing in enumerate(scene.things):
        brute = pixels_of(scene, number)
        assert np.array_equal(shown == number, brute)
        share = brute.sum((1, 2)) / mask(thing.shape, thing.size).sum()
        assert np.allclose(share, thing.visible, atol=1e-4)


@pytest.mark.parametrize("scene", SCENES[:12], ids=lambda scene: str(scene.seed))
def test_rendered_pixels_show_the_colour_unless_it_is_hidden(scene):
    clip = render(scene)
    assert clip.shape == (16, 96, 96, 3) and clip.dtype == np.uint8
    shown = covers(scene)
    for number, thing in enumerate(scene.things):
        inside = clip[shown == number]
        same = (inside == RGB[thing.color]).all(-1)
        assert same.all() if not thing.hidden else same.mean() < 0.01
    ground = clip[shown == -1].astype(int)
    assert (ground.max(-1) - ground.min(-1)).max() <= 60


def test_twins_share_a_colour_but_never_colour_and_shape():
    shared = 0
    for seed in range(40):
        things = make_scene(seed, objects=4, twins=True).things
        assert len({thing.name for thing in things}) == 4
        shared += len({thing.color for thing in things}) < 4
    assert shared > 15


def test_clips_that_show_nothing():
    blank, noise = (render(make_scene(3, medium=medium)) for medium in ("blank", "noise"))
    assert (blank == blank[0, 0, 0]).all()
    assert noise.std() > 60
    assert not np.array_equal(noise[0], noise[1])


def test_length_size_and_count_can_be_chosen():
    scene = make_scene(4, objects=3, frames=24, size=128, background="noisy")
    assert len(scene.things) == 3 and scene.background == "noisy"
    assert render(scene).shape == (24, 128, 128, 3)
    for wrong in ({"objects": 5}, {"frames": 4}, {"size": 64}):
        with pytest.raises(ValueError, match="a testbed clip has"):
            make_scene(0, **wrong)
