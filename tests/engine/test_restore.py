"""After a run, and after one that raised in the middle, the model is as it was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Ablation, Knockout, NoRope, fastv
from probe.capture import AttentionMass, Capture, Contributions, LogitLens, TokenNorms
from probe.engine import seam
from probe.models.video_model import VideoModel
from tests.snapshot import same, snapshot
from tests.tiny import example

CAPTURES = [AttentionMass("tokens"), TokenNorms(), Contributions("r"), LogitLens()]
ABLATIONS = [fastv(1, 0.5), NoRope(), Knockout("frame 1 -> last", layers=1)]


class Stop(Exception):
    """What the things below raise."""


@dataclass(frozen=True)
class Failing(Capture):
    """Raises at an event of layer 2."""

    event: str = "attention"

    def start(self, session: Any) -> dict:
        if self.event == "start":
            raise Stop
        return {}

    def attention(self, session: Any, state: dict, call: Any) -> None:
        self._fail("attention", call.layer)

    def residual(self, session: Any, state: dict, layer: int, x: torch.Tensor) -> None:
        self._fail("residual", layer)

    def output(self, session: Any, state: dict, layer: int, part: str, y: torch.Tensor) -> None:
        self._fail(part, layer)

    def final(self, session: Any, state: dict, x: torch.Tensor) -> None:
        self._fail("final", 2)

    def finish(self, session: Any, state: dict) -> dict:
        raise Stop

    def _fail(self, event: str, layer: int) -> None:
        if event == self.event and layer == 2:
            raise Stop


@dataclass(frozen=True)
class FailingEdit(Ablation):
    """Raises while layer 2 is edited, or at the end."""

    at_end: bool = False

    def edit(self, session: Any, state: dict, call: Any) -> None:
        if call.layer == 2 and not self.at_end:
            raise Stop

    def finish(self, session: Any, state: dict) -> None:
        raise Stop


def test_the_snapshot_sees_changes(tiny: VideoModel) -> None:
    before = snapshot(tiny.hf)
    attention = tiny.layers[1].self_attn
    own = seam.install(attention)
    with pytest.raises(AssertionError, match="config"):
        same(before, snapshot(tiny.hf))
    attention.config = own
    handle = attention.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(AssertionError, match="hooks"):
        same(before, snapshot(tiny.hf))
    handle.remove()
    tiny.hf.something = 3
    with pytest.raises(AssertionError):
        same(before, snapshot(tiny.hf))
    del tiny.hf.something
    same(before, snapshot(tiny.hf))


def using(tiny: VideoModel) -> dict[str, Callable]:
    x = example(tiny)

    def loop(ablations: list) -> None:
        with tiny.ablated(x, ablations) as hf:
            hf(**x.inputs)

    return {
        "run": lambda c, a: tiny.run(x, c, a),
        "generate": lambda c, a: tiny.generate(
            x, [one for one in c if not isinstance(one, AttentionMass)], a, max_new_tokens=3
        ),
        "loop": lambda c, a: loop(a),
    }


@pytest.mark.parametrize("way", ["run", "generate", "loop"])
def test_after_a_run(tiny: VideoModel, way: str) -> None:
    do, before = using(tiny)[way], snapshot(tiny.hf)
    for captures, ablations in (([], []), (CAPTURES, []), ([], ABLATIONS), (CAPTURES, ABLATIONS)):
        do(captures, ablations)
        same(before, snapshot(tiny.hf))


FAILURES: list[tuple[list, list]] = [
    ([Failing(event)], []) for event in ("start", "attention", "residual", "mlp", "final", "finish")
]
FAILURES += [([*CAPTURES, Failing()], ABLATIONS), ([], [FailingEdit()]), ([], [FailingEdit(True)])]
FAILURES += [(CAPTURES, [*ABLATIONS, FailingEdit()])]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f"{len(f[0])}-{len(f[1])}-{f[0][-1:]}")
@pytest.mark.parametrize("way", ["run", "generate"])
def test_after_one_that_raised(tiny: VideoModel, way: str, failure: tuple[list, list]) -> None:
    x = example(tiny)
    do, before, expected = using(tiny)[way], snapshot(tiny.hf), tiny.run(x).logits
    with pytest.raises(Stop):
        do(*failure)
    same(before, snapshot(tiny.hf))
    assert np.array_equal(tiny.run(x).logits, expected)


def test_after_a_loop_that_raised(tiny: VideoModel) -> None:
    x, before = example(tiny), snapshot(tiny.hf)
    with pytest.raises(Stop), tiny.ablated(x, ABLATIONS):
        raise Stop
    same(before, snapshot(tiny.hf))
    with (
        pytest.raises(ProbeError, match="does not fit the example"),
        tiny.ablated(x, ABLATIONS) as hf,
    ):
        hf(**example(tiny, 2).inputs)
    same(before, snapshot(tiny.hf))


def test_the_model_s_own_hooks_stay(tiny: VideoModel) -> None:
    calls: list[int] = []
    handle = tiny.layers[1].register_forward_hook(lambda *_: calls.append(1))
    before = snapshot(tiny.hf)
    tiny.run(example(tiny), CAPTURES, ABLATIONS)
    same(before, snapshot(tiny.hf))
    handle.remove()
    assert calls == [1]
