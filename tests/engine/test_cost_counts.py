"""The analytic counts against what torch's own counter sees in the real classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from probe import ProbeError
from probe.ablate import Reduce, Uniform, layer, mid
from probe.cost import (
    Shape,
    TowerShape,
    decode_macs,
    generation_macs,
    kv_bytes,
    lengths,
    lengths_of,
    predict,
    prefill_macs,
    tower_macs,
    unembedding_macs,
)
from probe.engine.vision_parts import vision_tower
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import example


@contextmanager
def counted(modules: Any) -> Iterator[list[int]]:
    """Multiply-accumulates inside the modules, call by call, as torch's counter sees them."""
    found, modes, handles = [], [], []

    def before(*_: Any) -> None:
        modes.append(FlopCounterMode(display=False))
        modes[-1].__enter__()

    def after(*_: Any) -> None:
        mode = modes.pop()
        mode.__exit__(None, None, None)
        found.append(mode.get_total_flops() // 2)

    for module in modules:
        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", models.NAMES)
def test_every_family_counts_as_torch_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build(name, "eager")
    text = model.hf.config.get_text_config()
    if getattr(text, "num_experts", 0):  # torch's counter does not know grouped products
        monkeypatch.setattr(text, "_experts_implementation", "eager")
    x, shape = models.example(model), Shape.of(model.hf.config)
    full = lengths_of(x, shape)
    with (
        torch.no_grad(),
        counted(vision_tower(model).layers) as seen,
        counted(model.layers) as below,
        counted([model.head]) as head,
    ):
        model.hf(**x.inputs, use_cache=False)
    assert shape.tower is not None and full.patches is not None
    assert tower_macs(shape.tower, full.patches) == sum(seen)
    assert prefill_macs(shape, full.rows) == sum(below)
    assert prefill_macs(shape, full.rows, "with vision", full.patches) == sum(seen) + sum(below)
    assert unembedding_macs(shape, len(x.layout)) == sum(head)
    assert full.rows == (len(x.layout),) * model.n_layers


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_an_image_counts_too(name: str) -> None:
    from tests.tiny import picture

    model = models.build(name, "eager")
    x = model.encode([picture(50, 60).pixels], "What is there?")
    shape = Shape.of(model.hf.config)
    with torch.no_grad(), counted(vision_tower(model).layers) as seen:
        model.hf(**x.inputs, use_cache=False)
    assert shape.tower and tower_macs(shape.tower, lengths_of(x, shape).patches or ()) == sum(seen)


def test_a_prompt_without_a_clip(tiny: VideoModel) -> None:
    x, shape = example(tiny, None), Shape.of(tiny.hf.config)
    found = lengths_of(x, shape)
    assert found.patches == () and found.visual == (0,) * 4 and found.text == len(x.layout)
    assert tiny.run(x).cost.macs_vision == 0


def test_a_decode_step_counts_as_torch_does(tiny_eager: VideoModel) -> None:
    model, x = tiny_eager, example(tiny_eager)
    shape, n = Shape.of(model.hf.config), len(x.layout)
    cache = DynamicCache(config=model.hf.config.get_text_config())
    with torch.no_grad():
        model.hf(**x.inputs, past_key_values=cache, use_cache=True)
        ids, where = torch.tensor([[3]]), torch.tensor([[n]])
        with counted(model.layers) as seen:
            model.hf(input_ids=ids, position_ids=where, past_key_values=cache, use_cache=True)
    assert decode_macs(shape, [n + 1] * 4) == sum(seen) == generation_macs(shape, [n] * 4, 1)
    stored = sum(one.keys.nbytes + one.values.nbytes for one in cache.layers)
    assert kv_bytes(shape, [n + 1] * 4, 4) == stored


def test_a_shorter_sequence_counts_as_torch_does(tiny_eager: VideoModel) -> None:
    x = example(tiny_eager)
    ablation = Reduce(at=layer(2), score=Uniform(), keep=0.5)
    with counted(tiny_eager.layers) as seen:
        run = tiny_eager.run(x, ablate=[ablation])
    assert run.cost.macs == sum(seen) < run.cost.macs_full
    assert run.cost.macs == predict(tiny_eager, x, [ablation]).macs()


def test_a_layer_that_is_shorter_from_its_middle_on(tiny_eager: VideoModel) -> None:
    x, shape = example(tiny_eager), Shape.of(tiny_eager.hf.config)
    stated = lengths_of(x, shape).middle(1, 10)
    n = len(x.layout)
    assert stated.rows == (n, n, n - 10, n - 10) and stated.thin == (n, n - 10, n - 10, n - 10)
    with counted(tiny_eager.layers) as seen:
        tiny_eager.run(x, ablate=[Reduce(at=mid(1), score=Uniform(), keep=0.5)])
    assert prefill_macs(shape, stated.rows, thin=stated.thin) == sum(seen)
    saved = {"fastv": 2, "3ndm": 3}
    for convention, matrices in saved.items():
        whole = prefill_macs(shape, stated.rows, convention)
        thin = prefill_macs(shape, stated.rows, convention, thin=stated.thin)
        assert whole - thin == 10 * matrices * shape.width * shape.mlp[1]
    last = lengths_of(x, shape).middle(3, 5)
    assert last.rows == (n,) * 4 and last.thin == (n, n, n, n - 15)


def test_conventions_and_what_they_share() -> None:
    shape = Shape.plain(2, 8, 24, heads=4, kv_heads=2, tower=TowerShape(1, 4, 2, 16))
    rows = [5, 3]
    d, m = 8, 24
    assert prefill_macs(shape, rows, "fastv") == sum(
        4 * n * d * d + 2 * n * n * d + 2 * n * d * m for n in rows
    )
    extra = sum(n * d * m for n in rows)
    third = prefill_macs(shape, rows, "3ndm")
    assert third == prefill_macs(shape, rows, "fastv") + extra
    # Grouped keys and values: half the heads save half of two of four projections.
    assert prefill_macs(shape, rows) == third - sum(n * d * d for n in rows)
    tower = 3 * 2 * (2 * 3 * (4 * 16 + 2 * 64) + 2 * 36 * 4) // 2
    assert (
        prefill_macs(shape, rows, "with vision", ((3, 2, 3),)) == prefill_macs(shape, rows) + tower
    )
    with pytest.raises(ProbeError, match='convention="gpu"; there are true, fastv, 3ndm'):
        prefill_macs(shape, rows, "gpu")
    with pytest.raises(ProbeError, match="vision tower or its patches are not known"):
        prefill_macs(shape, rows, "with vision")


def test_windows_of_a_tower() -> None:
    whole = TowerShape(3, 4, 2, 16)
    some = TowerShape(3, 4, 2, 16, window=2, whole=(1,))
    patches = ((2, 4, 5),)  # windows of 2 x 2, 2 x 2 and 2 x 1 patches
    saved = 2 * 2 * 2 * 4 * (20**2 - 2 * (4**2 + 4**2 + 2**2))
    assert tower_macs(whole, patches) - tower_macs(some, patches) == saved


def test_generation_grows_by_one_key_a_step() -> None:
    shape = Shape.plain(2, 8, 24, heads=4)
    steps = [decode_macs(shape, [10 + s, 6 + s]) for s in (1, 2, 3)]
    assert generation_macs(shape, [10, 6], 3) == sum(steps)
    assert steps[1] - steps[0] == 2 * 2 * 8


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ([(4, 1)], "stage at layer 4; stages rise from layer 0 to 3"),
        ([(2, 5), (1, 4)], "stage at layer 1"),
        ([(1, 11)], "11 tokens from layer 1 on; 10 are left there"),
        ([(1, 5), (2, 6)], "6 tokens from layer 2 on; 5 are left there"),
    ],
)
def test_stages_that_cannot_be(stages: list[tuple[int, int]], match: str) -> None:
    with pytest.raises(ProbeError, match=match):
        lengths(stages, layers=4, visual=10)


def test_lengths_of_stages() -> None:
    found = lengths([(1, 6), (3, 2)], layers=5, visual=10, text=3)
    assert found.visual == found.cached == (10, 6, 6, 2, 2)
    assert found.rows == found.kv == (13, 9, 9, 5, 5) and found.mean_visual == 26 / 5
    assert found.only(1, 4).visual == (10, 4, 6, 2, 2) and found.only(1, 4).entering(1) == 6
    assert found.retroactive(2).kv == (5,) * 5 and found.retroactive(2).rows == found.rows
    assert found.retroactive(3, [0]).cached == (3, 6, 6, 2, 2)
    assert found.after(-1, 1).visual == (10, 6, 6, 2, 1) and found.entering(-1) == 2
    with pytest.raises(ProbeError, match="layer 5 does not exist; there are layers 0 to 4"):
        found.after(5, 1)
