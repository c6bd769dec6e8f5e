"""Methods that merge inside of segments: each against plain loops over frames and places."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from probe.ablate.recipes.time_pruning import fastvid, prunevid
from probe.ablate.scores_encoder import PoolHead
from probe.ablate.scores_text import TextQuery
from probe.errors import ProbeError
from tests.ablate.recipes.peers import (
    FIELDS,
    cos,
    field,
    made,
    nearest,
    peaks,
    same,
    seen,
    top,
    units,
)

fields = pytest.mark.parametrize("kind", FIELDS)
PLACES = 12  # tokens of a frame


def frame(t: int) -> list[int]:
    return list(range(t * PLACES, (t + 1) * PLACES))


# -- FastVID ------------------------------------------------------------------------------


def fastvid_rows(c, keep: float, count: int, tau: float, share: float, beta: float) -> dict:
    n = PLACES if len(c.x) % 196 else 196
    x, score, time = c.x.numpy(), c.readings[PoolHead()].numpy(), len(c.x) // n
    means = [x[t * n : t * n + n].mean(0) for t in range(time)]
    near = [cos(a, b) for a, b in pairwise(means)]
    cuts = {t for t, s in enumerate(near) if s < tau}
    cuts |= set(sorted(range(len(near)), key=lambda t: (near[t], t))[: count - 1])
    edges = [0, *sorted(t + 1 for t in cuts), time]
    size = int(n * keep + 1e-9)
    context = int(size * share + 1e-9)
    rows = {}
    for start, stop in pairwise(edges):
        salient = [
            i
            for t in range(start, stop)
            for i in top(range(t * n, t * n + n), score, size - context)
        ]
        rows |= units(salient)
        others = [i for i in range(start * n, stop * n) if i not in salient]
        anchors = list(range(stop - 1, start - 1, -4))[::-1]
        each = context * (stop - start) // len(anchors)
        for t in anchors:
            inside = [i for i in others if i // n == t]
            centres = peaks(x, inside, each, 4)
            joined = {centre: [centre] for centre in centres}
            for i in others:
                if i not in joined and centres:
                    joined[nearest(x, i, centres, "cos")].append(i)
            for centre, members in joined.items():
                if len(members) == 1:
                    rows[centre] = {centre: 1.0}
                    continue
                own = max(beta, 1 / (len(members) + 1))
                row = {i: (1 - own) / len(members) for i in members}
                row[centre] += own
                rows[centre] = row
    return {anchor: rows[anchor] for anchor in sorted(rows)}


@pytest.mark.parametrize("kind", ["random", "clustered", "drifting"])
@pytest.mark.parametrize(
    ("keep", "count", "tau", "share"),
    [(0.5, 3, 0.5, 0.4), (0.25, 2, -1.0, 0.7), (0.7, 5, 0.9, 0.4)],
)
def test_fastvid_is_its_loops(kind: str, keep: float, count: int, tau: float, share: float) -> None:
    one = fastvid(keep, count, tau, share)
    c = seen(one, field(kind, 9))

    same(made(one, c), fastvid_rows(c, keep, count, tau, share, 0.6))


def test_published_count_of_fastvid() -> None:
    one = fastvid()
    w = made(one, seen(one, field("random", 8, 14, 14)))

    assert len(w) == 8 * 19 and len(w) / (8 * 196) == pytest.approx(0.0969, abs=5e-5)
    assert int(np.isclose(w.gain, 1).sum()) == len(w)


def test_fastvid_refuses_too_few_frames() -> None:
    one = fastvid()
    with pytest.raises(ProbeError, match="7 frames cannot be 8 groups") as error:
        made(one, seen(one, field("random", 7)))
    assert "\n" not in str(error.value)


# -- PruneVid -----------------------------------------------------------------------------


def runs_of(label: list[int]) -> list[tuple[int, int]]:
    edges = [t for t in range(1, len(label)) if label[t] != label[t - 1]]
    return list(zip([0, *edges], [*edges, len(label)], strict=True))


def frame_clusters(means: np.ndarray, ratio: float) -> list[tuple[int, int]]:
    """Segments: clusters of frames, of each its longest run, gaps to the longer neighbour."""
    time = len(means)
    centres = peaks(means, list(range(time)), max(1, int(time * ratio)), 7)
    label = [
        t if t in centres else nearest(means, t, centres) if len(centres) else 0
        for t in range(time)
    ]
    mended = list(label)
    for one in set(label):
        runs = [r for r in runs_of(label) if label[r[0]] == one]
        longest = max(b - a for a, b in runs)
        for a, b in runs:
            if b - a < longest or longest == 1:
                mended[a:b] = [-1] * (b - a)
    for a, b in runs_of(mended):
        if mended[a] == -1:
            runs = runs_of(mended)
            left = next(((y - x, mended[x]) for x, y in runs if y == a), (-1, 0))
            right = next(((y - x, mended[x]) for x, y in runs if x == b), (-1, 0))
            mended[a:b] = [(left if left[0] >= right[0] else right)[1]] * (b - a)
    return runs_of(mended)


def clustered(x: np.ndarray, rows: dict, group: list[int], smallest: int, ratio: float) -> dict:
    """Rows of a group after clustering; `x` are the features of the rows."""
    if len(group) <= smallest:
        return {i: rows[i] for i in group}
    centres = peaks(x, group, int(len(group) * ratio), 7)
    members = {i: [i] for i in centres}
    for i in group:
        if i not in members and centres:
            members[nearest(x, i, centres)].append(i)
    out = {}
    for centre, joined in members.items():
        row: dict[int, float] = {}
        for i in joined:
            for source, value in rows[i].items():
                row[source] = row.get(source, 0.0) + value / len(joined)
        out[centre] = row
    return out


@pytest.mark.parametrize("kind", ["random", "clustered", "drifting"])
@pytest.mark.parametrize(
    ("tau", "ratio", "smallest"), [(0.8, 0.25, 5), (0.9, 0.5, 2), (0.3, 0.3, 9)]
)
def test_prunevid_is_its_loops(kind: str, tau: float, ratio: float, smallest: int) -> None:
    one, _ = prunevid(tau=tau, ratio=ratio, smallest=smallest)
    time = 9
    c = seen(one, field(kind, time))
    x = c.x.numpy()
    means = np.stack([x[frame(t)].mean(0) for t in range(time)])
    rows = {}
    for start, stop in frame_clusters(means, ratio):
        count, still = stop - start, {}
        for p in range(PLACES):
            line = [t * PLACES + p for t in range(start, stop)]
            pairs = [cos(x[a], x[b]) for a in line for b in line if a != b]
            if pairs and np.mean(pairs) > tau:
                still[line[0]] = dict.fromkeys(line, 1 / count)
        moving = [
            i
            for t in range(start, stop)
            for i in frame(t)
            if start * PLACES + i % PLACES not in still
        ]
        features = x.copy()
        for anchor, row in still.items():
            features[anchor] = sum(value * x[i] for i, value in row.items())
        rows |= clustered(features, still, sorted(still), smallest, 0.5)
        for t in range(start, stop):
            group = [i for i in moving if i // PLACES == t]
            rows |= clustered(x, units(group), group, smallest, 0.5)

    same(made(one, c), {anchor: rows[anchor] for anchor in sorted(rows)})


def test_prunevid_then_chooses_in_each_segment_and_frame_by_the_question() -> None:
    one = prunevid(0.5)[1]
    c = seen(one, field("random", 4))
    segment = np.repeat([0, 1], 24)
    piece = (np.arange(48) % 12 >= 6).astype(int)  # half of the places is dynamic
    c = type(c)(**{**vars(c), "segment": segment, "piece": piece})
    score = c.readings[TextQuery(agg="max")].numpy()
    kept = []
    for s in (0, 1):
        kept += top(np.flatnonzero((segment == s) & (piece == 0)).tolist(), score, 6)
    for t in range(4):
        kept += top([i for i in frame(t) if piece[i] == 1], score, 3)

    same(made(one, c), units(sorted(kept)))
    assert one.cache == "retroactive"


@fields
def test_prunevid_with_neutral_parameters_is_the_identity(kind: str) -> None:
    one = prunevid(1.0, tau=1.0, cluster=1.0)

    assert len(one) == 1 and made(one[0], seen(one[0], field(kind))).is_identity
