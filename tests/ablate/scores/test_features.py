"""Scores that compare features, against loops over tokens in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.scores import LastQuery, Norm, Position, Random, Score, Uniform
from probe.ablate.scores_features import Change, Density, Duplication, Uniqueness
from probe.errors import ProbeError
from probe.spec import parse
from tests import tiny
from tests.ablate.scores.host import score
from tests.families import models

WIDTHS = (0.125, 0.25, 0.5, 1, 2)


def grid(time: int = 4, rows: int = 2, cols: int = 3, width: int = 8, seed: int = 0) -> Candidates:
    made = torch.Generator().manual_seed(seed)
    return Candidates.grid(torch.randn(time, rows, cols, width, generator=made))


def segmented(c: Candidates, frames: int) -> Candidates:
    from dataclasses import replace

    return replace(c, segment=c.frame // frames)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("ref", "pairs"),
    [
        ("previous", {1: 0, 2: 1, 3: 2, 5: 4, 6: 5}),
        ("first", {1: 0, 2: 0, 3: 0, 5: 4, 6: 4}),
        (((1, 0), (2, 0), (3, 2)), {1: 0, 2: 0, 3: 2, 5: 4, 6: 4}),
    ],
)
def test_change_is_against_the_same_place_of_the_segment(ref, pairs: dict) -> None:
    c = segmented(grid(7), 4)
    x = c.x.double().numpy().reshape(7, 6, 8)
    found = Change(ref).score(c).numpy().reshape(7, 6)
    for frame in range(7):
        for place in range(6):
            expected = 2.0
            if frame in pairs:
                expected = 1 - cosine(x[frame, place], x[pairs[frame], place])
            assert found[frame, place] == pytest.approx(expected, abs=1e-6)


def test_a_place_that_is_gone_is_no_reference() -> None:
    whole = grid(3)
    c = whole.take(np.delete(np.arange(18), [2, 7]))  # one place of frame 0, one of frame 1
    found = dict(zip(c.position.tolist(), Change().score(c).tolist(), strict=True))
    assert found[8] == 2 and found[13] == 2 and found[1] == 2
    assert found[14] == pytest.approx(Change().score(whole)[14].item())


def test_a_frame_that_stands_still_has_no_change() -> None:
    x = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1)
    x[2, 1, 2] += 1
    found = Change().score(Candidates.grid(x)).reshape(3, 6)[1:]
    assert found.abs().max(dim=1).values[0] < 1e-6
    assert found.argmax() == 11


def test_tokens_without_cells_are_followed_by_their_number() -> None:
    c = grid(2, 1, 3)
    from dataclasses import replace

    bare = replace(c, row=np.full(6, -1), col=np.full(6, -1))
    torch.testing.assert_close(Change().score(bare), Change().score(c))


@pytest.mark.parametrize("channels", ["all", "half"])
@pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
@pytest.mark.parametrize("to", ["video", "frame", "all"])
def test_uniqueness_by_loops(to: str, kernel: str, channels: str) -> None:
    c = grid()
    x = c.x.double().numpy()
    if channels == "half":
        x = x[:, sorted(sorted(range(8), key=lambda channel: x[:, channel].var())[:4])]
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if to != "frame" or c.frame[j] == c.frame[i]]
        if kernel == "cosine":
            expected.append(-np.mean([x[i] @ x[j] for j in others]))
            continue
        centres = [x[j] for j in others] if to == "all" else [np.mean([x[j] for j in others], 0)]
        expected.append(
            -np.mean(
                [sum(np.exp(-((x[i] - m) ** 2).sum() / 2 / a) for a in WIDTHS) for m in centres]
            )
        )
    found = Uniqueness(to, kernel, channels).score(c).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("to", ["video", "frame", "all"])
def test_the_odd_one_out_is_the_most_unique(to: str) -> None:
    c = grid(3, 3, 3, 16)
    x = torch.randn(16, generator=torch.Generator().manual_seed(1)).repeat(27, 1)
    x += 0.05 * c.x
    x[13] *= -1
    one = Candidates.grid(x.reshape(3, 3, 3, 16))
    assert Uniqueness(to, channels="all").score(one).argmax() == 13
    assert Uniqueness(to).score(one).argmax() == 13


def test_uniqueness_in_tiles_is_the_same(monkeypatch) -> None:
    from probe.ablate import scores_features

    whole = Uniqueness("all").score(grid())
    monkeypatch.setattr(scores_features, "TILE", 50)
    torch.testing.assert_close(Uniqueness("all").score(grid()), whole, rtol=0, atol=1e-6)


def test_uniqueness_does_not_depend_on_scale_nor_order() -> None:
    c = grid()
    order = np.random.default_rng(0).permutation(len(c))
    order = order[np.argsort(c.frame[order], kind="stable")]
    for to in ("video", "frame", "all"):
        one = Uniqueness(to)
        scaled = Candidates.grid(3 * c.x.reshape(4, 2, 3, 8))
        torch.testing.assert_close(one.score(scaled), one.score(c), rtol=0, atol=1e-6)
        torch.testing.assert_close(one.score(c.take(order)), one.score(c)[order], rtol=0, atol=1e-6)


def test_duplication_by_loops() -> None:
    c = grid()
    x = c.x.double().numpy()
    pivots = sorted(range(24), key=lambda i: -np.abs(x[i]).sum())[:3]
    expected = [
        2.0 if i in pivots else -max(cosine(x[i], x[pivot]) for pivot in pivots) for i in range(24)
    ]
    found = Duplication(3, by=Norm(p=1)).score(c).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert [leaf.kind for leaf in Duplication().leaves()] == ["key_norm"]


@pytest.mark.parametrize("k", [1, 3, 99])
def test_density_by_loops(k: int) -> None:
    c = segmented(grid(4), 2)
    found = Density(k).score(c).numpy()
    for segment in (0, 1):
        members = np.flatnonzero(c.segment == segment)
        x = c.x.double().numpy()[members] / 8**0.5
        apart = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        density = [np.exp(-np.mean(sorted(row**2)[: min(k, len(x))])) for row in apart]
        for i in range(len(x)):
            denser = [
                apart[i, j]
                for j in range(len(x))
                if density[j] > density[i] or (density[j] == density[i] and j < i)
            ]
            expected = density[i] * (min(denser) if denser else apart.max())
            assert found[members[i]] == pytest.approx(expected, abs=1e-5)


def test_norms() -> None:
    c = grid()
    x = c.x.double().numpy()
    for p in (1, 2, 3):
        expected = (np.abs(x) ** p).sum(1) ** (1 / p)
        np.testing.assert_allclose(Norm(p=p).score(c), expected, rtol=1e-5)
    assert [str(leaf) for leaf in Norm(of="key", p=1).leaves()] == ["KeyNorm()"]


def test_positions_are_prefixes_and_strides_of_a_frame() -> None:
    c = grid(2, 2, 4)
    prefix = Position().score(c).reshape(2, 8)
    assert (prefix.argsort(descending=True) == torch.arange(8)).all()
    strided = Position(3).score(c).reshape(2, 8).argsort(descending=True)
    assert strided.tolist() == [[0, 3, 6, 1, 4, 7, 2, 5]] * 2


def test_controls_do_not_look() -> None:
    one, other = grid(seed=0), grid(seed=1)
    for control in (Random(3), Uniform(), Position(2)):
        assert torch.equal(control.score(one), control.score(other))
        assert torch.equal(control.score(one), control.score(one))
        assert len(control.score(one).unique()) in (24, 6)
    assert not torch.equal(Random(3).score(one), Random(4).score(one))
    leading = Uniform().score(grid(4, 4, 4)).argsort(descending=True, stable=True)[:8]
    assert sorted(leading.tolist()) == list(range(0, 64, 8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Change("next"), "ref='next'; write previous, first or pairs"),
        (lambda: Change([[1, 0, 2]]), "write previous, first or pairs"),
        (lambda: Uniqueness("clip"), 'to="clip"; there are video, frame, all'),
        (lambda: Uniqueness(kernel="dot"), 'kernel="dot"; there are gaussian, cosine'),
        (lambda: Uniqueness(channels="most"), 'channels="most"; there are all, half'),
        (lambda: Duplication(0), "pivots=0; it is a number from 1 on"),
        (lambda: Density(0), "k=0; it is a number from 1 on"),
        (lambda: Density(metric="l1"), 'metric="l1"; there are distance and cos'),
        (lambda: Norm("value"), 'of="value"; there are hidden and key'),
        (lambda: Norm(p=0), "p=0; the norm has a p above 0"),
        (lambda: Position(0), "stride=0; it is a whole number from 1 on"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(make, words: str) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert words in str(error.value) and "\n" not in str(error.value)


FREE = [Norm(), Uniqueness(), Uniqueness("frame"), Change(), Density(3), Duplication(2, Norm())]


@pytest.mark.parametrize("one", FREE, ids=str)
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_the_prompt_changes_no_score_of_what_enters_the_decoder(one: Score, name: str) -> None:
    model = models.build(name)
    first, second = (
        score(model, model.encode(tiny.clip(5, 40, 60), question, frames=None), one)
        for question in ("What moves?", "Which of the two balls is it that falls?")
    )
    np.testing.assert_array_equal(first, second)
    other = model.encode(tiny.clip(5, 40, 60, seed=1), "What moves?", frames=None)
    assert np.abs(first - score(model, other, one)).max() > 1e-4


def test_scores_are_text_and_json_and_keys() -> None:
    from probe.spec import from_json

    names = {type(one).__name__: type(one) for one in EVERY}
    for one in EVERY:
        assert parse(str(one), names) == [one]
        assert from_json(one.to_json(), names) == one
        assert {one: 1}[one] == 1


EVERY = [
    LastQuery(2),
    Norm("key", 1),
    Change(((1, 0), (2, 0), (3, 2))),
    Uniqueness("frame", "cosine", "all"),
    Duplication(3, Norm(p=1)),
    Density(5, "cos"),
    Position(3),
]
