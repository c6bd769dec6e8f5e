"""Test items and the files that they are written to."""

from collections import Counter

import av
import numpy as np
import pytest

from probe import testbed
from probe.testbed.item import TEST_SEEDS, is_hard
from probe.testbed.question import TYPES


@pytest.fixture(scope="module")
def drawn():
    return {split: testbed.items(split, 140, seed=3) for split in
            ("neutral", "hidden", "counter-prior")}  # fmt: skip


def test_items_are_drawn_again_the_same_and_not_shared(drawn):
    for split, known in drawn.items():
        assert testbed.items(split, 20, seed=3) == known[:20]
        assert len({item.id for item in known}) == len(known)
    seeds = {item.scene.seed for item in drawn["neutral"]}
    other = {item.scene.seed for item in testbed.items("neutral", 140, seed=4)}
    assert not seeds & other
    assert min(seeds) >= TEST_SEEDS


def test_types_take_turns_and_can_be_chosen(drawn):
    assert Counter(i.question.type for i in drawn["neutral"]) == dict.fromkeys(TYPES, 20)
    chosen = testbed.items("neutral", 10, types=["count"])
    assert {item.question.type for item in chosen} == {"count"}
    wrong = ({"split": "easy"}, {"types": ["smell"]}, {"split": "hidden", "types": ["caption"]})
    for arguments in wrong:
        with pytest.raises(ValueError, match="there are"):
            testbed.items(**arguments)


def test_neutral_existence_is_balanced_with_half_of_the_no_hard(drawn):
    items = testbed.items("neutral", 80, types=["existence"])
    no = [item for item in items if item.question.answer == "no"]
    assert len(no) == 40
    assert sum(is_hard(item.question, item.scene) for item in no) == 20
    for item in no:
        words = item.question.text.rstrip("?").split()
        assert not any(t.name in " ".join(words) for t in item.scene.things)


def test_neutral_and_counter_prior_show_their_answer(drawn):
    for split in ("neutral", "counter-prior"):
        assert all(i.question.visible and i.question.evidence for i in drawn[split])
    assert all(i.question.answer != i.question.prior for i in drawn["counter-prior"])
    assert any(i.question.answer == i.question.prior for i in drawn["neutral"])


def test_hidden_items_are_labelled_with_the_prior_and_show_nothing(drawn):
    for item in drawn["hidden"]:
        question = item.question
        assert not question.visible and not question.evidence
        assert question.answer == question.prior and question.answer in question.options
        if item.scene.medium == "scene":
            shape = next(t.shape for t in item.scene.things if t.shape in question.text)
            assert all(t.hidden for t in item.scene.things if t.shape == shape)
    media = Counter(item.scene.medium for item in drawn["hidden"])
    assert set(media) == {"scene", "blank", "noise"}


def test_a_clip_is_a_real_h264_file_that_reads_back(tmp_path):
    for item in testbed.items("neutral", 4, seed=8):
        path = item.write(tmp_path / f"{item.id}.mp4")
        frames = item.frames()
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert stream.average_rate == 8
            read = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(stream)])
        assert read.shape == frames.shape
        error = np.mean((read.astype(float) - frames) ** 2)
        assert 10 * np.log10(255**2 / error) > 25
        light = (frames.mean(-1) - read.mean(-1)).ravel()
        assert np.abs(light).mean() < 6


def test_equal_frames_give_an_equal_file(tmp_path):
    frames = testbed.render(testbed.make_scene(1))
    first, second = (testbed.write_clip(tmp_path / name, frames) for name in ("a.mp4", "b.mp4"))
    other = testbed.write_clip(tmp_path / "c.mp4", frames[::-1], fps=4)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 96, 96, 3)),
        np.zeros((0, 96, 96, 3), np.uint8),
        np.zeros((2, 95, 96, 3), np.uint8),
        np.zeros((96, 96, 3), np.uint8),
    ],
)
def test_frames_that_are_no_clip_are_refused(frames, tmp_path):
    with pytest.raises(ValueError, match="must be"):
        testbed.write_clip(tmp_path / "x.mp4", frames)
    assert not list(tmp_path.iterdir())


def test_public_names():
    for name in testbed.__all__:
        assert getattr(testbed, name) is not None
    assert "onevision" in testbed.names()
    assert (testbed.checkpoint("testbed/onevision") / "config.json").is_file()
    with pytest.raises(KeyError):
        testbed.checkpoint("twovision")
    with pytest.raises(AttributeError):
        _ = testbed.nothing
