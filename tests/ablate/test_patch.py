"""Patch against the other run itself, hooks on plain transformers, and surgery on its cache."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.head_pruning import BlindHeads
from probe.ablate.patch import Patch
from probe.ablate.remove import Ablate
from probe.ablate.scale import Scale
from probe.ablate.slicing import SliceMLP
from probe.capture import Activations
from probe.capture.keys_values import KeysValues
from probe.engine import forward
from probe.engine.session import Session
from probe.interop import save_activations
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.ablate import plain
from tests.ablate.plain import EVERY, NAMES, Absent, named, show, two
from tests.families import models
from tests.tiny import clip, example


@pytest.mark.parametrize("name", NAMES)
def test_everything_at_one_layer_is_the_other_run(
    request: pytest.FixtureRequest, name: str
) -> None:
    model = named(request, name)
    x, _, other = two(model, answer="red")
    for layer in (0, 2):
        run = model.run(x, ablate=[Patch(other, layers=layer)])
        np.testing.assert_array_equal(run.logits, other.logits)
    # Text begins as the same embedding, and then everything that is added is the other's.
    run = model.run(x, ablate=[Patch(other, site=site) for site in ("attention", "mlp")])
    np.testing.assert_allclose(run.logits, other.logits, rtol=0, atol=1e-5)


def test_vision_features_added_later_are_this_run_s_own() -> None:
    model = models.build("qwen3_vl")
    x, _, other = two(model, answer="red")
    found = [model.run(x, ablate=[Patch(other, layers=layer)]).logits for layer in (0, 2)]
    assert np.abs(found[0] - other.logits).max() > 1e-3  # layers 0 and 1 add some after them
    np.testing.assert_array_equal(found[1], other.logits)


@pytest.mark.parametrize("name", NAMES)
def test_every_site_is_a_hook_on_the_plain_model(
    request: pytest.FixtureRequest, name: str, tmp_path: Path
) -> None:
    model = named(request, name)
    x, y, other = two(model, answer="red")
    file = str(save_activations(other, tmp_path / "other.safetensors"))
    layer, at = model.layers[1], "frame 1 + question"
    mine = x.layout.select(at)
    parts = {name: plain.part(model, 1, name) for name in ("attention", "mlp")}
    sites = {"residual": (plain.given, layer), "head": (plain.given, model.output(1))}
    sites |= {name: (plain.changed, module) for name, module in parts.items()}
    for site, (hooked, module) in sites.items():
        new = plain.record(model, y, module, inputs=hooked is plain.given)
        only = plain.columns(model, 2) if site == "head" else slice(None)

        def change(
            old: torch.Tensor, rows: np.ndarray, new: torch.Tensor = new, only: slice = only
        ) -> torch.Tensor:
            old[mine, only] = new[mine, only]
            return old

        with hooked(module, change):
            expected = plain.logits(model, x)
        assert np.abs(expected - model.run(x).logits).max() > 1e-3
        for run in (other, file):
            one = Patch(run, at, 1, site, 2 if site == "head" else "all")
            found = model.run(x, ablate=[one]).logits
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=str(one))


@pytest.mark.parametrize("name", NAMES)
def test_from_one_frame_to_another_of_the_same_clip(
    request: pytest.FixtureRequest, name: str
) -> None:
    model = named(request, name)
    x = show(model)
    frames = [x.layout.select(label) for label in x.layout.groups[:3]]
    own = plain.record(model, x, model.layers[2], inputs=True)

    def carry(old: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        old[frames[2]] = own[frames[0]]
        return old

    with plain.given(model.layers[2], carry):
        expected = plain.logits(model, x)
    run = model.run(x, EVERY)
    one = Patch(run, x.layout.groups[0], 2, to=x.layout.groups[2])
    np.testing.assert_allclose(model.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("site", ["residual", "attention", "mlp", "head"])
def test_decoding_is_computing_all_at_once(tiny: VideoModel, site: str) -> None:
    x, _, other = two(tiny)
    one = Patch(other, "frames 1-2 + last", [0, 2], site)
    gen = tiny.generate(x, ablate=[one], max_new_tokens=5)
    full = tiny.force(x, gen.meta["generated"])
    run = tiny.run(full, ablate=[one])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)
    assert np.abs(gen.logits - tiny.generate(x, max_new_tokens=5).logits).max() > 1e-3


def test_neutral_text_only_and_the_full_path(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    x, _, other = two(model)
    text = example(model, None)
    run, gen = model.run(x, [*EVERY, KeysValues()]), model.generate(x, max_new_tokens=3).logits
    for site, readers in (("residual", None), ("head", None), ("mlp", None), ("residual", "last")):
        nothing = Patch(other, [], site=site, readers=readers)
        assert np.array_equal(model.run(x, ablate=[nothing]).logits, run.logits)
        again = model.generate(x, ablate=[nothing], max_new_tokens=3).logits
        assert np.array_equal(again, gen)
        video = Patch(other, "video", site=site, readers=readers)
        assert np.array_equal(model.run(text, ablate=[video]).logits, model.run(text).logits)
        own = Patch(run, "video", site=site, readers=readers)
        forced = forward.run(model, x, ablations=[own], force=True).logits
        np.testing.assert_allclose(forced, run.logits, rtol=0, atol=1e-5)
        with pytest.raises(ProbeError, match=r"are the same numbers .* did not fire"):
            model.run(x, ablate=[own])


def test_what_it_changes_is_where_it_says(tiny: VideoModel) -> None:
    x, _, other = two(tiny)
    for readers, row in ((None, x.layout.select("frame 3")[0]), ("last", x.layout.last)):
        one = Patch(other, "frame 3", [2, 3], readers=readers)
        session = Session(tiny, x, (), [one])
        assert one.affects(session, session.ablations[0][1]) == (2, row)


def test_a_token_that_is_gone_is_not_patched(tiny: VideoModel) -> None:
    x, y, other = two(tiny)
    late = Patch(other, "video", 2)
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.run(x, ablate=[Absent(2), late])
    short = tiny.run(y, EVERY, [Absent(2, "frame 1")])
    with pytest.raises(ProbeError, match=r"no activations of positions .* dropped there"):
        tiny.run(x, ablate=[Patch(short, "video", 2)])


def test_what_is_refused(tiny: VideoModel, other: VideoModel, tmp_path: Path) -> None:
    x, y, run = two(tiny)
    few = tiny.run(example(tiny, clip(3)), EVERY)
    part = tiny.run(y, [Activations("mlp", "frame 1", layers=[1])])
    text = tiny.run(example(tiny, None), EVERY)
    stranger = other.run(show(other), EVERY)
    steps = tiny.generate(y, [Activations()], max_new_tokens=2)
    file = save_activations(part, tmp_path / "part.safetensors")
    for one, message in [
        (Patch(run, site="query"), 'site "query"; there are residual, attention, mlp, head'),
        (Patch(run, heads=1), 'site "residual" has no heads'),
        (Patch(run, site="head", heads=7), "head 7 does not exist"),
        (Patch(run, layers=7), "layer 7 does not exist"),
        (Patch(run, "frame 1", to="frames 2-3"), "4 tokens of the other run for 8 here"),
        (Patch(few), "42 tokens of the other run for 50 here"),
        (Patch(text, "video"), "the other run: .* has no clip"),
        (Patch(stranger, "frame 1", to="frames 1-2 + token 0"), "it is of another model"),
        (Patch(part), 'the run has no activations of site "residual"'),
        (Patch(part, "frame 2", 1, "mlp"), "no activations of positions .* in layer 1"),
        (Patch(str(file), "frame 1", 2, "mlp"), "no activations of positions .* in layer 2"),
        (Patch(steps, "last"), "is of generate"),
        (Patch(few, readers="last"), "42 tokens"),
        (Patch(run, "frame 1", to="frame 2", readers="last"), "keep their positions"),
        (Patch(run, "question", readers="frame 1"), "come before the tokens"),
        (Patch(run, "frame 1", site="mlp", readers="last"), 'leave site="residual"'),
    ]:
        with pytest.raises(ProbeError, match=message) as error:
            tiny.run(x, ablate=[one])
        assert "\n" not in str(error.value)


def test_as_json() -> None:
    one = Patch("clean.safetensors", "frame 1", [1, 2], "head", [0], to="frame 2")
    names = {"Patch": Patch}
    assert from_json(json.loads(json.dumps(one.to_json())), names) == one
    assert copy.copy(one) == one and len({one, copy.copy(one)}) == 1


@pytest.mark.parametrize("name", ["tiny", "qwen2_5_vl"])
def test_a_sweep_resumes_these_where_they_begin(request: pytest.FixtureRequest, name: str) -> None:
    """Heads, MLPs, layers and patches: what `affects` says is where the run can be resumed."""
    model = named(request, name)
    x, _, run = two(model, answer="red")
    cases: list[Any] = [BlindHeads([(1, 2), (3, 0)]), BlindHeads([(2, 2)], renorm=True)]
    for at in ("question", "frame 1"):
        cases += [Patch(run, at, 2), Patch(run, at, [1, 2], "head"), SliceMLP(3, at, [1, 2])]
        cases += [Patch(run, at, 1, readers="last"), Scale("attention", [2, 3], at=at, factor=0.5)]
        cases += [Ablate("mlp", 2, at=at, with_="mean"), Ablate("layer", 1, at=at)]
        cases += [Ablate("head", 1, 2, at, "resample", run)]
    table = model.sweep(x, cases, lambda r: {f"{i}": float(v) for i, v in enumerate(r.logits[0])})
    found = table[[str(i) for i in range(model.head.weight.shape[0])]].to_numpy()[1:]
    expected = np.stack([model.run(x, ablate=[one]).logits[0] for one in cases])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert (table["from_layer"].iloc[1:] >= 1).all() and (table["from_row"].iloc[1:] > 0).any()
