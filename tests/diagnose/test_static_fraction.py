"""What repeats: against brute force over all segmentations; and bits of packets of real files."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from probe import testbed
from probe.diagnose import Case, CodecBits, StaticFraction, case_of, diagnose
from probe.diagnose.packets import packet_bits
from probe.diagnose.static_fraction import gain
from probe.video import Clip, read
from probe.video.timeline import scan
from tests import tiny as tiny_models
from tests.diagnose import readings
from tests.families import models


def best(same: np.ndarray) -> int:
    """Tokens collapsed by the best of all segmentations."""
    frames = len(same) + 1
    most = 0
    for cuts in itertools.product([False, True], repeat=frames - 1):
        edges = [0, *(n + 1 for n, cut in enumerate(cuts) if cut), frames]
        gone = 0
        for start, stop in itertools.pairwise(edges):
            static = same[start : stop - 1].all(0) if stop - start > 1 else np.zeros(1, bool)
            gone += (stop - start - 1) * int(static.sum())
        most = max(most, gone)
    return most


def test_the_best_segmentation_is_found() -> None:
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8, 0.95):
        same = rng.random((7, 6)) < share
        assert gain(same) == pytest.approx(best(same) / 48)
    assert gain(np.ones((7, 6), bool)) == pytest.approx(7 / 8)
    assert gain(np.zeros((7, 6), bool)) == 0


def test_against_the_cosines_of_hidden_states(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    states = readings.states(eager, x)[0, x.layout.role == "video"]
    unit = (states / np.linalg.norm(states, axis=-1, keepdims=True)).reshape(5, -1, model.width)
    cosine = (unit[1:] * unit[:-1]).sum(-1)
    tau = float(np.median(cosine)) + 1e-4
    one = StaticFraction(tau=[tau, -1])
    values = diagnose(Case(model, x), [one])[one]
    assert values["static"].values == pytest.approx([(cosine > tau).mean(), 1])
    assert values["removable"].values == pytest.approx(
        [best(cosine > tau) / unit[..., 0].size, 0.8]
    )
    np.testing.assert_allclose(values["cosine"], cosine.mean(-1), atol=1e-5)
    assert values["cosine_mean"] == pytest.approx(cosine.mean(), abs=1e-5)


def test_a_frozen_clip_is_static_and_one_frame_is_nothing(tiny) -> None:
    frame = tiny_models.clip(1)
    frozen = Clip.from_array(np.repeat(frame.frames, 5, 0), fps=2)
    one = StaticFraction()
    values = diagnose(Case(tiny, tiny_models.example(tiny, frozen)), [one])[one]
    assert values["static_0.95"] == 1 and values["removable_0.95"] == pytest.approx(0.8)
    values = diagnose(Case(tiny, tiny_models.example(tiny, frame)), [one])[one]
    assert np.isnan(values["static_0.8"]) and np.isnan(values["cosine_mean"])


def test_packets_add_up_to_the_file(videos) -> None:
    for name in ("nasa_13013.mp4", "sample_demo_9.mp4", "av1_video.mkv"):
        path = videos / name
        bits, key = packet_bits(path)
        assert len(bits) == len(scan(path, None)) and key[0]
        assert 0 < bits.sum() <= 8 * path.stat().st_size


def test_packets_come_in_the_order_frames_are_shown(videos) -> None:
    """B-frames are stored after what they build on; decoded frames tell the sizes by time."""
    import av

    path = videos / "nasa_13013.mp4"
    bits, key = packet_bits(path)
    with av.open(str(path)) as container:
        video = container.streams.best("video")
        sizes = {packet.pts: 8 * packet.size for packet in container.demux(video) if packet.size}
        assert list(sizes) != sorted(sizes)
    with av.open(str(path)) as container:
        best = container.streams.best("video")
        shown = [(frame.pts, frame.key_frame) for frame in container.decode(best)]
    assert len(shown) == len(bits)
    assert bits.tolist() == [sizes[pts] for pts, _ in shown]
    assert key.tolist() == [is_key for _, is_key in shown]


def test_intervals_hold_the_packets_between_frames(videos, tiny) -> None:
    path = videos / "nasa_13013.mp4"
    x = tiny.encode(read(path, frames=6), "What moves?", frames=None)
    one = CodecBits()
    values = diagnose(Case(tiny, x), [one])[one]
    bits, key = packet_bits(path)
    shown = x.layout.source_frame
    for pair in range(5):
        own = range(shown[pair] + 1, shown[pair + 1] + 1)
        assert values["bits"][pair] == sum(bits[n] for n in own)
        assert values["bits_inter"][pair] == np.mean([bits[n] for n in own if not key[n]])


def test_groups_of_two_frames_reach_from_first_to_last(videos) -> None:
    model = models.build("qwen2_5_vl")
    path = videos / "nasa_13013.mp4"
    x = model.encode(read(path, frames=6), "What moves?", frames=None)
    one = CodecBits()
    values = diagnose(Case(model, x), [one])[one]
    bits, shown = packet_bits(path)[0], x.layout.source_frame
    expected = [bits[shown[0] + 1 : shown[3] + 1].sum(), bits[shown[2] + 1 : shown[5] + 1].sum()]
    assert values["bits"].values.tolist() == expected
    assert np.isnan(values["bits_cosine"])  # two pairs have no ranks


def test_where_it_moves_there_are_bits_and_other_tokens(tmp_path, tiny) -> None:
    from probe.testbed.clip import write_clip

    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    moving = [1, 2, 3, 7, 8]  # frames that are unlike the one before
    frames = [still]
    for number in range(1, 12):
        new = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        frames.append(new if number in moving else frames[-1])
    path = write_clip(tmp_path / "clip.mp4", np.stack(frames))
    x = tiny.encode(read(path, frames=12), "What moves?", frames=None)
    one = CodecBits(tau=0.99)
    values = diagnose(Case(tiny, x), [one])[one]
    assert values["bits_inter_cosine"] < -0.6 and values["bits_inter_static"] < -0.6
    assert (values["cosine"].values < 0.9).nonzero()[0].tolist() == [n - 1 for n in moving]


@pytest.mark.parametrize("name", ["nasa_13013.mp4", "sample_demo_1.mp4"])
def test_on_real_clips_bits_go_where_tokens_change(name: str, videos, tiny) -> None:
    x = tiny.encode(read(videos / name, frames=16), "What moves?", frames=None)
    one = CodecBits()
    values = diagnose(Case(tiny, x), [one])[one]
    assert values["bits_cosine"] < -0.4 and values["bits_inter_cosine"] < -0.4


def test_arrays_have_no_bits_and_testbed_items_have(tiny) -> None:
    one = CodecBits()
    values = diagnose(Case(tiny, tiny_models.example(tiny)), [one])[one]
    assert np.isnan(values["bits_cosine"]) and np.isnan(values["bits"]).all()
    assert np.isfinite(values["cosine"]).all()
    item = testbed.items(n=1)[0]
    values = diagnose(case_of(tiny, item), [one])[one]
    assert (values["bits"] > 0).all() and values["kilobits_per_frame"] > 0
