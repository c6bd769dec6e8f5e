"""Methods along time: each against plain loops over frames and places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probe.ablate.recipes.time_pruning import dycoke, earlytom
from probe.ablate.recipes.tower_pruning import fastervlm
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.select_grid import Lattice
from probe.ablate.scores_encoder import EncoderReceived
from probe.ablate.sites import tokens
from probe.errors import ProbeError
from tests.ablate.recipes.peers import FIELDS, cos, field, made, same, seen, top, units

fields = pytest.mark.parametrize("kind", FIELDS)
PLACES = 12  # tokens of a frame


def frame(t: int) -> list[int]:
    return list(range(t * PLACES, (t + 1) * PLACES))


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
    first: Any
    second: Any
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
@pytest.mark.parametrize("tau", [-1.0, 0.6, 0.72, 0.84])
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
            near = alike(inner[i], inner[i + 1]) if i + 1 < len(inner) else -9.0
            after = None if near == -9 or last_pair else alike(inner[i + 1], inner[i + 2])
            joins = near > alike(group[0], group[-1])
            if joins and (after is None or near > after):
                weight = 1.0 if variant == "code" else 0.5
                weight = weight if after is None else near / (near + after)
                for a, b in zip(frame(inner[i]), frame(inner[i + 1]), strict=True):
                    rows[a] = {a: weight, b: 1 - weight} if weight != 1 else {a: 1.0}
                i += 2
                continue
            if near > -9 or variant == "paper":
                rows |= units(frame(inner[i]))
            i += 1
        if len(group) > 1:
            rows |= units(frame(group[-1]))

    same(made(one, c), {anchor: rows[anchor] for anchor in sorted(rows)})


def test_earlytom_weighs_the_newest_similarity_by_nine_tenths() -> None:
    x = torch.zeros(2, 1, 1, 2, dtype=torch.float64)
    x[0, 0, 0], x[1, 0, 0] = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.75**0.5])
    for tau, groups in ((0.54, 1), (0.56, 2)):  # .9 * .5 + .1 is .55
        segment = earlytom(tau=tau)[0].segment
        assert len(segment.groups(Candidates.grid(x))) == groups


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
    plain = fastervlm(0.4, score=EncoderReceived())
    c = seen(one, field(kind, 1))

    np.testing.assert_array_equal(made(one, c).dense(), made(plain, c).dense())


def test_earlytom_corrects_the_rate_for_frames_that_are_gone() -> None:
    one = earlytom(0.25, layers=())[0]
    c = seen(one, field("random", 4))
    half = type(c)(**{**vars(c), "total": 96})  # as if four frames had been merged away

    assert len(made(one, c)) == 12 and len(made(one, half)) == 24


def test_variants_that_do_not_exist() -> None:
    for make in (dycoke, earlytom):
        with pytest.raises(ProbeError, match='there are "paper" and "code"') as error:
            make(variant="other")
        assert "\n" not in str(error.value)
