"""A prompt and then its answer, token by token: the same numbers as all at once, and `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from probe.ablate import Norm, Reduce, layer
from probe.ablate.base import Ablation
from probe.ablate.kv import Cache
from probe.ablate.scores import LastQuery
from probe.capture import AttentionEntropy, AttentionMass, LogitLens, TokenNorms
from probe.engine import steps
from probe.engine.steps import Stream
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import example

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Nothing(Ablation):
    """Acts after the prompt, and does nothing there."""

    place: ClassVar[str] = "KV cache"

    def evict(self, session, state):
        return {}


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager"])
@pytest.mark.parametrize("frames", [5, None])
def test_token_by_token_is_all_at_once(name: str, frames, request) -> None:
    model: VideoModel = request.getfixturevalue(name)
    x = example(model, frames, answer="red ball")
    run, whole = model.run(x, ablate=[Nothing()]), model.run(x)
    assert len(run.logits) == len(x.layout.readout) > 3
    np.testing.assert_allclose(run.logits, whole.logits, rtol=0, atol=TOLERANCE)
    assert run.tokens == whole.tokens and run.layout == whole.layout
    assert run.kept.values[:, :-1].all() and not run.kept.values[:, -1].any()
    assert run.readout.tolist() == x.layout.readout.tolist()


@pytest.mark.parametrize("name", models.NAMES)
def test_every_family_feeds_its_answer(name: str) -> None:
    model = models.build(name)
    x = models.example(model, answer="red")
    whole, run = model.run(x), model.run(x, ablate=[Nothing()])
    size = max(1.0, float(np.abs(whole.logits).max()))
    np.testing.assert_allclose(run.logits, whole.logits, rtol=0, atol=TOLERANCE * size)
    one = [Cache(score=LastQuery(), keep=0.5)]
    gen = model.generate(models.example(model), ablate=one, max_new_tokens=3)
    forced = model.run(model.force(models.example(model), gen.meta["generated"]), ablate=one)
    np.testing.assert_allclose(forced.logits, gen.logits, rtol=0, atol=TOLERANCE * size)


def test_captures_have_a_step_dim_as_in_generate(tiny: VideoModel) -> None:
    captures = [AttentionMass(), TokenNorms(), LogitLens(), AttentionEntropy()]
    one = [Cache(score=LastQuery(), keep=0.5)]
    gen = tiny.generate(example(tiny), captures, ablate=one, max_new_tokens=4)
    run = tiny.run(tiny.force(example(tiny), gen.meta["generated"]), captures, ablate=one)
    assert set(run.data) == set(gen.data) and run.data.sizes["step"] == 4
    for name, values in gen.data.items():
        found = run.data[name]
        assert found.dims == values.dims
        if values.dtype.kind == "f" and found.shape == values.shape:
            np.testing.assert_array_equal(found.values, values.values)


def test_only_what_acts_after_the_prompt_is_fed_by_steps(tiny: VideoModel, monkeypatch) -> None:
    fed: list[int] = []
    forced = Stream.forced
    monkeypatch.setattr(Stream, "forced", lambda s, ids: fed.append(len(ids)) or forced(s, ids))
    x, plain = example(tiny, answer="red"), example(tiny)
    reduce = Reduce(at=layer(2), score=Norm(), keep=0.5)
    tiny.run(x, ablate=[reduce])
    tiny.run(plain, ablate=[Cache(keep=0.0)])
    tiny.run(x, ablate=[Cache(keep=1.0)])
    assert not fed
    late = Reduce(at=layer(2), score=Norm(), keep=0.5, cache="retroactive")
    run = tiny.run(x, ablate=[late])
    assert fed == [3] and len(set(run.kept.values.sum(1).tolist())) == 1
    np.testing.assert_array_equal(
        tiny.run(plain, ablate=[Cache(keep=0.0)]).logits, tiny.run(plain).logits
    )


def test_the_prompt_of_an_example_is_what_was_encoded(tiny: VideoModel) -> None:
    x, y = example(tiny, answer="red"), example(tiny)
    prompt = steps.prompt_of(x)
    assert prompt.inputs.keys() == y.inputs.keys()
    for name, value in y.inputs.items():
        assert torch.equal(prompt.inputs[name], value), name
    for name in ("tokens", "last"):
        assert getattr(prompt.layout, name) == getattr(y.layout, name)
    for name in ("role", "group", "row", "col", "visual", "readout"):
        np.testing.assert_array_equal(getattr(prompt.layout, name), getattr(y.layout, name))
    assert steps.answer_ids(x) == x.inputs["input_ids"][0, len(y.layout) :].tolist()
    assert prompt.answer is None


def test_an_answer_of_one_token_is_the_prompt(tiny: VideoModel) -> None:
    x = example(tiny, answer="r")
    run = tiny.run(x, ablate=[Cache(score=LastQuery(), keep=0.5)])
    np.testing.assert_allclose(run.logits, tiny.run(x).logits, rtol=0, atol=TOLERANCE)
    assert run.logits.shape == (1, 261)
