"""Sweeps: resumed runs are the runs themselves, and only what must run again does."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import Knockout, Norm, NoRope, Random, Reduce, Steer, Uniform, edvt, fastv, layer
from probe.ablate.compose import in_order
from probe.diagnose.margin import margin
from probe.engine.sweep import runs
from probe.models.video_model import VideoModel
from tests.ablate.cases import ACTIVE
from tests.tiny import example

SEVERAL = [
    *([one] for one in ACTIVE),
    [Knockout("video -> question", layers=2)],
    [Knockout("video -> last", layers=[1, 2])],
    [Knockout("question -> last"), fastv(2, 0.5)],
    [Reduce(at=layer(2), score=Norm(), keep=0.5), NoRope("video -> last", layers=2)],
    [Reduce(at=layer(1), score=Random(3), keep=0.4), fastv(2, 0.5)],
    [Steer([1.0] + [0.0] * 31, at="question", layers=2)],
]


@pytest.mark.parametrize("answer", [None, "red"])
def test_a_resumed_run_is_the_run(tiny: VideoModel, answer: str | None) -> None:
    x = example(tiny, answer=answer)
    lists = [[], *(in_order(one) for one in SEVERAL)]
    begun = []
    for ablations, run, begins in runs(tiny, x, lists):
        alone = tiny.run(x, ablate=ablations)
        np.testing.assert_allclose(run.logits, alone.logits, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(run.kept, alone.kept)
        assert run.cost.length == alone.cost.length and run.cost.macs == alone.cost.macs
        begun.append((begins["from_layer"], begins["from_row"]))
    assert begun[0] == (tiny.n_layers, x.layout.last)
    assert begun[1] == (0, 0) and begun[2] == (1, 0)  # fastv(1), fastv(2): attention before it
    assert begun[1 + len(ACTIVE)] == (2, int(x.layout.select("question")[0]))
    assert begun[2 + len(ACTIVE)] == (1, x.layout.last)


def test_only_what_must_run_again_does(tiny: VideoModel) -> None:
    x = example(tiny)
    rows: dict[str, list[int]] = {"tower": [], "layers": []}
    handles = [tiny.vision.register_forward_hook(lambda *_: rows["tower"].append(1))]
    handles += [
        each.mlp.register_forward_hook(lambda *a: rows["layers"].append(a[1][0].shape[1]))
        for each in tiny.layers
    ]
    window = [Knockout("video -> question", layers=n) for n in range(tiny.n_layers)]
    tiny.sweep(x, window, margin(tiny, x, tiny.run(x)))
    for handle in handles:
        handle.remove()
    assert len(rows["tower"]) == 2  # the run above, and the sweep's
    question = int(x.layout.select("question")[0])
    suffix = [length for length in rows["layers"] if length == len(x.layout) - question]
    assert len(suffix) == sum(tiny.n_layers - n for n in range(tiny.n_layers))


def test_the_table(tiny: VideoModel) -> None:
    x = example(tiny)
    follow = margin(tiny, x, tiny.run(x))
    several = [fastv(1, 0.5), [edvt(), Reduce(score=Uniform(), keep=0.5)]]
    table = tiny.sweep(x, several, follow)
    assert table.ablation.tolist()[:2] == ["nothing", "fastv(k=1, keep=0.5)"]
    assert table.change[0] == 0
    for row, one in zip(table.value[1:], several, strict=True):
        alone = tiny.run(x, ablate=one if isinstance(one, list) else [one])
        assert row == pytest.approx(follow.of(alone), abs=1e-5)
    named = tiny.sweep(x, several, lambda run: {"top": float(run.logits.max()), "n": 1})
    assert {"top", "n"} <= set(named.columns)
    assert tiny.sweep(x, several).value.tolist() == pytest.approx(table.value.tolist())


def test_a_text_only_prompt(tiny: VideoModel) -> None:
    x = example(tiny, None)
    table = tiny.sweep(x, [fastv(1, 0.5), Knockout("video -> text")])
    assert (table.change.abs() < 1e-5).all()


def test_neutral_is_the_untouched_run_bit_by_bit(tiny: VideoModel) -> None:
    x = example(tiny)
    plain = tiny.run(x).logits
    lists = [[fastv(1, 1.0)], [Knockout([])], [fastv(2, 0.5)], []]
    found = [run.logits for _, run, _ in runs(tiny, x, lists)]
    assert [np.array_equal(logits, plain) for logits in found] == [True, True, False, True]


def test_wrong_measures(tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="give a Margin"):
        tiny.sweep(x, [fastv(1, 0.5)], 3)
    with pytest.raises(ProbeError, match="a number, or a dict"):
        tiny.sweep(x, [fastv(1, 0.5)], lambda run: run.logits)
