"""Components that choose among keys, against loops and the definitions in plain numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.kv import Cache
from probe.ablate.kv_parts import Buckets, NearestPair, Pages, RawQuery, Recent
from probe.ablate.reduction.candidates import Candidates
from probe.models.video_model import VideoModel
from tests.ablate.kv_reference import ROWS, best, unread
from tests.tiny import dense, example


def line(x: np.ndarray) -> Candidates:
    """Tokens [token, channel], one a frame."""
    return Candidates.grid(torch.from_numpy(x).float()[:, None, None])


def draw(seed: int, count: int) -> tuple[Candidates, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return line(rng.normal(size=(count, 5))), np.arange(count), rng.normal(size=count)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 4, 6, 11, 12])
def test_buckets_are_a_greedy_loop(size: int, count: int) -> None:
    for seed in range(5):
        c, group, score = draw(seed, 12)
        runs = np.array_split(group, -(-count // size))
        room = {run[0]: size for run in runs}
        where = {token: run[0] for run in runs for token in run}
        kept: list[int] = []
        for second in (False, True):  # what no run has room for comes last
            for token in np.argsort(-score, kind="stable"):
                if len(kept) < count and token not in kept and (second or room[where[token]]):
                    room[where[token]] -= 1
                    kept.append(token)
        found = Buckets(size).choose(c, group, score, count).centres
        assert found.tolist() == sorted(kept)


def test_buckets_spread_where_scores_do_not() -> None:
    c, group, _ = draw(0, 12)
    score = np.arange(12.0)  # the best are all at the end
    assert Buckets().choose(c, group, score, 3).centres.tolist() == [3, 7, 11]
    assert Buckets(12).choose(c, group, score, 3).centres.tolist() == [9, 10, 11]
    assert Buckets().choose(c, group, score, 40).centres.tolist() == group.tolist()
    assert Buckets().choose(c, group, score, 0).centres.tolist() == []


def test_pages_go_by_their_mean_and_are_whole() -> None:
    c, group, _ = draw(0, 10)
    score = np.array([9.0, -9, 0, 1, 1, 1, 0, 0, 0, 5])
    assert Pages(3).choose(c, group, score, 3).centres.tolist() == [9]  # a page of its own
    assert Pages(3).choose(c, group, score, 5).centres.tolist() == [3, 4, 5, 9]
    assert Pages(1).choose(c, group, score, 2).centres.tolist() == [0, 9]
    assert Pages(3).choose(c, group, score, 10).centres.tolist() == group.tolist()
    assert Pages(3).choose(c, group, score, 0).centres.tolist() == []
    for seed in range(5):  # a page of identical keys goes as each of its keys would
        c, group, score = draw(seed, 12)
        same = np.repeat(score[:4], 3)
        pages = Pages(3).choose(c, group, same, 6).centres
        assert set(pages.tolist()) == best(same, group, 6)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 9, 20])
def test_nearest_pairs_are_a_stream(count: int) -> None:
    for seed in range(5):
        c, group, score = draw(seed, 10)
        x = c.x.double().numpy()
        held: list[int] = []
        evicted = 0
        for token in range(10 if count else 0):
            if len(held) == count:
                cosines = [
                    x[a] @ x[b] / np.linalg.norm(x[a]) / np.linalg.norm(x[b])
                    for a, b in pairwise(held)
                ]
                held.pop(int(np.argmax(cosines)) if cosines else 0)
                evicted += 1
            held.append(token)
        found = NearestPair().choose(c, group, score, count).centres
        assert found.tolist() == held
        assert not count or evicted == max(0, 10 - count)
        assert len(found) == min(count, 10)


def test_the_older_of_two_equal_frames_is_forgotten() -> None:
    x = np.eye(5)[[0, 1, 1, 2, 3]]
    c = line(x)
    found = NearestPair().choose(c, np.arange(5), np.zeros(5), 4)
    assert found.centres.tolist() == [0, 2, 3, 4]


def test_recent_queries_are_rows_of_the_dense_map(
    pair: tuple[VideoModel, VideoModel],
) -> None:
    model, eager = pair
    x = example(model, answer="red")
    video = x.layout.select("video")
    maps = dense(eager, x)[:, :, video[-4:]].mean((1, 2))[:, video]
    run = model.run(x, ROWS, ablate=[Cache(score=Recent(queries=4), keep_tokens=6, when="video")])
    for number in range(model.n_layers):
        read = set(video[~unread(run)[1, number, video]].tolist())
        assert read == best(maps[number], video, 6)


def test_raw_queries_are_projections_and_do_not_see_positions(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    video, question = x.layout.select("video"), x.layout.select("question")
    seen: list[torch.Tensor] = []
    attention = tiny.layers[0].self_attn
    handle = attention.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["hidden_states"][0].double()), with_kwargs=True
    )
    tiny.run(x)
    handle.remove()
    q, k = (
        (seen[0] @ part.weight.double().T + part.bias.double()).detach().numpy()
        for part in (attention.q_proj, attention.k_proj)
    )
    query = q[question].mean(0).reshape(tiny.n_heads, -1)
    keys = k[video].reshape(len(video), tiny.n_kv_heads, -1)
    keys = keys.repeat(tiny.n_heads // tiny.n_kv_heads, axis=1)
    scores = np.einsum("hc,nhc->n", query, keys)
    one = Cache(layers=[0], score=RawQuery(), keep_tokens=7, when="video", how="hide")

    def read(example) -> set[int]:
        return set(video[~unread(tiny.run(example, ROWS, ablate=[one]))[1, 0, video]].tolist())

    assert read(x) == best(scores, video, 7)
    moved = replace(x, inputs=x.inputs | {"position_ids": x.inputs["position_ids"] + 40})
    assert read(moved) == read(x)
    stretched = x.inputs["position_ids"] * 3
    assert read(replace(x, inputs=x.inputs | {"position_ids": stretched})) == read(x)
    # Pages of raw keys: the mean key of the page decides.
    pages = Cache(layers=[0], score=RawQuery(), keep=0.4, select=Pages(4), when="video", how="hide")
    means = np.repeat(scores.reshape(-1, 4).mean(1), 4)
    run = tiny.run(x, ROWS, ablate=[pages])
    assert set(video[~unread(run)[1, 0, video]].tolist()) == best(means, video, 8)


@pytest.mark.parametrize("wrong", [lambda: Buckets(0), lambda: Pages(0)])
def test_wrong_sizes(wrong) -> None:
    with pytest.raises(ProbeError, match="at least 1"):
        wrong()
