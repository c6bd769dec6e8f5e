"""The words that select positions, edges and partitions."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ProbeError
from probe.models.layout import Layout
from probe.models.video_model import VideoModel
from tests.tiny import example


def selected_by_table(layout: Layout) -> dict[str, np.ndarray]:
    """Selections, and the same by brute force over the table."""
    t = layout.to_frame()
    visual = t.role.isin(["video", "newline"])
    return {
        "video": t.role == "video",
        "newline": t.role == "newline",
        "question": t.role == "question",
        "option 2": t.role == "option 2",
        "options": t.role.isin(["option 1", "option 2"]),
        "text": ~visual,
        "all": t.position >= 0,
        "last": t.position == layout.last,
        "readout": t.position.isin([layout.last, layout.last + 1]),
        "frame 3": t.frame == 3,
        "frames 1-3": t.frame.isin([1, 2, 3]),
        "frames 2": t.frame == 2,
        "seconds 0.5-1.1": t.frame.isin([1, 2]),
        "seconds 0.5-1.0": t.frame == 1,
        "seconds 2-99": t.frame == 4,
        "token 17": t.position == 17,
        "tokens 17-19": t.position.isin([17, 18, 19]),
        "box 0,0,60,40": t.frame >= 0,
        "box 0,0,15,10": (t.row == 0) & (t.col == 0),
        "box 31,0,60,5 frame 2": (t.row == 0) & (t.col == 1) & (t.frame == 2),
        "box 31,0.5,60,5 frames 2-3": (t.row == 0) & (t.col == 1) & t.frame.isin([2, 3]),
        "video + last": (t.role == "video") | (t.position == layout.last),
        "video - frame 0": t.frame > 0,
        "text - question - options": ~visual & ~t.role.isin(["question", "option 1", "option 2"]),
        "box 0,0,5,5 & frames 0-1 + question": ((t.row == 0) & (t.col == 0) & t.frame.isin([0, 1]))
        | (t.role == "question"),
    }


def test_every_form_of_selection(layout: Layout) -> None:
    for what, expected in selected_by_table(layout).items():
        found = layout.select(what)
        assert found.dtype == np.int64 and found.ndim == 1
        np.testing.assert_array_equal(found, np.flatnonzero(expected), err_msg=what)


def test_positions_select_themselves(layout: Layout) -> None:
    assert layout.select(3).tolist() == [3]
    assert layout.select([5, 2, 5]).tolist() == [2, 5]
    assert layout.select(np.array([4])).tolist() == [4]


@pytest.mark.parametrize(
    "what",
    [
        "nonsense",
        "frame",
        "Video",
        "video+last",
        "frame 1 frame 2",
        "box 1,2,3",
        "",
        "box 0,0,9,9 last",
        "frames 0-1 & question",
        "video - video",
        "seconds 50-60",
        "box 70,0,80,9",
    ],
)
def test_unknown_and_empty_selections_list_what_there_is(layout: Layout, what: str) -> None:
    with pytest.raises(ProbeError) as error:
        layout.select(what)
    for label in (
        "system",
        "question",
        "option 1",
        "video",
        "newline",
        "answer",
        "frame 0 to frame 4",
    ):
        assert label in str(error.value)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("frame 5", "frames 0 to 4"),
        ("frames 3-2", "frames 0 to 4"),
        ("frames 0-5", "frames 0 to 4"),
        ("token 999", "positions are 0 to"),
        ("tokens 5-4", "positions are 0 to"),
        (999, "positions are 0 to"),
        (-1, "positions are 0 to"),
        ([], "positions are 0 to"),
    ],
)
def test_numbers_out_of_range(layout: Layout, what, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        layout.select(what)


@pytest.mark.parametrize(
    "by", ["frames", "roles", "text", "tokens", "video", ["frame 1", "last", "video - frame 0"]]
)
def test_every_label_selects_itself(layout: Layout, merged: Layout, by) -> None:
    for each in (layout, layout.extend(2), merged):
        for label, positions in each.partition(by).items():
            np.testing.assert_array_equal(each.select(label), positions)


def test_partitions_hold_each_position_once(layout: Layout, merged: Layout) -> None:
    for each in (layout, layout.extend(3), merged):
        for by in ("frames", "roles", "tokens"):
            together = np.concatenate(list(each.partition(by).values()))
            assert sorted(together) == list(range(len(each)))
        text = [p for label, p in each.partition("text").items() if label != "last"]
        np.testing.assert_array_equal(np.sort(np.concatenate(text)), each.select("text"))


def test_merged_frames_are_one_group(merged: Layout) -> None:
    assert merged.groups == ("frames 0-1", "frames 2-3", "frame 4")
    assert merged.select("frame 3").tolist() == [2, 3] == merged.select("frames 2-3").tolist()
    assert merged.select("frames 1-2").tolist() == [0, 1, 2, 3]
    assert merged.select("seconds 1.5-1.9").tolist() == [0, 1]
    assert list(merged.partition("frames")) == ["frames 0-1", "frames 2-3", "frame 4", "question"]
    table = merged.to_frame()
    assert table.source_frame.tolist() == [0, 0, 4, 4, 8, 8, -1]
    assert table.end_s.tolist()[:6] == [2, 2, 4, 4, 5, 5]
    painted = merged.paint(np.arange(7.0))
    assert (painted[0] == painted[1]).all() and painted[3, 0, 5] == 3 and painted[4, 3, 0] == 4


def test_one_frame_has_seconds(tiny: VideoModel) -> None:
    still = example(tiny, 1).layout
    assert still.select("seconds 0-1").tolist() == still.select("frame 0").tolist()


def test_edges(layout: Layout) -> None:
    video, last = layout.select("video"), layout.select("last")

    def flat(edges) -> list:
        return [(s.tolist(), d.tolist()) for s, d in layout.edges(edges)]

    one = [(video.tolist(), last.tolist())]
    for same in (
        "video -> last",
        "video->last",
        ("video", "last"),
        ["video -> last"],
        [("video", "last")],
        (("video", "last"),),
        (tuple(video.tolist()), "last"),
        (video, layout.last),
        [(video.tolist(), [layout.last])],
    ):
        assert flat(same) == one, same
    pair = [("frame 0", "last"), ("frame 1", "last")]
    assert len(flat(pair)) == len(flat(tuple(pair))) == 2
    assert len(flat(("frame 0 -> last", "frame 1 -> last"))) == 2
    assert flat(([3, 4], [9, 8])) == [([3, 4], [8, 9])]
    into = layout.edges("video -> answer")[0][1]
    assert into.tolist() == layout.readout.tolist()


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ("video", "write it as"),
        ("a -> b -> c", "write it as"),
        ("video -> nothing", "not known"),
        ("question -> video", "source comes after"),
    ],
)
def test_edges_that_are_wrong(layout: Layout, edges, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        layout.edges(edges)


def test_edges_of_a_clip_are_left_out_without_one(tiny: VideoModel) -> None:
    layout = example(tiny, None).layout
    assert layout.edges("video -> last") == []
    assert len(layout.edges(["video -> last", "question -> last"])) == 1


def test_extend(layout: Layout) -> None:
    longer = layout.extend(3)
    assert len(longer) == len(layout) + 3 and longer.last == layout.last
    assert longer.select("generated").tolist() == list(range(len(layout), len(layout) + 3))
    assert longer.readout.tolist() == layout.readout.tolist() + longer.select("generated").tolist()
    assert (longer.role[: len(layout)] == layout.role).all() and len(longer.group) == len(longer)
