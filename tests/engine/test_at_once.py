"""Two models, two threads, and the same model twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, NoRope, Random, Reduce, fastv, layer
from probe.capture import AttentionMass, Contributions, LogitLens, TokenNorms
from probe.models.loading import load
from probe.models.video_model import VideoModel
from tests.snapshot import same, snapshot
from tests.tiny import build, example

CAPTURES = [AttentionMass("tokens"), TokenNorms(), Contributions("r"), LogitLens()]
ABLATIONS = [fastv(1, 0.5), NoRope(), Knockout("frame 1 -> last", layers=1)]


def test_two_models_one_inside_the_other(tiny: VideoModel, other: VideoModel) -> None:
    x, y = example(tiny), example(other)
    alone = tiny.run(x, [], ABLATIONS).logits, other.run(y, [], [Knockout("video -> last")]).logits
    with tiny.ablated(x, ABLATIONS) as outer:
        with other.ablated(y, [Knockout("video -> last")]) as inner, torch.no_grad():
            second = inner(**y.inputs, use_cache=False).logits[0, y.layout.readout].numpy()
        assert np.array_equal(other.run(y).logits, _plain(other, y))
        with torch.no_grad():
            first = outer(**x.inputs, use_cache=False).logits[0, x.layout.readout].numpy()
    np.testing.assert_allclose(first, alone[0], atol=1e-5)
    np.testing.assert_allclose(second, alone[1], atol=1e-5)


def _plain(model: VideoModel, x: Any) -> np.ndarray:
    with torch.no_grad():
        wanted = torch.as_tensor(x.layout.readout)
        return model.hf(**x.inputs, use_cache=False, logits_to_keep=wanted).logits[0].numpy()


def test_two_threads_with_a_model_each() -> None:
    models = [build(seed=5), build(seed=6)]
    models[1].hf.config.text_config = models[0].hf.config.text_config  # even with a shared config
    for layer_ in models[1].layers:
        layer_.self_attn.config = models[0].layers[0].self_attn.config
    examples = [example(model, 8) for model in models]
    changes = [[fastv(1, 0.5)], [Knockout("frame 1 -> text"), NoRope()]]
    expected = [m.run(x, CAPTURES, a) for m, x, a in zip(models, examples, changes, strict=True)]
    start, wrong = threading.Barrier(3), []

    def work(number: int | None) -> None:
        try:
            start.wait()
            for _ in range(12):
                if number is None:
                    found, right = _plain(bystander, other_x), plain
                else:
                    run = models[number].run(examples[number], CAPTURES, changes[number])
                    assert run.data.identical(expected[number].data)
                    found, right = run.logits, expected[number].logits
                assert np.array_equal(found, right)
        except BaseException as error:
            wrong.append(error)

    bystander = build(seed=7)
    other_x = example(bystander, 8)
    plain = _plain(bystander, other_x)
    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 1, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


def in_thread(do: Callable) -> BaseException | None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            do()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return caught[0] if caught else None


@pytest.mark.parametrize(
    "ablations", [ABLATIONS, [Reduce(at=layer(0), score=Random(), keep=0.5)], []]
)
def test_the_same_model_twice_at_once_is_refused(tiny: VideoModel, ablations: list) -> None:
    x, before = example(tiny), snapshot(tiny.hf)
    again = load((tiny.hf, tiny.processor))  # another VideoModel on the same weights
    expected = tiny.run(x, [], ablations).logits
    with tiny.ablated(x, ablations) as hf:
        for model in (tiny, again):
            for do in (lambda m=model: m.run(x), lambda m=model: m.generate(x, max_new_tokens=2)):
                with pytest.raises(ProbeError, match="in use by another run"):
                    do()
                error = in_thread(do)
                assert isinstance(error, ProbeError) and "in use by another run" in str(error)
        error = in_thread(lambda: tiny.hf(**x.inputs))
        assert isinstance(error, ProbeError) and "\n" not in str(error)
        with torch.no_grad():
            found = hf(
                **x.inputs, use_cache=False, logits_to_keep=torch.as_tensor(x.layout.readout)
            )
    assert np.array_equal(found.logits[0].numpy(), expected)
    same(before, snapshot(tiny.hf))


def test_training_mode_is_refused(tiny: VideoModel) -> None:
    x = example(tiny)
    tiny.hf.train()
    try:
        with pytest.raises(ProbeError, match=r"in training mode; call .hf.eval\(\)"):
            tiny.run(x)
    finally:
        tiny.hf.eval()
    tiny.run(x)


def test_gradients_flow_through_ablations(tiny: VideoModel) -> None:
    x = example(tiny)
    with tiny.ablated(x, ABLATIONS) as hf:
        logits = hf(**x.inputs, use_cache=False, logits_to_keep=1).logits
    gradient = torch.autograd.grad(logits[0, -1].max(), tiny.layers[0].mlp.up_proj.weight)[0]
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
