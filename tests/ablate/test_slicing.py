"""SliceMLP against MLPs of the plain model whose three matrices are really sliced."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.recipes.heads import ffn_slicing
from probe.ablate.remove import Ablate
from probe.ablate.slicing import SliceMLP
from probe.capture import Activations
from probe.engine import forward
from probe.engine.session import Session
from probe.models.video_model import VideoModel
from probe.spec import from_json, parse
from tests.ablate import plain
from tests.ablate.plain import FAMILIES, Absent, named, show
from tests.families import models
from tests.tiny import example


def sliced(mlp: torch.nn.Module, units: int) -> torch.nn.Module:
    """A copy of an MLP that has its first units alone."""
    small = copy.deepcopy(mlp)
    for name in ("gate_proj", "up_proj"):
        one = getattr(small, name)
        one.weight = torch.nn.Parameter(one.weight[:units])
    small.down_proj.weight = torch.nn.Parameter(small.down_proj.weight[:, :units])
    return small


@pytest.mark.parametrize("ratio", [2, 3.0, 20])
@pytest.mark.parametrize("name", ["tiny", "other", *FAMILIES])
def test_it_is_a_smaller_mlp(request: pytest.FixtureRequest, name: str, ratio: float) -> None:
    model = named(request, name)
    x = show(model, answer="red")
    video = x.layout.select("video")
    width = model.layers[1].mlp.down_proj.in_features
    small = sliced(model.layers[1].mlp, int(width / ratio))
    normed = plain.record(model, x, model.layers[1].mlp, inputs=True)

    def change(y: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        y[video] = small(normed[video])
        return y

    with plain.changed(model.layers[1].mlp, change):
        expected = plain.logits(model, x)
    run = model.run(x, [Activations("mlp", "all")], [SliceMLP(ratio, layers=1)])
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-5)
    full = model.run(x, [Activations("mlp", "all")])
    assert np.abs(run.logits - full.logits).max() > 1e-4
    before, after = (r.data.activations.sel(layer=1).values for r in (full, run))
    text = np.setdiff1d(np.arange(len(x.layout)), video)
    np.testing.assert_array_equal(after[text], before[text])
    assert (after[video] != before[video]).any(1).all()


def test_generated_tokens_and_decoding(tiny: VideoModel) -> None:
    x = example(tiny)
    gen = tiny.generate(x, ablate=[SliceMLP(4, "text")], max_new_tokens=5)
    full = tiny.force(x, gen.meta["generated"])
    run = tiny.run(full, ablate=[SliceMLP(4, "text + answer")])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)
    video = tiny.generate(x, ablate=[SliceMLP(4)], max_new_tokens=5)
    run = tiny.run(tiny.force(x, video.meta["generated"]), ablate=[SliceMLP(4)])
    np.testing.assert_allclose(video.logits, run.logits, rtol=0, atol=1e-5)


def test_neutral_text_only_and_the_full_path(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    x, text = example(model), example(model, None)
    run, gen = model.run(x).logits, model.generate(x, max_new_tokens=3).logits
    for one in (SliceMLP(1), SliceMLP(8, at=[])):
        assert np.array_equal(model.run(x, ablate=[one]).logits, run)
        assert np.array_equal(model.generate(x, ablate=[one], max_new_tokens=3).logits, gen)
    forced = forward.run(model, x, ablations=[SliceMLP(1)], force=True).logits
    np.testing.assert_allclose(forced, run, rtol=0, atol=1e-5)
    assert np.array_equal(model.run(text, ablate=[SliceMLP(8)]).logits, model.run(text).logits)
    one = SliceMLP(2, layers=[2, 3] if model.n_layers > 3 else [2])
    session = Session(model, x, (), [one])
    row = x.layout.select("video")[0]
    assert one.affects(session, session.ablations[0][1]) == (2, row)


def test_what_did_not_fire_and_what_is_refused(tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="changed no hidden unit"):
        tiny.run(x, ablate=[Absent(2), SliceMLP(2, layers=2)])
    for one, message in [
        (SliceMLP(0.5), "ratio 0.5; write a number from 1"),
        (SliceMLP(float("inf")), "ratio inf"),
        (SliceMLP(65), "leaves none of 64 units"),
        (SliceMLP(2, layers=4), "layer 4 does not exist"),
    ]:
        with pytest.raises(ProbeError, match=message):
            tiny.run(x, ablate=[one])
    experts = models.build("qwen3_vl_moe")
    with pytest.raises(ProbeError, match=r"layer 0 has no single MLP .*mixture of experts"):
        experts.run(show(experts), ablate=[SliceMLP(2)])
    alone = experts.run(show(experts), ablate=[Ablate("mlp", 0, at="video")])  # what it says to use
    assert np.isfinite(alone.logits).all()


def test_layers_without_experts_in_a_model_that_has_some() -> None:
    model = models.build("qwen3_vl_moe")
    x = show(model)
    run = model.run(x, ablate=[SliceMLP(2, layers=1)]).logits
    assert np.abs(run - model.run(x).logits).max() > 1e-4


def test_as_json_and_text() -> None:
    one, names = SliceMLP(3, "frames 0-2", layers=[1, 2]), {"SliceMLP": SliceMLP}
    assert from_json(json.loads(json.dumps(one.to_json())), names) == one
    assert parse(str(one), names) == [one]
    assert ffn_slicing(4) == SliceMLP(4) and str(ffn_slicing(4)).startswith("ffn_slicing(ratio=4")
