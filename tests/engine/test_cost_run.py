"""`run.cost`: what was measured is what happened, and it survives saving."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import probe
from probe import ProbeError
from probe.ablate import Frames, Knockout, Norm, Reduce, fastv, layer
from probe.ablate.reduction.select import Threshold
from probe.cost import COLUMNS, Cost, Lengths, Shape, beside, predict
from probe.engine import cost_meter
from probe.engine.cost_meter import Meter
from probe.models.video_model import VideoModel
from tests.tiny import example

STEPS = 5


def test_generation_beside_plain_generation(tiny: VideoModel) -> None:
    """Cache and bytes are those that plain transformers leaves; nothing is ablated."""
    x = example(tiny)
    cost = tiny.generate(x, max_new_tokens=STEPS).cost
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    settings = {"max_new_tokens": STEPS, "do_sample": False, "return_dict_in_generate": True}
    cache = tiny.hf.generate(**inputs, **settings).past_key_values
    assert cost.kv_length == tuple(layer.keys.shape[2] for layer in cache.layers)
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cost.kv_bytes == cost.kv_bytes_full == stored
    assert cost.macs_decode == cost.macs_decode_full == predict(tiny, x).decode(STEPS - 1)[0]
    assert cost.macs_vision == cost.macs_vision_full


def test_generation_with_fewer_tokens(tiny: VideoModel) -> None:
    x = example(tiny)
    stated = predict(tiny, x, "fastv(k=2, keep=0.5)")
    cost = tiny.generate(x, ablate=[fastv(2, 0.5)], max_new_tokens=STEPS).cost
    assert cost.length == stated.lengths.rows and len(set(cost.length)) == 2
    assert cost.kv_length == tuple(n + STEPS - 1 for n in stated.lengths.kv)
    assert (cost.macs_decode, cost.macs_decode_full) == stated.decode(STEPS - 1)
    assert (cost.macs, cost.macs_full) == (stated.macs(), stated.macs_full())
    assert cost.macs_fastv == stated.macs("fastv") and cost.macs_3ndm == stated.macs("3ndm")
    assert cost.macs_with_vision == stated.macs("with vision")
    assert cost.macs_with_vision_full == stated.macs_full("with vision")
    steps = 2 * 2 * 8 * 4 * (STEPS - 1) * tiny.n_layers
    assert cost.kv_bytes == stated.kv_bytes(4)[0] + steps


def test_times_are_those_of_the_parts(tiny: VideoModel) -> None:
    """Each step and the vision tower are slowed down by a known time."""
    x, wait = example(tiny), 0.05
    handles = [
        module.register_forward_pre_hook(lambda *_: time.sleep(wait))
        for module in (tiny.vision, tiny.layers[0])
    ]
    cost = tiny.generate(x, max_new_tokens=STEPS).cost
    whole = tiny.run(x).cost
    for handle in handles:
        handle.remove()
    before, first = cost.before_decoder_seconds, cost.first_token_seconds
    assert before is not None and first is not None and cost.decode_tokens_per_second is not None
    assert wait <= before <= first - wait
    assert cost.seconds - first >= (STEPS - 1) * wait
    assert cost.decode_tokens_per_second <= 1 / wait
    assert cost.decode_tokens_per_second == pytest.approx((STEPS - 1) / (cost.seconds - first))
    assert whole.seconds >= 2 * wait and whole.macs_decode == 0
    assert whole.first_token_seconds is None and whole.decode_tokens_per_second is None
    single = tiny.generate(x, max_new_tokens=1).cost
    assert single.first_token_seconds is None and single.length == whole.length


@pytest.mark.skipif(not cost_meter.CLEAR.exists(), reason="the system keeps no record")
def test_peak_memory_is_that_of_the_run() -> None:
    size = 200_000_000
    huge = np.ones(2 * size, np.uint8)  # a peak before the run does not count
    del huge
    with Meter("cpu") as meter:
        held = np.ones(size, np.uint8)
        del held
    assert meter.peak is not None and meter.memory is not None
    assert 0.95 * size < meter.peak - meter.memory < 1.2 * size
    with Meter("cpu") as quiet:
        pass
    assert quiet.peak is not None and quiet.memory is not None
    assert quiet.peak - quiet.memory < 0.1 * size


def test_peak_memory_where_the_record_cannot_be_cleared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(cost_meter, "CLEAR", tmp_path / "no" / "clear")
    monkeypatch.setattr(cost_meter, "STATUS", status)
    status.write_text("VmHWM:\t  90000 kB\nVmRSS:\t  50000 kB\n")
    with Meter("cpu") as meter:
        pass
    assert meter.peak is None and meter.memory == 50000 * 1024
    with Meter("cpu") as meter:
        status.write_text("VmHWM:\t  91000 kB\nVmRSS:\t  50000 kB\n")
    assert meter.peak == 91000 * 1024
    status.unlink()
    with Meter("cpu") as meter:
        pass
    assert meter.peak is None and meter.memory is None


def test_json_of_this_and_of_older_versions(tiny: VideoModel) -> None:
    cost = tiny.generate(example(tiny), max_new_tokens=2).cost
    assert Cost.from_json(json.loads(json.dumps(cost.to_json()))) == cost
    older = {"length": [3, 2], "kv_length": [3, 2], "macs": 5, "macs_fastv": 4}
    older |= {"macs_full": 9, "macs_fastv_full": 8, "seconds": 0.5}
    found = Cost.from_json(older | {"of_a_later_version": 1})
    assert found.length == (3, 2) and found.macs_3ndm is None and found.macs_with_vision is None
    assert {k: v for k, v in asdict(found).items() if v is not None} == older | {
        "length": (3, 2),
        "kv_length": (3, 2),
    }


def test_a_saved_run_of_an_older_version(tiny: VideoModel, tmp_path: Path) -> None:
    run = tiny.run(example(tiny))
    path = run.save(tmp_path / "run")
    attributes = path / "run" / ".zattrs"
    data = json.loads(attributes.read_text())
    header = json.loads(data["run"])
    kept = ("length", "kv_length", "macs", "macs_fastv", "macs_full", "macs_fastv_full", "seconds")
    header["cost"] = {name: header["cost"][name] for name in kept}
    attributes.write_text(json.dumps(data | {"run": json.dumps(header)}))
    found = probe.open(path).cost
    assert found.length == run.cost.length and found.macs == run.cost.macs
    assert found.kv_bytes is None and found.peak_memory is None


def test_runs_side_by_side(tiny: VideoModel) -> None:
    x = example(tiny)
    runs = {
        "as is": tiny.generate(x, max_new_tokens=3),
        "half": tiny.generate(x, ablate=[fastv(2, 0.5)], max_new_tokens=3),
        "cut": tiny.run(x, ablate=[Knockout("video -> last")]),
    }
    table = beside(runs)
    assert list(table.index) == list(runs) and set(COLUMNS) < set(table.columns)
    half = table.loc["half"]
    assert half["prefill MACs, true, x first"] == runs["half"].cost.macs / runs["as is"].cost.macs
    assert half["prefill MACs, true"] / runs["half"].cost.macs_full < 1
    assert table.loc["cut", "prefill MACs, true, x first"] == 1
    assert np.isnan(table.loc["cut", "seconds to the first token"])
    with pytest.raises(ProbeError, match="beside: no run"):
        beside({})


def test_prediction_without_weights(tiny: VideoModel) -> None:
    x = example(tiny)
    shape = Shape.of(tiny.hf.config)
    text = len(x.layout) - 20
    for given in (tiny, shape, tiny.hf.config):
        for counts in (x, ([4] * 5, text), (20, text)):
            one = predict(given, counts, "fastv(k=1, keep=0.3)")
            assert one.lengths.visual == (20, 6, 6, 6)
            assert one.macs() == tiny.run(x, ablate=[fastv(1, 0.3)]).cost.macs
    frame = (
        predict(tiny, x, "fastv(k=1, keep=0.3)").to_frame().set_index(["quantity", "convention"])
    )
    assert frame.loc[("prefill MACs", "fastv"), "ratio"] < 1
    assert frame.loc[("vision tower MACs", "true"), "ratio"] == 1
    assert "with vision" not in set(predict(shape, (20, text)).to_frame()["convention"])
    none = Lengths.full(4, [20], text)
    assert (
        predict(shape, none).ratio() == 1 == predict(shape, x, [Knockout("video -> last")]).ratio()
    )
    with pytest.raises(ProbeError, match="give an example, or"):
        predict(shape, 20)


def test_prediction_of_what_cannot_be_known(tiny: VideoModel) -> None:
    x, fewer = example(tiny), [Frames("keep", frames=[0, 2, 3])]
    run, stated = tiny.run(x, ablate=fewer), predict(tiny, x, fewer)
    assert stated.lengths.visual == (12,) * 4 and stated.full.visual == (20,) * 4
    assert (run.cost.macs, run.cost.macs_full) == (stated.macs(), stated.macs_full())
    assert run.cost.macs_with_vision == stated.macs("with vision")
    assert run.cost.macs_vision * 5 == run.cost.macs_vision_full * 3
    with pytest.raises(ProbeError, match="it changes the prompt itself; give the model"):
        predict(Shape.of(tiny.hf.config), x, fewer)
    cut = Reduce(at=layer(2), score=Norm(), select=Threshold(0.5))
    with pytest.raises(ProbeError, match=r"depends on the data; run it and read run\.cost"):
        predict(tiny, x, [cut])


def test_a_config_that_is_none_of_a_decoder() -> None:
    with pytest.raises(ProbeError, match="SiglipVisionConfig has no vocab_size; write"):
        Shape.of(transformers.SiglipVisionConfig())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_peak_memory_on_a_gpu() -> None:
    with Meter("cuda") as meter:
        held = torch.ones(100_000_000, dtype=torch.uint8, device="cuda")
        del held
    assert meter.peak is not None and meter.memory is not None
    assert 100_000_000 <= meter.peak - meter.memory < 110_000_000
