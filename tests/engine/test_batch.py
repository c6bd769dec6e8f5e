"""Several examples, and several sequences of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Random, Reduce, fastv, layer
from probe.capture import (
    AttentionMass,
    AttentionReceived,
    Contributions,
    LogitLens,
    TokenNorms,
    VisionNorms,
)
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import clip, example

CAPTURES = [AttentionMass(), AttentionReceived(), TokenNorms(), LogitLens(), Contributions(7)]


@pytest.fixture
def examples(tiny: VideoModel) -> list:
    return [
        example(tiny, 5),
        example(tiny, 11, "What?"),
        example(tiny, 2, answer="red"),
        example(tiny, None),
    ]


def test_each_sample_is_its_own_run(tiny: VideoModel, examples: list) -> None:
    batch = tiny.run(examples, CAPTURES)
    assert len(batch) == 4 and batch.data.sizes["sample"] == 4
    for number, x in enumerate(examples):
        alone = tiny.run(x, CAPTURES)
        assert np.array_equal(batch.logits[number], alone.logits)
        for name, array in alone.data.items():
            found = batch.data[name].sel(sample=number)
            shared = {dim: array.coords[dim].values for dim in array.dims}
            np.testing.assert_array_equal(found.sel(shared).values, array.values)
            if array.dtype.kind == "f":  # nothing but NaN beyond what the sample has
                assert int(found.notnull().sum()) == int(array.notnull().sum())
    frames = [label for label in batch.data.key_group.values if label.startswith("frame ")]
    assert frames == [f"frame {n}" for n in range(11)]
    assert batch.top(2).groupby("sample").size().tolist() == [2] * 4


def test_samples_may_keep_different_numbers_of_tokens(tiny: VideoModel, examples: list) -> None:
    cut = [fastv(2, 0.5), Reduce(at=layer(3), score=Random(), keep=0.2)]
    batch = tiny.run(examples, [AttentionMass("tokens")], cut)
    for run, x in zip(batch, examples, strict=True):
        assert np.array_equal(run.logits, tiny.run(x, ablate=cut).logits)


def test_generated_samples(tiny: VideoModel, examples: list) -> None:
    asked = [examples[0], examples[1]]
    batch = tiny.generate(asked, [AttentionMass()], max_new_tokens=3)
    assert batch.data.attention_mass.dims[:2] == ("sample", "step")
    assert batch.texts == [tiny.generate(x, max_new_tokens=3).text for x in asked]


def test_sequences_are_transformers_own_by_seed(tiny: VideoModel) -> None:
    x = example(tiny)
    settings = {"max_new_tokens": 5, "top_k": 0, "temperature": 2.0}
    torch.manual_seed(99)
    before = torch.get_rng_state()
    batch = tiny.sequences(x, 3, [AttentionMass()], seed=7, **settings)
    assert torch.equal(before, torch.get_rng_state())
    assert batch.data.attention_mass.dims[:2] == ("sequence", "step")
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    for number, run in enumerate(batch):
        torch.manual_seed(7 + number)
        plain = tiny.hf.generate(**inputs, do_sample=True, **settings)
        assert run.meta["generated"] == plain[0, len(x.layout) :].tolist()
    assert len({tuple(run.meta["generated"]) for run in batch}) > 1


def test_what_batches_refuse(tiny: VideoModel, examples: list) -> None:
    with pytest.raises(ProbeError, match="no example"):
        tiny.run([])
    with pytest.raises(ProbeError, match=r"example 3: .*no clip"):
        tiny.run(examples, [AttentionMass("frame 0")])
    with pytest.raises(ProbeError, match="at least 1"):
        tiny.sequences(examples[0], 0)


def test_places_of_patches_are_each_samples_own() -> None:
    model = models.build("qwen2_5_vl")
    sizes = ((32, 64), (48, 48))
    examples = [model.encode(clip(4, *size), "What?", frames=None) for size in sizes]
    batch = model.run(examples, [VisionNorms()])
    for number, x in enumerate(examples):
        own, found = model.run(x, [VisionNorms()]).data, batch.data.sel(sample=number)
        for name in ("patch_row", "patch_col"):
            there = own.coords["patch"].values
            np.testing.assert_array_equal(found[name].sel(patch=there), own[name])
