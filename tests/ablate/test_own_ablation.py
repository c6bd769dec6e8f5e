"""The documented ablation and score of one's own, against plain transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, Reduce, fastv, layer
from probe.doctor.ablation_checks import each_ablation
from probe.doctor.limits import limits
from probe.doctor.subject import Subject
from probe.engine import forward
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.snapshot import same, snapshot
from tests.tiny import clip, example

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("own_ablation")


def blurred(model: VideoModel, x, number: int, radius: int) -> np.ndarray:
    """Logits of plain transformers where a hook averages each cell over nearby frames."""
    video = x.layout.select("video")
    frames = len(x.layout.frames)

    def hook(module, args, kwargs):
        stream = (args[0] if args else kwargs["hidden_states"]).clone()
        cells = stream[0, video].reshape(frames, -1, stream.shape[-1])
        mean = [cells[max(0, t - radius) : t + radius + 1].mean(0) for t in range(frames)]
        stream[0, video] = torch.stack(mean).flatten(0, 1)
        if args:
            return (stream, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": stream}

    handle = model.layers[number].register_forward_pre_hook(hook, with_kwargs=True)
    with torch.no_grad():
        logits = model.hf(**x.inputs, use_cache=False).logits[0, x.layout.readout]
    handle.remove()
    return logits.numpy()


@pytest.mark.parametrize(("number", "radius"), [(0, 1), (2, 2), (1, 9)])
def test_a_blur_is_the_mean_over_frames(own, tiny: VideoModel, number: int, radius: int) -> None:
    x = example(tiny, answer="red")
    expected = blurred(tiny, x, number, radius)
    before = snapshot(tiny.hf)
    run = tiny.run(x, ablate=[own.TimeBlur(number, radius)])
    same(before, snapshot(tiny.hf))
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-5)
    assert np.abs(run.logits - tiny.run(x).logits).max() > 1e-2


def test_it_is_like_any_other(own, tiny: VideoModel) -> None:
    x, one = example(tiny, answer="red"), own.TimeBlur(2, 2)
    idle = one.neutral()
    assert str(one) == "TimeBlur(layer=2, radius=2)"
    assert np.array_equal(tiny.run(x, ablate=[idle]).logits, tiny.run(x).logits)
    forced = forward.run(tiny, x, ablations=[idle], force=True)
    np.testing.assert_allclose(forced.logits, tiny.run(x).logits, rtol=0, atol=1e-5)
    text = example(tiny, None)
    assert np.array_equal(tiny.run(text, ablate=[one]).logits, tiny.run(text).logits)
    lists = [[one], [one, Knockout("video -> last")], [fastv(1, 0.5), one]]
    read = {"measure": lambda run: float(run.logits[-1, 7])}
    swept = tiny.sweep(x, lists, **read)["value"][1:]
    alone = [read["measure"](tiny.run(x, ablate=several)) for several in lists]
    np.testing.assert_allclose(swept, alone, rtol=0, atol=1e-5)
    generated = tiny.generate(x := example(tiny), ablate=[one], max_new_tokens=3)
    whole = tiny.run(tiny.force(x, generated.meta["generated"]), ablate=[one])
    np.testing.assert_allclose(generated.logits, whole.logits, rtol=0, atol=1e-5)


def test_it_is_refused_and_proves_itself(own, tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="layer 4 does not exist"):
        tiny.run(x, ablate=[own.TimeBlur(4)])
    with pytest.raises(ProbeError, match="radius=-1"):
        tiny.run(x, ablate=[own.TimeBlur(radius=-1)])
    still = clip(4).frames[:1].repeat(4, 0)
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.run(tiny.encode(still, "What?", seconds=np.arange(4)), ablate=[own.TimeBlur(0)])


def test_the_doctor_takes_it(own, tiny: VideoModel) -> None:
    x = example(tiny)
    subject = Subject(tiny, x, x, x, limits(tiny.hf), (own.TimeBlur(1),))
    [check] = [one for one in each_ablation(subject) if "TimeBlur" in one.name]
    assert check.status == "ok", check


def test_a_score_is_used_as_any_other(own, tiny: VideoModel) -> None:
    x = example(tiny)
    one = Reduce(at=layer(1), score=own.Centre(), keep=0.5)
    assert str(one) == "Reduce(at=Layer(k=1), score=Centre(), keep=0.5)"
    assert from_json(one.to_json(), {"Reduce": Reduce, "Layer": type(one.at)}) == one
    run = tiny.run(x, ablate=[one])
    [found] = run.reductions
    video = x.layout.select("video")
    away = np.hypot(x.layout.row[video] - 0.5, x.layout.col[video] - 0.5)
    best = np.argsort(away, kind="stable")[: len(found.anchors)]
    np.testing.assert_array_equal(found.anchors, video[np.sort(best)])
