"""Methods along time: each against plain loops over frames and places."""

from __future__ import annotations

import numpy as np
import pytest

from probe.ablate.recipes.time_pruning import dycoke, earlytom, fastvid, prunevid
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget import Keep
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.select_grid import Lattice
from probe.ablate.scores_encoder import EncoderReceived, PoolHead
from probe.ablate.scores_text import TextQuery
from probe.ablate.sites import tokens
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
)

fields = pytest.mark.parametrize("kind", FIELDS)
PLACES = 12  # tokens of a frame


def frame(t: int) -> list[int]:
    return list(range(t * PLACES, (t + 1) * PLACES))


def units(kept) -> dict:
    return {i: {i: 1.0} for i in kept}


# -- DyCoke -------------------------------------------------------------------------------


@fields
@pytest.mark.parametrize("time", [1, 4, 6, 7, 9])
def test_dycoke_as_in_the_paper(kind: str, time: int) -> None:
    one = dycoke(0.3, decode=False)[0]
    c = seen(one, field(kind, time))
    x, kept = c.x.numpy(), []
    for start in range(0, time, 4):
        kept += frame(start)
        for here, there in ((1, 0), (2, 0), (3, 2)):
            if start + here < time:
                change = {
                    i: 1 - cos(x[i], x[i + (there - here) * PLACES]) for i in frame(start + here)
                }
                kept += sorted(frame(start + here), key=lambda i: (-round(change[i], 6), i))[:3]

    same(made(one, c), units(sorted(kept)))


@pytest.mark.parametrize("kind", ["random", "clustered", "drifting"])
@pytest.mark.parametrize("time", [2, 3, 4, 5, 6, 7, 8, 13])
def test_dycoke_as_released(kind: str, time: int) -> None:
    """Odd frames of pairs first, then every second even one up to the last window but one."""
    one = dycoke(0.4, decode=False, variant="code")[0]
    c = seen(one, field(kind, time))
    x, size = c.x.numpy(), int((1 - 0.6) * PLACES)

    def least_alike(here: int, there: int) -> list[int]:
        alike = [cos(x[a], x[b]) for a, b in zip(frame(here), frame(there), strict=True)]
        return [frame(here)[p] for p in np.argsort(alike, kind="stable")[:size]]

    left: list[list[int]] = []
    for t in range(0, time - 1, 2):
        left += [frame(t), least_alike(t + 1, t)]
    for t in range(0, time - 4, 4):
        left[t + 2] = least_alike(t + 2, t)

    same(made(one, c), units([i for tokens_of in left for i in tokens_of]))


@pytest.mark.parametrize(("time", "share"), [(32, 0.494), (16, 0.516), (8, 0.560)])
def test_published_counts_of_dycoke(time: int, share: float) -> None:
    x = field("random", time, 14, 14)
    code, paper = (dycoke(decode=False, variant=v)[0] for v in ("code", "paper"))

    assert len(made(code, seen(code, x))) / (time * 196) == pytest.approx(share, abs=5e-4)
    assert len(made(paper, seen(paper, x))) == time * 196 // 4 + time * 3 // 4 * 58
    even = field("random", time, 4, 5)  # .3 of 20 tokens is a whole number
    assert len(made(paper, seen(paper, even))) / (time * 20) == 0.475


@fields
def test_dycoke_that_keeps_nothing_of_other_frames_is_one_frame_in_four(kind: str) -> None:
    grid = Reduce(at=tokens(), score=None, select=Lattice(time=4))
    paper, code = (dycoke(0.0, decode=False, variant=v)[0] for v in ("paper", "code"))
    c = seen(paper, field(kind, 8))

    np.testing.assert_array_equal(made(paper, c).dense(), made(grid, c).dense())
    assert len(made(code, c)) == len(made(grid, c)) + PLACES


@fields
def test_dycoke_that_keeps_all_is_the_identity(kind: str) -> None:
    one = dycoke(1.0, decode=False)[0]

    assert made(one, seen(one, field(kind))).is_identity


def test_dycoke_has_its_second_stage() -> None:
    first, second = dycoke(0.5, prune=0.8, layer=2)

    assert str(first).endswith("[0]") and str(second).endswith("[1]")
    assert (second.keep, second.layers, second.how) == (0.2, "2-", "hide")
    assert len(dycoke(decode=False)) == 1


# -- EarlyTom -----------------------------------------------------------------------------


def ema_groups(x: np.ndarray, tau: float, longest: int, first: bool) -> list[list[int]]:
    groups, mean = [[0]], 1.0
    for t in range(1, len(x)):
        other = groups[-1][0] if first else t - 1
        new = float(np.mean([cos(a, b) for a, b in zip(x[other], x[t], strict=True)]))
        mean = 0.9 * new + 0.1 * mean
        if mean < tau or len(groups[-1]) == longest:
            groups.append([t])
            mean = 1.0
        else:
            groups[-1].append(t)
    return groups


@fields
@pytest.mark.parametrize("tau", [-1.0, 0.6, 0.9])
@pytest.mark.parametrize("longest", [4, 6, 8])
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_earlytom_merges_pairs_of_frames(kind: str, tau: float, longest: int, variant: str) -> None:
    one = earlytom(tau=tau, longest=longest, layers=(3,), variant=variant)[0]
    time = 11
    c = seen(one, field(kind, time))
    x = c.x.numpy().reshape(time, PLACES, -1)
    most = longest - 1 if variant == "code" else longest

    def alike(a: int, b: int) -> float:
        return round(float(np.mean([cos(p, q) for p, q in zip(x[a], x[b], strict=True)])), 9)

    rows = {}
    for group in ema_groups(x, tau, most, variant == "code"):
        rows |= units(frame(group[0]))
        inner, i = group[1:-1], 0
        if len(inner) == 1:
            rows |= units(frame(inner[0]))
            inner = []
        while i < len(inner):
            last_pair = i + 2 == len(inner)
            near = alike(inner[i], inner[i + 1]) if i + 1 < len(inner) else None
            after = None if near is None or last_pair else alike(inner[i + 1], inner[i + 2])
            joins = near is not None and near > alike(group[0], group[-1])
            if joins and (after is None or near > after):
                weight = 1.0 if variant == "code" else 0.5
                weight = weight if after is None else near / (near + after)
                for a, b in zip(frame(inner[i]), frame(inner[i + 1]), strict=True):
                    rows[a] = {a: weight, b: 1 - weight} if weight < 1 else {a: 1.0}
                i += 2
                continue
            if near is not None or variant == "paper":
                rows |= units(frame(inner[i]))
            i += 1
        if len(group) > 1:
            rows |= units(frame(group[-1]))

    same(made(one, c), {anchor: rows[anchor] for anchor in sorted(rows)})


def test_earlytom_with_every_frame_for_itself_is_the_identity() -> None:
    for kind in FIELDS:
        one = earlytom(tau=2.0, longest=1, layers=(0,))[0]
        assert made(one, seen(one, field(kind))).is_identity


@fields
@pytest.mark.parametrize("keep", [0.25, 0.4])
def test_earlytom_chooses_the_ends_freely_and_the_middle_by_stretches(kind, keep) -> None:
    one = earlytom(keep, tau=0.5, layers=())[0]
    c = seen(one, field(kind, 9))
    x, score = c.x.numpy().reshape(9, PLACES, -1), c.readings[EncoderReceived()].numpy()
    count, kept = round(keep * PLACES), []
    for group in ema_groups(x, 0.5, 7, True):
        for t in group:
            if t in (group[0], group[-1]):
                kept += top(frame(t), score, count)
                continue
            longer = PLACES % count
            start = 0
            for number in range(count):
                size = PLACES // count + (number < longer)
                kept += top(frame(t)[start : start + size], score, 1)
                start += size

    same(made(one, c), units(sorted(kept)))


@fields
def test_earlytom_on_one_frame_is_fastervlm_by_received_attention(kind: str) -> None:
    one = earlytom(0.4, layers=())[0]
    plain = Reduce(
        at=tokens(), segment=PerFrame(), score=EncoderReceived(), budget=Keep(0.4, "round")
    )
    c = seen(one, field(kind, 1))

    np.testing.assert_array_equal(made(one, c).dense(), made(plain, c).dense())


def test_earlytom_corrects_the_rate_for_frames_that_are_gone() -> None:
    one = earlytom(0.25, layers=())[0]
    c = seen(one, field("random", 4))
    half = type(c)(**{**vars(c), "total": 96})  # as if four frames had been merged away

    assert len(made(one, c)) == 12 and len(made(one, half)) == 24


# -- FastVID ------------------------------------------------------------------------------


def fastvid_rows(c, keep: float, count: int, tau: float, share: float, beta: float) -> dict:
    n = PLACES if len(c.x) % 196 else 196
    x, score, time = c.x.numpy(), c.readings[PoolHead()].numpy(), len(c.x) // n
    means = [x[t * n : t * n + n].mean(0) for t in range(time)]
    near = [cos(a, b) for a, b in zip(means, means[1:], strict=False)]
    cuts = {t for t, s in enumerate(near) if s < tau}
    cuts |= set(sorted(range(len(near)), key=lambda t: (near[t], t))[: count - 1])
    edges = [0, *sorted(t + 1 for t in cuts), time]
    size = int(n * keep + 1e-9)
    context = int(size * share + 1e-9)
    rows = {}
    for start, stop in zip(edges, edges[1:], strict=False):
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
    ("keep", "count", "tau", "share"), [(0.5, 3, 0.5, 0.4), (0.25, 2, -1.0, 0.7), (0.7, 5, 0.9, 0.4)]
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
@pytest.mark.parametrize(("tau", "ratio", "smallest"), [(0.8, 0.25, 5), (0.9, 0.5, 2), (0.3, 0.3, 9)])
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
            i for t in range(start, stop) for i in frame(t) if start * PLACES + i % PLACES not in still
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


def test_variants_that_do_not_exist() -> None:
    for make in (dycoke, earlytom):
        with pytest.raises(ProbeError, match='there are "paper" and "code"') as error:
            make(variant="other")
        assert "\n" not in str(error.value)
