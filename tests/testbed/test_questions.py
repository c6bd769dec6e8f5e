"""Questions against answers worked out again from boxes and pixels alone."""

from collections import Counter

import numpy as np
import pytest

from probe.testbed import make_scene, render
from probe.testbed.asking import ask, blind
from probe.testbed.drawing import RGB
from probe.testbed.prior import COLOR_OF, SKEW, choices, draw, likely
from probe.testbed.question import TYPES
from probe.testbed.scene import COLORS, MOTIONS, SHAPES

SCENES = [make_scene(seed) for seed in range(200, 320)]
HIDDEN = [make_scene(seed, hidden=True) for seed in range(400, 520)]


def asked(scene):
    return ask(scene, np.random.default_rng([scene.seed, 4]))


def named(text, things):
    """The objects that the words of a question can mean, in the order named."""
    words = text.rstrip("?.").replace(",", " ").split()
    found = []
    for at, word in enumerate(words):
        if word in SHAPES:
            color = words[at - 1] if words[at - 1] in COLORS else None
            found.append([t for t in things if t.shape == word and color in (None, t.color)])
    for word in words:
        if word in COLORS and not found:
            found.append([t for t in things if t.color == word])
    return found


def direction(thing):
    """From the centres of the boxes: where it went."""
    boxes = [box for box in thing.boxes if box is not None]
    x, y = (boxes[-1][0] - boxes[0][0], boxes[-1][1] - boxes[0][1])
    if abs(x) + abs(y) < 4:
        return "stays"
    return ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")


def brute_answer(question, scene):
    meant = named(question.text, scene.things)
    match question.type:
        case "color":
            return meant[0][0].color
        case "shape":
            return meant[0][0].shape
        case "direction":
            return direction(meant[0][0])
        case "count":
            return str(len(scene.things))
        case "order":
            first = min((some[0] for some in meant), key=lambda t: t.present[0])
            return f"{first.color} {first.shape}"
        case "existence":
            return "yes" if meant[0] else "no"


@pytest.mark.parametrize("scenes", [SCENES, HIDDEN], ids=["plain", "hidden"])
def test_answers_are_right_and_questions_unambiguous(scenes):
    seen = Counter()
    for scene in scenes:
        for question in asked(scene):
            seen[question.type] += 1
            assert question.answer in question.options
            assert len(set(question.options)) == len(question.options)
            if question.type == "caption":
                continue
            assert question.answer == brute_answer(question, scene), (scene.seed, question)
            if question.type != "existence":
                assert all(len(some) == 1 for some in named(question.text, scene.things))
    assert set(seen) == set(TYPES)


def test_captions_name_every_object_once_in_a_fixed_order():
    for scene in SCENES:
        for question in asked(scene):
            if question.type == "caption":
                parts = question.answer.split(" and ")
                assert len(parts) == len(scene.things) <= 3
                words = [part.split() for part in parts]
                assert words == sorted(
                    words, key=lambda w: (SHAPES.index(w[2]), COLORS.index(w[1]))
                )
                said = {(w[1], w[2], w[-1]) for w in words}
                assert said == {(t.color, t.shape, direction(t)) for t in scene.things}


def test_evidence_boxes_hold_the_pixels_of_what_is_asked():
    checked = 0
    for scene in SCENES[:40]:
        clip = render(scene)
        for question in asked(scene):
            assert question.visible and question.evidence
            frames = [frame for frame, _ in question.evidence]
            assert question.frame_range == (min(frames), max(frames))
            if question.type not in ("color", "shape", "direction"):
                continue
            thing = named(question.text, scene.things)[0][0]
            for frame, (x0, y0, x1, y1) in question.evidence:
                same = (clip[frame] == RGB[thing.color]).all(-1)
                if [t.color for t in scene.things].count(thing.color) == 1:
                    assert same[y0:y1, x0:x1].sum() == same.sum() > 0
                    checked += 1
            half = [f for f in thing.present if thing.visible[f] >= 0.5]
            assert set(half) <= set(frames) and len(frames) >= scene.frames / 2
    assert checked > 500


def test_order_questions_leave_time_for_a_few_frames_and_reach_both_entries():
    gaps = []
    for scene in SCENES:
        for question in asked(scene):
            if question.type == "order":
                first, second = sorted(
                    (some[0] for some in named(question.text, scene.things)),
                    key=lambda t: t.present[0],
                )
                gaps.append(second.present[0] - first.present[0])
                assert question.frame_range[1] >= second.present[0]
                assert first.color != second.color
                boxes = set(question.evidence)
                assert (second.present[0], second.boxes[second.present[0]]) in boxes
                early = [f for f, b in question.evidence if b in first.boxes and f < second.first]
                assert early
    assert len(gaps) > 40 and min(gaps) >= 4


def test_existence_is_balanced_and_half_of_the_no_are_hard():
    answers, hard = Counter(), []
    for scene in SCENES:
        for question in asked(scene):
            if question.type == "existence":
                answers[question.answer] += 1
                if question.answer == "no":
                    shape = question.text.rstrip("?").split()
                    hard.append(any(t.shape in shape for t in scene.things))
    assert abs(answers["yes"] - answers["no"]) <= 0.05 * sum(answers.values())
    assert 0.42 <= np.mean(hard) <= 0.58


def test_visible_colours_do_not_follow_the_prior_and_hidden_ones_do():
    plain = [t for scene in SCENES for t in scene.things]
    assert np.mean([t.color == COLOR_OF[t.shape] for t in plain]) < 0.28
    veiled = [t for scene in HIDDEN for t in scene.things if t.hidden]
    assert 0.62 < np.mean([t.color == COLOR_OF[t.shape] for t in veiled]) < 0.88
    for scene in HIDDEN:
        assert any(t.hidden for t in scene.things)
        for question in asked(scene):
            if question.type == "color":
                thing = named(question.text, scene.things)[0][0]
                assert question.visible == (not thing.hidden)
                assert bool(question.evidence) == question.visible
                assert question.prior == COLOR_OF[thing.shape]


@pytest.mark.parametrize("kind", TYPES)
def test_blind_questions_follow_the_prior(kind):
    rng = np.random.default_rng(5)
    found = [blind(kind, rng) for _ in range(600)]
    assert not any(question.visible or question.evidence for question in found)
    share = np.mean([question.answer == question.prior for question in found])
    assert abs(share - SKEW) < 0.06
    assert all(question.answer in question.options for question in found)


def test_prior_has_one_likely_answer_and_others():
    rng = np.random.default_rng(0)
    drawn = Counter(draw("color", "circle", rng) for _ in range(2000))
    assert drawn.most_common(1)[0][0] == likely("color", "circle") == "red"
    assert set(drawn) == set(choices("color", "circle"))
    assert likely("order", ("blue square", "red circle")) == "blue square"
    assert set(choices("direction", "star")) == set(MOTIONS)
    for wrong in (likely, choices):
        with pytest.raises(ValueError, match="smell"):
            wrong("smell")
