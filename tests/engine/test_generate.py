"""`generate` is transformers' own, and so is a loop of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, NoRope, Random, Reduce, edvt, fastv, layer
from probe.capture import (
    AttentionRows,
    TokenNorms,
)
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.tiny import example


def greedy(model: VideoModel, x: Example, count: int, **settings):
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    with torch.no_grad():
        return model.hf.generate(**inputs, max_new_tokens=count, do_sample=False, **settings)


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager"])
@pytest.mark.parametrize("frames", [5, None])
def test_generate_is_transformers_own(name: str, frames, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    x = example(model, frames)
    run = model.generate(x, max_new_tokens=8)
    expected = greedy(model, x, 8)[0, len(x.layout) :].tolist()
    assert run.meta["generated"] == expected
    assert run.text == model.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert run.tokens == model.decode_each(expected)
    assert run.logits.shape == (8, 261) and run.logits.argmax(-1).tolist() == expected
    assert run.readout.tolist() == list(range(x.layout.last, x.layout.last + 8))
    assert len(run.layout) == len(x.layout) + 8
    assert run.layout.select("generated").tolist() == list(range(len(x.layout), len(x.layout) + 8))
    assert run.kept.shape == (model.n_layers, len(run.layout))
    assert run.kept.values[:, :-1].all() and not run.kept.values[:, -1].any()


def test_generation_stops_where_transformers_stops(other: VideoModel) -> None:
    for frames in range(2, 10):  # a random model may say one token only
        x = example(other, frames)
        free = other.generate(x, max_new_tokens=6).meta["generated"]
        if set(free[1:]) - set(free[:1]):
            break
    stop = next(token for token in free[1:] if token not in free[:1])
    run = other.generate(x, [AttentionRows(), TokenNorms()], max_new_tokens=6, eos_token_id=stop)
    assert run.meta["generated"] == free[: free.index(stop) + 1]
    assert run.data.sizes["step"] == len(run.meta["generated"]) == len(run.logits)
    assert run.meta["generation"] == {"do_sample": False, "eos_token_id": stop}


def test_sampling_passes_through(tiny: VideoModel) -> None:
    x = example(tiny)
    torch.manual_seed(1)
    run = tiny.generate(x, max_new_tokens=5, do_sample=True, top_k=0, temperature=2.0)
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    torch.manual_seed(1)
    expected = tiny.hf.generate(
        **inputs, max_new_tokens=5, do_sample=True, top_k=0, temperature=2.0
    )
    assert run.meta["generated"] == expected[0, len(x.layout) :].tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 2}, "one sequence at a time"),
        ({"num_return_sequences": 2, "do_sample": True}, "one sequence at a time"),
        ({"max_new_tokens": 0}, "ask for at least 1"),
        ({"cache_implementation": "static"}, "only the dynamic cache"),
        ({"prefill_chunk_size": 8}, "only the dynamic cache"),
        ({"use_cache": False}, "only the dynamic cache"),
    ],
)
def test_what_generate_refuses(tiny: VideoModel, settings: dict, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        tiny.generate(example(tiny), **settings)


def test_generate_refuses_an_answer(tiny: VideoModel) -> None:
    with pytest.raises(ProbeError, match="already has an answer"):
        tiny.generate(example(tiny, answer="red"))


def test_batches_are_refused(tiny: VideoModel) -> None:
    x = example(tiny)
    twice = {k: v.repeat(2, *[1] * (v.dim() - 1)) for k, v in x.inputs.items()}
    with (
        pytest.raises(ProbeError, match=r"no batches, beams or chunked"),
        tiny.ablated(x, [edvt()]) as hf,
    ):
        hf(**twice)


def test_force_appends_generated_tokens(tiny: VideoModel) -> None:
    x = example(tiny)
    ids = tiny.generate(x, max_new_tokens=3).meta["generated"]
    forced = tiny.force(x, ids)
    assert forced.inputs["input_ids"][0, -3:].tolist() == ids
    assert forced.layout.select("answer").tolist() == list(range(len(x.layout), len(x.layout) + 3))
    assert tiny.run(forced).logits.argmax(-1).tolist() == ids


@pytest.mark.parametrize("name", ["tiny", "tiny_eager"])
@pytest.mark.parametrize(
    "ablations",
    [
        [fastv(1, 0.5)],
        [edvt()],
        [Knockout("video -> last", layers=[1])],
        [Reduce(at=layer(0), score=Random(), keep=0.3), NoRope()],
    ],
    ids=str,
)
def test_a_loop_of_one_s_own_equals_run(name: str, ablations: list, request) -> None:
    model = request.getfixturevalue(name)
    x = example(model)
    wanted = torch.as_tensor(x.layout.readout)
    expected = model.run(x, ablate=ablations).logits
    with model.ablated(x, ablations) as hf, torch.no_grad():
        for _ in range(2):  # again in one session
            out = hf(**x.inputs, use_cache=False, logits_to_keep=wanted)
            assert np.array_equal(out.logits[0].numpy(), expected)


def test_a_loop_generates_the_same(tiny: VideoModel) -> None:
    x = example(tiny)
    ablations = [fastv(1, 0.5), Knockout("frame 0 -> text", layers=[0])]
    expected = tiny.generate(x, ablate=ablations, max_new_tokens=5).meta["generated"]
    with tiny.ablated(x, ablations):
        found = greedy(tiny, x, 5)[0, len(x.layout) :].tolist()
    assert found == expected
    with pytest.raises(ProbeError, match="did not fire"), tiny.ablated(x, ablations):
        pass
