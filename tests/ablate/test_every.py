"""Every operator and every recipe is held to the same oracles."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, cached_property
from itertools import combinations

import numpy as np
import pytest
import torch

from probe import ProbeError, ablate
from probe.ablate import registry
from probe.ablate.base import PLACES, Ablation
from probe.ablate.compose import in_order, label, prepared
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.bypass import Bypass
from probe.ablate.scores import Uniform
from probe.ablate.sites import Layer, Mid
from probe.cost import predict
from probe.engine.result import Run
from probe.engine.sweep import runs
from probe.spec import from_json
from tests.ablate import every
from tests.ablate.every import CASES, Case, listed, model_of, shown
from tests.families import masks
from tests.snapshot import same, snapshot

TOLERANCE = 1e-5
NEW = 3


class Plain:
    """A model and its example without ablations, computed once."""

    def __init__(self, name: str, frames: int) -> None:
        self.model = model_of(name)
        self.x = shown(self.model, frames)
        self.asked = self.model.encode(None, "What moves?")

    @cached_property
    def generated(self) -> np.ndarray:
        """Logits [step, vocab]."""
        return self.model.generate(self.x, max_new_tokens=NEW).logits

    @cached_property
    def blind(self) -> np.ndarray:
        """The same without a clip."""
        return self.model.generate(self.asked, max_new_tokens=NEW).logits


@cache
def _plain(name: str, frames: int) -> Plain:
    return Plain(name, frames)


def plain(case: Case) -> Plain:
    return _plain(case.on, case.frames)


@cache
def once(case: Case) -> tuple[list[Ablation], Run]:
    """The ablations of a case, and what they generate."""
    bare = plain(case)
    one = case.made(bare.model, bare.x)
    return one, bare.model.generate(bare.x, ablate=one, max_new_tokens=NEW)


def slices(chosen: list[Case]) -> list:
    """The first case of each name; the others only with the full matrix."""
    seen: set[str] = set()
    made = []
    for case in chosen:
        more = [pytest.mark.full] if case.name in seen else []
        made.append(pytest.param(case, id=str(case), marks=more))
        seen.add(case.name)
    return made


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to rounding, on the scale of the values; -inf where the other is."""
    size = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * size)


def test_every_registered_name_has_a_case() -> None:
    assert {case.name for case in every.OPERATORS} == set(registry.OPERATORS)
    assert {case.name for case in every.RECIPES} == set(registry.RECIPES)
    for case in CASES:
        assert not isinstance(case.make, str) or f"{case.name}(" in case.make


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.make, str)], ids=str)
def test_it_is_data(case: Case) -> None:
    made = listed(case.make, plain(case).model, plain(case).x)
    names = ablate.names()
    for one in made:
        assert from_json(json.loads(json.dumps(one.to_json())), names) == one
        assert hash(one) == hash(from_json(one.to_json(), names))
    assert ablate.parse(label(made)) == made
    assert ablate.parse("; ".join(str(replace(one)) for one in made)) == made  # without a recipe


@pytest.mark.parametrize("case", [c for c in CASES if c.neutral], ids=str)
def test_neutral_is_bit_identical(case: Case) -> None:
    bare = plain(case)
    one = listed(case.neutral, bare.model, bare.x)
    assert np.array_equal(bare.model.run(bare.x, ablate=one).logits[-1], bare.generated[0])
    found = bare.model.generate(bare.x, ablate=one, max_new_tokens=NEW)
    assert np.array_equal(found.logits, bare.generated)


@pytest.mark.parametrize("case", slices([c for c in CASES if not c.text]))
def test_without_a_clip_nothing_changes(case: Case) -> None:
    bare = plain(case)
    found = bare.model.generate(bare.asked, ablate=once(case)[0], max_new_tokens=NEW)
    assert np.array_equal(found.logits, bare.blind)


@pytest.mark.parametrize("case", slices(CASES))
def test_decode_is_recompute_and_leaves_nothing(case: Case) -> None:
    bare = plain(case)
    model, x = bare.model, bare.x
    one, found = once(case)
    before = snapshot(model.hf)
    full = model.force(x, found.meta["generated"])
    run = model.run(full, ablate=one)
    again = model.generate(x, ablate=one, max_new_tokens=NEW)
    same(before, snapshot(model.hf))
    close(found.logits, run.logits)
    assert np.array_equal(again.logits, found.logits)
    count = found.kept.sizes["position"] - NEW
    np.testing.assert_array_equal(run.kept.values[:, :count], found.kept.values[:, :count])
    first = np.abs(found.logits[0] - bare.generated[0]).max()
    assert first == 0 if case.late else first > 1e-4
    assert np.abs(run.logits - model.run(full).logits).max() > 1e-4


@pytest.mark.parametrize("case", slices(CASES))
def test_it_costs_what_is_predicted_and_what_is_measured(case: Case) -> None:
    bare = plain(case)
    model, x = bare.model, bare.x
    one, found = once(case)
    if any(o.acts == "logits" for o in one) or prepared(model, x, one) is not x:
        with pytest.raises(ProbeError, match="ablated"), model.ablated(x, one):
            pass  # no forward of this model by itself has other frames or logits
    else:
        inputs = {k: v for k, v in x.inputs.items() if k != "position_ids"}
        with model.ablated(x, one) as hf:
            out = hf.generate(
                **inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True,
                output_logits=True,
            )  # fmt: skip
        close(torch.cat(out.logits).numpy(), found.logits)
        sizes = tuple(layer.keys.shape[2] for layer in out.past_key_values.layers)
        assert found.cost.kv_length == sizes
    try:
        before = predict(model, x, one)
    except ProbeError:
        return
    assert found.cost.length == before.lengths.rows
    assert found.cost.macs == before.macs() and found.cost.macs_full == before.macs_full()
    if not case.late:
        assert found.cost.kv_length == tuple(n + NEW - 1 for n in before.lengths.kv)


def dropped(case: Case) -> bool:
    """Whether it only leaves tokens out, at their own positions, in the decoder."""
    one, run = once(case)
    for o in one:
        if not isinstance(o, Reduce) or not isinstance(o.at, Layer | Mid):
            return False
        if o.position != "keep" or o.cache != "forward" or isinstance(o.rest, Bypass):
            return False
    dense = [found.weights.dense() for found in run.reductions]
    return all(np.isin(w, (0, 1)).all() and (w.sum(1) == 1).all() for w in dense)


@pytest.mark.parametrize("on", ["tiny", "video_llava", "qwen2_5_vl"])
def test_dropping_is_masking(on: str) -> None:
    """Every case that only drops, against the plain model with additive masks."""
    tried = [case for case in CASES if case.on == on and dropped(case)]
    assert len(tried) >= {"tiny": 8, "video_llava": 0, "qwen2_5_vl": 1}[on]
    for case in tried:
        one, found = once(case)
        bare = plain(case)
        x = bare.model.force(bare.x, found.meta["generated"])
        kept = bare.model.run(x, ablate=one).kept.values
        hidden = np.repeat(~kept[:, None], len(x.layout), 1)
        hidden[:, range(len(x.layout)), range(len(x.layout))] = False
        with masks.masked(bare.model, hidden):
            close(found.logits, masks.logits(bare.model, x))


@pytest.mark.parametrize("on", ["tiny", "video_llava", "qwen2_5_vl"])
def test_a_sweep_is_the_runs(on: str) -> None:
    tried = [case for case in CASES if case.on == on and case.frames == 5]
    bare = plain(tried[0])
    lists = [in_order(once(case)[0]) for case in tried]
    for case, (given, found, _) in zip(tried, runs(bare.model, bare.x, lists), strict=True):
        alone = bare.model.run(bare.x, ablate=given)
        close(found.logits, alone.logits)
        np.testing.assert_array_equal(found.kept, alone.kept, err_msg=str(case))
        assert found.cost.length == alone.cost.length and found.cost.macs == alone.cost.macs


def test_the_order_of_a_list_does_not_matter() -> None:
    """One ablation of each place, in pairs."""
    of: dict[str, Case] = {}
    for case in CASES:
        if case.on == "tiny" and not case.late and len(one := once(case)[0]) == 1:
            of.setdefault(one[0].acts, case)
    of["KV cache"] = next(case for case in CASES if 'when="video"' in str(case))
    of["frames"] = next(case for case in CASES if str(case) == 'Frames("reverse")')
    of["hidden states"] = next(case for case in CASES if "at=mid(1)" in str(case))
    of["vision encoder"] = next(case for case in CASES if case.name == "Encoder")
    assert set(of) == set(PLACES)
    bare = plain(of["frames"])
    for first, second in combinations(of.values(), 2):
        a, b = once(first)[0], once(second)[0]
        one, other = (bare.model.run(bare.x, ablate=both).logits for both in (a + b, b + a))
        assert np.array_equal(one, other), f"{first} and {second}"
        for alone in (first, second):
            assert np.abs(one - once(alone)[1].logits[:1]).max() > 1e-4, f"{first} and {second}"


# These are about other things than the tokens of the video in the decoder.
ELSEWHERE = {
    "Contrast", "Encoder", "SelectFrames", "Frames", "Interleave", "Rope", "Thumbnail", "damro",
    "vcd", "temple", "tstar", "ts_llava", "intp", "intp_rope", "tc_llava", "videoscan",
    "visual_blackout",
}  # fmt: skip
BESIDE = ("Carrier(position", 'Knockout("video -> video", random', 'Mask("blackout"')
ON_TOKENS = [
    case
    for case in CASES
    if case.on == "tiny"
    and not (case.text or case.name in ELSEWHERE or str(case).startswith(BESIDE))
]


@pytest.mark.parametrize("case", slices(ON_TOKENS))
def test_with_no_token_left_it_is_an_error(case: Case) -> None:
    """Nothing that is about the video passes silently where no token of it is left."""
    bare = plain(case)
    gone = Reduce(at=Layer(0), score=Uniform(), keep=0.0)
    with pytest.raises(ProbeError) as error:
        bare.model.generate(bare.x, ablate=[gone, *once(case)[0]], max_new_tokens=2)
    assert "\n" not in str(error.value)
