"""What `run` gives: logits, tokens, cost; and where NaN came from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Ablation, Knockout, edvt, fastv
from probe.capture import (
    TokenNorms,
)
from probe.engine.forward import as_list
from probe.models.video_model import VideoModel
from tests.tiny import build, example


def test_run_gives_the_readout_and_its_tokens(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    run = tiny.run(x)
    with torch.no_grad():
        logits = tiny.hf(**x.inputs, use_cache=False).logits[0]
    np.testing.assert_allclose(run.logits, logits[x.layout.readout], atol=1e-5)
    assert run.logits.dtype == np.float32 and run.readout.tolist() == x.layout.readout.tolist()
    assert run.tokens == tiny.decode_each(logits[x.layout.readout].argmax(-1).tolist())
    assert run.text is None and run.layout is x.layout and list(run.data) == []
    whole = tiny.run(x, logits="all")
    np.testing.assert_allclose(whole.logits, logits, atol=1e-5)
    assert whole.readout.tolist() == list(range(len(x.layout)))
    with pytest.raises(ProbeError, match='logits="some": write "readout" or "all"'):
        tiny.run(x, logits="some")


def test_top(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    run = tiny.run(x)
    for readout in (-1, 0):
        table = run.top(4, readout=readout)
        row = torch.from_numpy(run.logits[readout])
        best = row.softmax(-1).topk(4)
        assert list(table.columns) == ["token", "id", "probability", "logit"]
        assert table.id.tolist() == best.indices.tolist()
        np.testing.assert_allclose(table.probability, best.values, rtol=1e-5)
        np.testing.assert_array_equal(table.logit, row[best.indices])
        assert table.token.tolist() == tiny.decode_each(table.id.tolist())


def test_meta_says_what_was_asked(tiny: VideoModel) -> None:
    x = example(tiny, options=["red", "blue"], answer="A")
    meta = tiny.run(x, [TokenNorms()], [fastv(2, 0.5)]).meta
    assert json.loads(json.dumps(meta)) == {
        "model": "LlavaOnevisionForConditionalGeneration",
        "dtype": "float32",
        "question": "What moves?",
        "answer": "A",
        "options": ["red", "blue"],
        "frames": 5,
        "length": len(x.layout),
        "captures": [{"kind": "token_norms"}],
        "ablations": [fastv(2, 0.5).to_json()],
        "ablated": "fastv(k=2, keep=0.5)",
    }


@pytest.mark.parametrize("wrong", ["fastv(2)", [3], [TokenNorms()], [fastv]])
def test_things_that_are_no_ablations(tiny: VideoModel, wrong) -> None:
    with pytest.raises(ProbeError, match="is not an ablation"):
        as_list(wrong, Ablation)


def test_recipes_of_several_are_flattened() -> None:
    one, two, three = fastv(1, 0.5), edvt(), Knockout()
    assert as_list([one, [two, three]], Ablation) == as_list((one, (two,), three), Ablation)
    assert as_list(edvt(), Ablation) == [edvt()]


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("model.language_model.layers.2.mlp.up_proj", "the mlp of layer 2"),
        ("model.language_model.layers.1.self_attn.v_proj", "the attention of layer 1"),
        ("model.multi_modal_projector.linear_2", "the merged embeddings"),
        ("lm_head", "the unembedding"),
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_names_the_part_that_made_it(place: str, where: str, bad: float) -> None:
    model = build(seed=3)
    weight = model.hf.get_submodule(place).weight
    with torch.no_grad():
        weight[0, 0] = bad
    x = example(model)
    for do in (lambda: model.run(x), lambda: model.generate(x, max_new_tokens=2)):
        with pytest.raises(ProbeError, match=f"NaN or Inf .* first part .* was {where};"):
            do()


def test_cost_without_ablations(other: VideoModel) -> None:
    x = example(other, answer="red")
    n, cost = len(x.layout), other.run(x).cost
    assert cost.length == cost.kv_length == (n,) * 3
    d, m, heads, kv, size = 48, 96, 6, 3, 8
    per_layer = n * d * size * (2 * heads + 2 * kv) + 2 * n * n * heads * size + 3 * n * d * m
    assert cost.macs == cost.macs_full == 3 * per_layer
    assert (
        cost.macs_fastv
        == cost.macs_fastv_full
        == 3 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * m)
    )
    assert cost.seconds > 0


def test_the_published_numbers() -> None:
    from probe.engine.cost import layer_macs, layer_macs_fastv

    assert 28 * layer_macs_fastv(6272, 3584, 18944) == pytest.approx(40.8e12, rel=2e-3)
    assert 28 * layer_macs(6272, 3584, 18944, 28, 4, 128) == pytest.approx(48.8e12, rel=2e-3)
