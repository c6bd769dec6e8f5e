"""Diversity: each method against plain loops over all tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from probe.ablate.recipes.diversity import divprune, unicomp, vidcom2, vispruner
from probe.ablate.recipes.tower_pruning import fastervlm
from probe.ablate.reduction.budget import Keep
from probe.ablate.scores_encoder import CLS
from probe.errors import ProbeError
from tests.ablate.recipes.peers import FIELDS, cos, field, made, same, seen, top

fields = pytest.mark.parametrize("kind", FIELDS)


@fields
@pytest.mark.parametrize("keep", [0.1, 0.3])
def test_divprune_is_the_loop_over_all_pairs(kind: str, keep: float) -> None:
    one = divprune(keep)
    c = seen(one, field(kind, 4))
    x, n = c.x.numpy(), len(c)
    far = [[1 - cos(a, b) for b in x] for a in x]
    kept = [max(range(n), key=lambda i: (min(far[i][j] for j in range(n) if j != i), -i))]
    while len(kept) < round(keep * n):
        left = [i for i in range(n) if i not in kept]
        kept.append(max(left, key=lambda i: (min(far[i][j] for j in kept), -i)))

    same(made(one, c), {i: {i: 1.0} for i in sorted(kept)})


@fields
@pytest.mark.parametrize(("keep", "important"), [(0.5, 0.5), (0.25, 0.0), (0.75, 0.4)])
def test_vispruner_is_attention_and_then_deletion_of_matches(
    kind: str, keep: float, important: float
) -> None:
    one = vispruner(keep, important, r=2)
    c = seen(one, field(kind, 3))
    x, score, kept = c.x.numpy(), c.readings[CLS()].numpy(), []
    for frame in range(3):
        group = list(range(frame * 12, frame * 12 + 12))
        count = round(12 * keep)
        best = top(group, score, int(count * important))
        left = [i for i in top(group, score, 12) if i not in best]
        while len(left) > count - len(best):
            even, odd = left[::2], left[1::2]
            match = {i: max(cos(x[i], x[j]) for j in odd) for i in even}
            ranked = sorted(range(len(even)), key=lambda a: (-match[even[a]], a))
            gone = min(2, len(left) - (count - len(best)))
            left = [even[a] for a in ranked[gone:]] + odd
        kept += best + left

    same(made(one, c), {i: {i: 1.0} for i in sorted(kept)})


@fields
def test_vispruner_by_attention_alone_is_fastervlm(kind: str) -> None:
    one = vispruner(0.4, important=1)
    plain = fastervlm(0.4)
    c = seen(one, field(kind))

    np.testing.assert_array_equal(made(one, c).dense(), made(plain, c).dense())
    assert (one.at, one.position, one.order) == (plain.at, plain.position, plain.order)


def vidcom2_counts(x: np.ndarray, frames: int, keep: float, temperature: float, half: bool):
    """Scores and counts by loops."""
    n = len(x) // frames
    if half:
        mean = x.mean(0)
        spread = [float(((x[:, k] - mean[k]) ** 2).mean()) for k in range(x.shape[1])]
        least = sorted(range(len(spread)), key=lambda k: (spread[k], k))[: len(spread) // 2]
        x = x[:, sorted(least)]
    x = x / np.sqrt((x**2).sum(1, keepdims=True))

    def gaussian(token: np.ndarray, centre: np.ndarray) -> float:
        gap = float(((token - centre) ** 2).sum())
        return sum(math.exp(-gap / (2 * a)) for a in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    video = [-gaussian(token, x.mean(0)) for token in x]
    frame = [-gaussian(t, x[i // n * n : i // n * n + n].mean(0)) for i, t in enumerate(x)]
    means = [float(np.mean(video[f * n : f * n + n])) for f in range(frames)]
    weight = [math.exp((m - max(means)) / temperature) for m in means]
    share = [w / sum(weight) for w in weight]
    rates = [keep * (1 + p - 1 / frames) for p in share]
    return [a + b for a, b in zip(video, frame, strict=True)], rates


@pytest.mark.parametrize("kind", ["random", "clustered", "drifting"])
@pytest.mark.parametrize("channels", ["half", "all"])
@pytest.mark.parametrize("keep", [0.25, 0.6])
def test_vidcom2_is_its_formula(kind: str, channels: str, keep: float) -> None:
    one = vidcom2(keep, channels=channels)
    c = seen(one, field(kind))
    score, rates = vidcom2_counts(c.x.numpy(), 6, keep, 0.01, channels == "half")
    assert sum(rates) == pytest.approx(6 * keep)
    kept = []
    for frame, rate in enumerate(rates):
        group = list(range(frame * 12, frame * 12 + 12))
        count = max(1, round(min(rate, 1.0) * 12))
        kept += sorted(group, key=lambda i: (-score[i], i))[:count]

    same(made(one, c), {i: {i: 1.0} for i in sorted(kept)})


@pytest.mark.parametrize("kind", FIELDS)
def test_vidcom2_at_a_high_temperature_gives_equal_budgets(kind: str) -> None:
    one = vidcom2(0.5, temperature=1e9)
    equal = replace(one, budget=Keep(0.5, "round"))
    c = seen(one, field(kind))

    np.testing.assert_array_equal(made(one, c).dense(), made(equal, c).dense())


def test_vidcom2_with_identical_frames_gives_equal_budgets() -> None:
    one = vidcom2(0.25)
    x = field("random", 1).expand(5, -1, -1, -1).contiguous()
    w = made(one, seen(one, x))

    assert np.bincount(w.anchor // 12).tolist() == [3] * 5


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_halves_are_rounded_to_even(keep: float) -> None:
    x = field("random", 3, 1, 5)
    for one, count in ((divprune(keep), round(15 * keep)), (vispruner(keep), 3 * round(5 * keep))):
        assert len(made(one, seen(one, x))) == count


def unicomp_rows(c, keep: float, tau: float, u: float, longest: int) -> dict:
    """UniComp by loops."""
    x, key = c.x.numpy(), c.readings["encoder_key"].numpy()
    n, frames = 12, len(c) // 12
    means = [x[f * n : f * n + n].mean(0) for f in range(frames)]
    groups: list[list[int]] = []
    for f in range(frames):
        joins = groups and 1 - cos(means[groups[-1][0]], means[f]) <= tau
        if joins and len(groups[-1]) < longest:
            groups[-1].append(f)
        else:
            groups.append([f])
    merged = [np.mean([x[f * n : f * n + n] for f in g], axis=0) for g in groups]
    total, count = int(keep * len(c) + 1e-9), len(groups)
    sources = [[[f * n + p for f in g] for p in range(n)] for g in groups]
    if total >= count * n:
        return {s[0]: dict.fromkeys(s, 1 / len(s)) for g in sources for s in g}
    cap = [min(n, max(1, total // count * 2))] * count
    given = list(cap)
    if sum(cap) > total:
        centre = [m.mean(0) for m in merged]
        alike = [float(np.mean([cos(a, b) for b in centre])) for a in centre]
        unique = [(float(np.mean(alike)) - a) * math.sqrt(count) for a in alike]
        share = [math.exp(v) / sum(math.exp(w) for w in unique) for v in unique]
        given = [int(total * s + 1e-9) for s in share]
        while True:
            over = [g > m for g, m in zip(given, cap, strict=True)]
            if not any(over) or all(over):
                break
            given = [min(g, m) for g, m in zip(given, cap, strict=True)]
            more = (total - sum(given)) // over.count(False)
            if more <= 0:
                break
            given = [g + (0 if o else more) for g, o in zip(given, over, strict=True)]
        given = [min(g, m) for g, m in zip(given, cap, strict=True)]
    found = []
    for g, tokens_of in zip(sources, merged, strict=True):
        k = [key[s[0]] for s in g]
        order = unique_order(tokens_of)
        chosen: list[int] = []
        for p in order:
            if all(round(1 - cos(k[p], k[q]), 9) >= u for q in chosen):
                chosen.append(p)
        found.append((g, k, chosen))
    most = [len(chosen) for _, _, chosen in found]
    short = [m < g for m, g in zip(most, given, strict=True)]
    if sum(most) > sum(given) and not all(short):
        spare = sum(g - m for m, g, s in zip(most, given, short, strict=True) if s)
        extra = spare // short.count(False)
        given = [g + (0 if s else extra) for g, s in zip(given, short, strict=True)]
    rows: dict[int, dict[int, float]] = {}
    for (g, k, chosen), size in zip(found, given, strict=True):
        for p in sorted(chosen[:size]):
            near = [q for q in range(n) if q == p or round(1 - cos(k[p], k[q]), 9) < u]
            row: dict[int, float] = {}
            for q, weight in [(p, 0.5), *((q, 0.5 / len(near)) for q in near)]:
                for source in g[q]:
                    row[source] = row.get(source, 0.0) + weight / len(g[q])
            rows[g[p][0]] = row
    return rows


def unique_order(x: np.ndarray) -> list[int]:
    """Places by falling uniqueness: minus the mean cosine with the frame's tokens."""
    unit = x / np.sqrt((x**2).sum(1, keepdims=True))
    alike = [float(np.mean(unit @ row)) for row in unit]
    return sorted(range(len(x)), key=lambda p: (round(alike[p], 6), p))


@pytest.mark.parametrize("kind", ["random", "clustered", "drifting"])
@pytest.mark.parametrize(
    ("keep", "tau", "u"), [(0.3, 0.02, 0.2), (0.2, -1.0, 0.4), (0.7, 0.3, 0.1)]
)
@pytest.mark.parametrize("variant", ["paper", "code"])
def test_unicomp_is_its_loops(kind: str, keep: float, tau: float, u: float, variant: str) -> None:
    one = unicomp(keep, tau, u, variant=variant)
    c = seen(one, field(kind))
    longest = int(1 / keep) + (variant == "code")

    same(made(one, c), unicomp_rows(c, keep, tau, u, longest))


@fields
def test_unicomp_with_room_for_all_is_the_identity(kind: str) -> None:
    one = unicomp(1.0, tau=-1.0)

    assert made(one, seen(one, field(kind))).is_identity


def test_unicomp_with_room_for_the_merged_frames_compresses_no_places() -> None:
    one = unicomp(0.5)
    w = made(one, seen(one, field("constant", 4)))  # two groups, of three frames and of one

    assert len(w) == 24 and sorted(w.mass.tolist()) == [1] * 12 + [3] * 12


def test_wrong_arguments() -> None:
    for make in (lambda: unicomp(variant="other"), lambda: unicomp(keep=0)):
        with pytest.raises(ProbeError, match="unicomp: keep=") as error:
            make()
        assert "\n" not in str(error.value)
