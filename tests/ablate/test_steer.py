"""Steering and sparse reconstruction against hooks of one's own on plain transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from probe import ProbeError
from probe.ablate import fastv
from probe.ablate.sae import SparseReconstruction
from probe.ablate.steer import Steer
from probe.capture import Activations
from probe.capture.sae import SparseFeatures
from probe.engine import forward
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.snapshot import same, snapshot
from tests.tiny import example

WIDTH, FEATURES = 32, 70
DIRECTION = np.random.default_rng(0).normal(size=WIDTH)


def weights(threshold: bool = False) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (WIDTH, FEATURES), "b_enc": (FEATURES,), "W_dec": (FEATURES, WIDTH)}
    shapes |= {"b_dec": (WIDTH,)} | ({"threshold": (FEATURES,)} if threshold else {})
    return {name: torch.randn(shape, generator=made) * 0.2 for name, shape in shapes.items()}


@pytest.fixture
def file(tmp_path: Path) -> str:
    save_file(weights(threshold=True), tmp_path / "sae.safetensors")
    return str(tmp_path / "sae.safetensors")


def hooked(model: VideoModel, x: Any, layer: int, change: Callable, generate: int = 0) -> Any:
    """Logits (or token ids) of plain transformers with the input of one layer changed."""

    def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        stream = args[0] if args else kwargs["hidden_states"]
        changed = change(stream[0].clone())[None]
        return (
            ((changed, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": changed})
        )

    handle = model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    with torch.no_grad():
        if generate:
            inputs = {k: v for k, v in x.inputs.items() if k != "position_ids"}
            out = model.hf.generate(
                **inputs,
                max_new_tokens=generate,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
            found = torch.cat(out.logits)
        else:
            found = model.hf(**x.inputs, use_cache=False).logits[0, x.layout.readout]
    handle.remove()
    return found.numpy()


def test_a_vector_is_added_where_it_is_asked_for(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    rows = x.layout.select("frame 2 + question")

    def change(stream: torch.Tensor) -> torch.Tensor:
        stream[rows] += 3 * torch.from_numpy(DIRECTION).float()
        return stream

    expected = hooked(tiny, x, 1, change)
    before = snapshot(tiny.hf)
    one = Steer(DIRECTION, "frame 2 + question", layers=1, scale=3)
    found = tiny.run(x, ablate=[one])
    same(before, snapshot(tiny.hf))
    np.testing.assert_allclose(found.logits, expected, rtol=0, atol=1e-5)
    assert np.abs(found.logits - tiny.run(x).logits).max() > 1e-2
    half = [Steer(DIRECTION, "frame 2 + question", layers=1, scale=1.5)] * 2
    np.testing.assert_allclose(tiny.run(x, ablate=half).logits, expected, rtol=0, atol=1e-5)


def test_generated_tokens_are_steered_too(tiny: VideoModel) -> None:
    x = example(tiny)
    one = Steer(DIRECTION, "text", layers=2, scale=2)
    text = np.append(np.isin(np.arange(len(x.layout)), x.layout.select("text")), [True] * 9)
    seen = {"rows": 0}

    def change(stream: torch.Tensor) -> torch.Tensor:
        rows = np.arange(seen["rows"], seen["rows"] + len(stream))
        seen["rows"] += len(stream)
        stream[torch.from_numpy(text[rows])] += 2 * torch.from_numpy(DIRECTION).float()
        return stream

    expected = hooked(tiny, x, 2, change, generate=4)
    run = tiny.generate(x, ablate=[one], max_new_tokens=4)
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-5)
    full = tiny.force(x, run.meta["generated"])
    again = tiny.run(full, ablate=[Steer(DIRECTION, "text + answer", layers=2, scale=2)])
    np.testing.assert_allclose(again.logits, run.logits, rtol=0, atol=1e-5)


def test_neutral_steering_and_text_only(tiny: VideoModel) -> None:
    x, text = example(tiny, answer="red"), example(tiny, None)
    one = Steer(DIRECTION, scale=0)
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)
    forced = forward.run(tiny, x, ablations=[one], force=True)
    np.testing.assert_allclose(forced.logits, tiny.run(x).logits, rtol=0, atol=1e-5)
    video = Steer(DIRECTION, "video")
    assert np.array_equal(tiny.run(text, ablate=[video]).logits, tiny.run(text).logits)


def test_steering_meets_what_a_reduction_left(tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.run(x, [Activations(positions="all")], [fastv(1, 0.5), Steer(DIRECTION, layers=2)])
    rest = tiny.run(x, [Activations(positions="all")], [fastv(1, 0.5)])
    added = (run.data.activations - rest.data.activations).sel(layer=2).values
    kept = run.kept.values[2]
    expected = np.broadcast_to(DIRECTION, (kept.sum(), WIDTH))
    np.testing.assert_allclose(added[kept], expected, atol=1e-5)
    assert np.isnan(added[~kept]).all()
    none = [fastv(1, 0.0), Steer(DIRECTION, "video", layers=2)]
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.run(x, ablate=none)


def test_directions_from_a_file(tiny: VideoModel, tmp_path: Path) -> None:
    x = example(tiny)
    vector = torch.from_numpy(DIRECTION)
    save_file({"red": vector}, tmp_path / "one.safetensors")
    save_file({"red": vector, "blue": -vector}, tmp_path / "two.safetensors")
    expected = tiny.run(x, ablate=[Steer(DIRECTION, layers=0)]).logits
    for name in ("one.safetensors", "one.safetensors#red", "two.safetensors#red"):
        found = tiny.run(x, ablate=[Steer(str(tmp_path / name), layers=0)])
        assert np.array_equal(found.logits, expected)
    with pytest.raises(
        ProbeError, match=r'has the tensors blue, red; write one of them as ".*#name"'
    ):
        tiny.run(x, ablate=[Steer(str(tmp_path / "two.safetensors"))])
    with pytest.raises(ProbeError, match="not a safetensors file"):
        tiny.run(x, ablate=[Steer(str(tmp_path / "three.safetensors"))])
    for wrong in (DIRECTION[:-1], 0 * DIRECTION, DIRECTION * np.nan):
        with pytest.raises(ProbeError, match="give 32 finite numbers, not all zero"):
            tiny.run(x, ablate=[Steer(wrong)])


@pytest.mark.parametrize("activation", ["relu", "topk 5", "jumprelu"])
@pytest.mark.parametrize("center", [False, True])
def test_features_and_their_reconstruction(
    tiny: VideoModel, file: str, activation: str, center: bool
) -> None:
    x = example(tiny, answer="red")
    w, how = weights(threshold=True), {"activation": activation, "center": center}
    data = tiny.run(x, [Activations(positions="all")]).data
    stream = torch.from_numpy(data.activations.sel(layer=2).values)
    shifted = stream - (w["b_dec"] if center else 0)
    dense = shifted @ w["W_enc"] + w["b_enc"]
    if activation == "jumprelu":
        expected = dense * (dense > w["threshold"])
    else:
        expected = dense.clamp(min=0)
        if activation == "topk 5":
            expected = expected * (expected >= expected.sort(descending=True).values[:, 4:5])
    run = tiny.run(x, [SparseFeatures(file, 2, "all", **how)])
    np.testing.assert_allclose(run.data.sparse_features, expected, atol=1e-5)
    decoded = expected @ w["W_dec"] + w["b_dec"]
    lost = ((decoded - stream) ** 2).sum(-1) / (stream**2).sum(-1)
    np.testing.assert_allclose(run.data.sparse_features_error, lost, rtol=1e-4)
    logits = hooked(tiny, x, 2, lambda _: decoded)
    found = tiny.run(x, ablate=[SparseReconstruction(file, 2, **how)])
    np.testing.assert_allclose(found.logits, logits, rtol=0, atol=2e-5)


def test_features_off_with_the_error_kept(tiny: VideoModel, file: str) -> None:
    x, w = example(tiny), weights()
    data = tiny.run(x, [SparseFeatures(file, 1, "all", features=[4, 9])]).data.sparse_features
    rows = x.layout.select("video")
    assert data.feature.values.tolist() == [4, 9] and float(data[rows].max()) > 0.1

    def change(stream: torch.Tensor) -> torch.Tensor:
        stream[rows] -= torch.from_numpy(data.values[rows]) @ w["W_dec"][[4, 9]]
        return stream

    one = SparseReconstruction(file, 1, "video", off=[4, 9], error=True)
    np.testing.assert_allclose(
        tiny.run(x, ablate=[one]).logits, hooked(tiny, x, 1, change), rtol=0, atol=1e-5
    )
    neutral = SparseReconstruction(file, 1, error=True)
    assert np.array_equal(tiny.run(x, ablate=[neutral]).logits, tiny.run(x).logits)
    forced = forward.run(tiny, x, ablations=[neutral], force=True)
    np.testing.assert_allclose(forced.logits, tiny.run(x).logits, rtol=0, atol=1e-5)
    last = tiny.run(x, [SparseFeatures(file, 1, "last")]).data.sparse_features.values[0]
    off = np.flatnonzero(last == 0)
    dead = SparseReconstruction(file, 1, "last", off=off, error=True)
    assert len(off)
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.run(x, ablate=[dead])


def test_features_of_each_step_and_arrays(tiny: VideoModel, file: str) -> None:
    x, w = example(tiny), weights()
    arrays = [w[name].numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")]
    run = tiny.generate(x, [SparseFeatures(arrays, 1)], max_new_tokens=4)
    assert run.data.sparse_features.dims == ("step", "feature")
    assert run.data.sparse_features.attrs["capture"] == "SparseFeatures(weights=[...], layer=1)"
    full = tiny.force(x, run.meta["generated"])
    again = tiny.run(full, [SparseFeatures(file, 1)]).data
    np.testing.assert_allclose(run.data.sparse_features, again.sparse_features, atol=1e-5)
    np.testing.assert_allclose(
        run.data.sparse_features_error, again.sparse_features_error, atol=1e-5
    )


def test_dropped_tokens_have_no_features(tiny: VideoModel, file: str) -> None:
    run = tiny.run(example(tiny), [SparseFeatures(file, 3, "all")], [fastv(2, 0.5)])
    gone = ~run.kept.values[3]
    assert gone.any()
    np.testing.assert_array_equal(np.isnan(run.data.sparse_features).all("feature"), gone)
    np.testing.assert_array_equal(np.isnan(run.data.sparse_features_error), gone)


def test_wrong_autoencoders_are_refused(tiny: VideoModel, file: str, tmp_path: Path) -> None:
    x, w = example(tiny), weights()
    save_file({"W_enc": w["W_enc"]}, tmp_path / "part.safetensors")
    save_file(w | {"W_enc": w["W_dec"].clone()}, tmp_path / "turned.safetensors")
    cases = [
        (SparseFeatures(str(tmp_path / "part.safetensors"), 1), "lacks b_enc"),
        (SparseFeatures(str(tmp_path / "turned.safetensors"), 1), r"W_enc has shape \(70, 32\)"),
        (SparseFeatures(str(tmp_path / "none"), 1), "not a safetensors file"),
        (SparseFeatures(file, 1, activation="gelu"), 'activation "gelu"'),
        (SparseFeatures(file, 1, activation="topk 71"), 'activation "topk 71"'),
        (SparseFeatures(file, 9), "layer 9 does not exist"),
        (SparseFeatures(file, 1, features=[70]), "there are 0 to 69"),
    ]
    save_file(w, tmp_path / "plain.safetensors")
    plain = str(tmp_path / "plain.safetensors")
    cases.append((SparseFeatures(plain, 1, activation="jumprelu"), 'needs the tensor "threshold"'))
    for capture, message in cases:
        with pytest.raises(ProbeError, match=message):
            tiny.run(x, [capture])
    with pytest.raises(ProbeError, match="feature 70; there are 0 to 69"):
        tiny.run(x, ablate=[SparseReconstruction(file, 1, off=[70])])


def test_as_json_and_text() -> None:
    names: dict[str, Callable] = {
        one.__name__: one for one in (Steer, SparseFeatures, SparseReconstruction)
    }
    for made in (
        Steer(DIRECTION, "frames 1-2", layers=[0, 1], scale=2.0),
        Steer("v.safetensors#red"),
        SparseFeatures("sae.safetensors", 3, features=range(4)),
        SparseReconstruction("sae.safetensors", 3, off=[1, 2], error=True),
    ):
        assert from_json(json.loads(json.dumps(made.to_json())), names) == made
    assert str(Steer(DIRECTION, "last")) == 'Steer(direction=[...], at="last")'
    assert str(Steer([1.0, 2.0])) == "Steer(direction=[1.0, 2.0])"
