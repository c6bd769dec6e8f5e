"""Recipes that act at decode time: what they are, where they are neutral, what they cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import Norm, Reduce, layer, names
from probe.ablate.carrier import Carrier
from probe.ablate.kv import Cache
from probe.ablate.kv_parts import NearestPair
from probe.ablate.recipes import decode
from probe.ablate.recipes.decode import (
    dycoke_cache,
    livevlm,
    mustdrop_cache,
    text_kv,
    vcd,
    videoscan,
)
from probe.ablate.scores import LastQuery
from probe.engine.cost_lengths import Lengths
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.ablate.kv_reference import ROWS, unread
from tests.tiny import example

MADE = [
    dycoke_cache(layer=2),
    dycoke_cache(prune=0.8, layer=2, refresh=-1.0, variant="code"),
    *livevlm(9, 4, 1, 0.4, 4),
    *videoscan(2),
    text_kv(0.5, 2),
    vcd(),
]


@pytest.mark.parametrize("one", MADE, ids=str)
def test_recipes_are_data_with_a_name(one) -> None:
    assert from_json(one.to_json(), names()) == one
    assert str(one).split("(")[0] in vars(decode)


def test_what_dycoke_is() -> None:
    assert dycoke_cache() == Cache(
        layers="3-", score=LastQuery(2), keep=0.3, when="step", how="hide", refresh=0.9
    )
    for name in (
        "dycoke_cache",
        "livevlm",
        "videoscan",
        "text_kv",
        "mustdrop_cache",
        "vcd",
        "damro",
    ):
        assert getattr(decode, name).card.paper


def test_variants_of_dycoke_differ_where_attention_is_similar(tiny: VideoModel) -> None:
    x = example(tiny)
    ids = tiny.generate(x, max_new_tokens=6).meta["generated"]
    full = tiny.force(x, ids)
    video = full.layout.select("video")
    read = {}
    for variant in ("paper", "code"):
        for refresh in (-1.0, 1.0):  # always similar, and never
            one = dycoke_cache(0.7, 2, refresh, variant)
            read[variant, refresh] = ~unread(tiny.run(full, ROWS, ablate=[one]))[1:, :, video]
    few = len(video) - round(len(video) * 0.7)
    assert np.array_equal(read["paper", 1.0], read["code", 1.0])
    assert (read["paper", 1.0][:, 2:].sum(-1) == few).all()
    assert (read["paper", -1.0] == read["paper", -1.0][:1]).all()  # the first choice goes on
    assert (read["code", -1.0][0, 2:].sum(-1) == few).all() and read["code", -1.0][1:].all()


@pytest.mark.parametrize(
    "neutral",
    [[dycoke_cache(prune=0.0, layer=2)], livevlm(retrieve=1.0), [text_kv(1.0, 0)], [text_kv()]],
    ids=str,
)
def test_neutral_is_bit_identical(tiny: VideoModel, neutral: list) -> None:
    x, y = example(tiny, answer="red"), example(tiny)
    assert np.array_equal(tiny.run(x, ablate=neutral).logits, tiny.run(x).logits)
    found = tiny.generate(y, ablate=neutral, max_new_tokens=4)
    assert np.array_equal(found.logits, tiny.generate(y, max_new_tokens=4).logits)


def test_memories_hold_what_they_say(tiny: VideoModel) -> None:
    x = example(tiny, 6)
    prompt, video = len(x.layout), len(x.layout.select("video"))
    gen = tiny.generate(x, ablate=livevlm(9, 4, 1, 1.0), max_new_tokens=3)
    assert set(gen.cost.kv_length) == {min(9, video) + prompt - video + 2}  # min(M, N)
    gen = tiny.generate(x, ROWS, ablate=livevlm(12, 4, 1, 0.5, 4), max_new_tokens=3)
    assert set(gen.cost.kv_length) == {12 + prompt - video + 2}  # retrieval saves no memory
    seen = ~unread(gen)[:, :, x.layout.select("video")]
    assert set(seen.sum(-1).ravel().tolist()) <= {4, 8}
    gen = tiny.generate(x, ablate=videoscan(3), max_new_tokens=3)
    assert set(gen.cost.kv_length) == {3 + prompt - video + 2}
    long = tiny.generate(x, ablate=[text_kv(0.5, 2)], max_new_tokens=9)
    old = 7 - 2  # fed before the last forward, less the window
    assert set(long.cost.kv_length) == {prompt + (old - round(old / 2)) + 2 + 1}


def test_mustdrop_cuts_the_earlier_layers_to_the_final_set(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    stages = [Reduce(at=layer(k), score=Norm(), keep=0.6) for k in (2, 3)]
    run = tiny.run(x, ablate=[*stages, mustdrop_cache(1, 3)])
    kept = run.kept.values
    assert (kept[1] == kept[3]).all() and (kept[2] == kept[3]).all()
    assert kept[0, :-1].all() and not kept[3, :-1].all()
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.run(x, ablate=[mustdrop_cache(1, 3)])


def test_the_analytic_cache_is_the_measured_one(tiny: VideoModel) -> None:
    x = example(tiny)
    video = len(x.layout.select("video"))
    lengths = Lengths(visual=(video,) * 4, cached=(video,) * 4, text=len(x.layout) - video)
    for one in (Cache(layers="1-2", score=Norm(), keep=0.3), Cache(keep=0.0),
                Cache(score=Norm(), keep_tokens=6)):  # fmt: skip
        left = one.effect(lengths)
        gen = tiny.generate(x, ablate=[one], max_new_tokens=2)
        assert left is not None and left.visual == lengths.visual
        assert [n + left.text + 1 for n in left.cached] == list(gen.cost.kv_length)
        assert replace(one, how="hide").effect(lengths) == lengths
    several = [Carrier(stream=True), Cache(keep=0.0)]
    left = several[1].effect(several[0].effect(replace(lengths, frames=(4,) * 5)))
    gen = tiny.generate(x, ablate=several, max_new_tokens=2)
    assert left.text + 1 == len(x.layout) - video + 5 + 1 == gen.cost.kv_length[0]
    assert [n + left.text for n in left.visual] == list(gen.cost.length)
    assert Cache(of="summary", keep_tokens=2, select=NearestPair()).effect(lengths) is None
    assert text_kv().effect(lengths) == lengths
