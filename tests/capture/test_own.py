"""A capture of one's own, as the README shows it, and what holds for all captures together."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr

from probe import ProbeError
from probe.capture import (
    Activations,
    AttentionEntropy,
    AttentionMass,
    AttentionReceived,
    AttentionRows,
    Capture,
    Contributions,
    LogitLens,
    TokenNorms,
)
from probe.engine import memory
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.tiny import dense, example

EVERYTHING = [
    AttentionMass(),
    AttentionMass("tokens"),
    AttentionMass("roles", ["video"]),
    AttentionReceived(["all"]),
    AttentionEntropy("tokens"),
    AttentionRows("all"),
    TokenNorms(),
    Contributions("r", versus="b"),
    LogitLens(words=("r",), full=True),
    Activations(),
    Activations("attention", "frame 2"),
    Activations("mlp"),
    Activations("head", "video"),
]
STEPWISE = [
    AttentionMass(),
    AttentionReceived(),
    AttentionEntropy(),
    AttentionRows(),
    TokenNorms(),
    Contributions(),
    LogitLens(full=True),
    Activations(),
    Activations("attention"),
    Activations("mlp"),
    Activations("head"),
]


@dataclass(frozen=True)
class Lookback(Capture):
    """How many positions back the last token looks, on average, in each layer and head."""

    scale: float = 1.0

    def start(self, session) -> dict:
        return {"layers": []}

    def attention(self, session, state, call) -> None:
        row = call.positions[-1:]
        distance = torch.as_tensor(row - call.key_positions, dtype=torch.float32)
        state["layers"].append(call.weights(call.index(row))[:, 0] @ distance * self.scale)

    def finish(self, session, state) -> dict[str, xr.DataArray]:
        dims = ("layer", "head")
        return {
            self.kind: xr.DataArray(torch.stack(state["layers"]), dims=dims, attrs={"units": "1"})
        }


def test_own_capture(tiny: VideoModel, tiny_eager: VideoModel) -> None:
    x = example(tiny)
    data = tiny.run(x, [Lookback(scale=2.0), AttentionMass()]).data
    back = np.arange(len(x.layout))[::-1]
    expected = dense(tiny_eager, x)[:, :, -1] @ back * 2
    np.testing.assert_allclose(data.lookback, expected, atol=1e-4)
    assert data.lookback.attrs["capture"] == "Lookback(scale=2.0)"


def test_own_capture_to_and_from_json() -> None:
    made = Lookback(scale=0.5)
    text = json.dumps(made.to_json())
    assert text == json.dumps({"kind": f"{__name__}:Lookback", "scale": 0.5})
    assert from_json(json.loads(text), {}) == made


def test_without_finish_there_is_one_line(tiny: VideoModel) -> None:
    @dataclass(frozen=True)
    class Half(Capture):
        pass

    with pytest.raises(NotImplementedError, match=r"half has no finish\(\)"):
        tiny.run(example(tiny), [Half()])


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager"])
def test_capturing_changes_no_bit(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    x = example(model, 20, "What moves? " * 20, answer="red")
    with torch.no_grad():
        bare = model.hf(
            **x.inputs, use_cache=False, logits_to_keep=torch.as_tensor(x.layout.readout)
        )
    assert np.array_equal(model.run(x).logits, bare.logits[0].numpy())
    for captures in (EVERYTHING, *([one] for one in EVERYTHING)):
        assert np.array_equal(model.run(x, captures).logits, bare.logits[0].numpy()), captures
    whole = model.run(x, EVERYTHING, logits="all").logits
    with torch.no_grad():
        assert np.array_equal(whole, model.hf(**x.inputs, use_cache=False).logits[0].numpy())


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager"])
def test_capturing_changes_no_bit_of_a_generation(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    x = example(model)
    inputs = {k: v for k, v in x.inputs.items() if k != "position_ids"}
    with torch.no_grad():
        bare = model.hf.generate(
            **inputs,
            max_new_tokens=6,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits = torch.cat(bare.logits).numpy()
    for captures in ([], STEPWISE):
        run = model.generate(x, captures, max_new_tokens=6)
        assert np.array_equal(run.logits, logits)
        assert run.meta["generated"] == bare.sequences[0, len(x.layout) :].tolist()


def test_results_do_not_depend_on_what_else_is_captured(tiny: VideoModel) -> None:
    x = example(tiny, 20, "What moves? " * 20)
    together = tiny.run(x, EVERYTHING).data
    for capture in (
        AttentionMass(),
        AttentionReceived(["all"]),
        AttentionEntropy("tokens"),
        TokenNorms(),
    ):
        alone = tiny.run(x, [capture]).data
        for name, values in alone.items():
            both = together[name].sel({d: values[d] for d in values.dims})
            np.testing.assert_allclose(both, values, atol=1e-6)


def test_two_of_a_kind_get_a_suffix(tiny: VideoModel) -> None:
    x = example(tiny)
    two = [
        AttentionMass("text", "roles"),
        AttentionMass(["last"], ["video"]),
        AttentionMass(["last"], ["question"]),
    ]
    data = tiny.run(x, two).data
    assert list(data) == ["attention_mass", "attention_mass_2", "attention_mass_3"]
    assert data.attention_mass_2.attrs["capture"] == str(two[1])
    only = data.attention_mass_2.sel(query_group="last", key_group="video")
    np.testing.assert_allclose(
        only, data.attention_mass.sel(query_group="last", key_group="video"), atol=1e-6
    )
    assert np.isnan(data.attention_mass_2.sel(query_group="question")).all()
    mixed = tiny.run(
        x, [LogitLens(top=2), LogitLens(top=4), Activations(), Activations(positions="frame 1")]
    )
    assert mixed.data.logit_lens_token_2.notnull().all() and mixed.data.sizes["rank"] == 4
    assert mixed.data.logit_lens_token.sel(rank=3).values.ravel().tolist() == [""] * 5
    assert mixed.data.activations.sel(position=x.layout.last).notnull().all()


def test_frames_stay_in_order(tiny: VideoModel) -> None:
    x = example(tiny, 12)
    data = tiny.run(
        x, [AttentionMass("text", "frames"), AttentionMass("frames", ["frame 11", "frame 2"])]
    ).data
    frames = [label for label in data.key_group.values if str(label).startswith("frame ")]
    assert frames == [f"frame {number}" for number in range(12)]


def test_what_would_not_fit_is_refused_with_numbers(tiny: VideoModel, monkeypatch) -> None:
    x = example(tiny)
    rows = AttentionRows("all")
    needed = 4 * 4 * 4 * len(x.layout) ** 2
    table = tiny.estimate(x, [rows])
    assert table.part.tolist() == ["forward pass", str(rows), "together"]
    assert table.bytes[1] == needed and table.bytes[2] == table.bytes[0] + needed
    monkeypatch.setattr(memory, "_free", lambda _: needed - 1)
    words = f"would take {needed // 1000} kB, everything asked for .* and .* kB are free"
    with pytest.raises(ProbeError, match=rf'AttentionRows\(queries="all"\) {words}'):
        tiny.run(x, [rows])
    monkeypatch.setattr(memory, "_free", lambda _: needed)
    tiny.run(x, [rows])
    monkeypatch.setattr(memory, "_free", lambda _: 1000)
    with pytest.raises(ProbeError, match='logits="all" would take'):
        tiny.run(x, logits="all")


@pytest.mark.parametrize("capture", EVERYTHING, ids=str)
def test_memory_is_what_the_result_takes(tiny: VideoModel, capture: Capture) -> None:
    x = example(tiny, answer="red")
    stated = int(tiny.estimate(x, [capture]).bytes[1])
    values = tiny.run(x, [capture]).data.values()
    taken = sum(v.nbytes for v in values if v.dtype.kind == "f")
    assert taken / 4 <= stated <= taken * 4


@pytest.mark.parametrize("wrong", ["attention_mass", AttentionMass, [3], [AttentionMass], object()])
def test_things_that_are_no_captures(tiny: VideoModel, wrong) -> None:
    from probe.engine.forward import as_list

    with pytest.raises(ProbeError, match="is not a capture"):
        as_list(wrong, Capture)
