"""Every operator and every recipe is held to the same oracles."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from probe import ProbeError, ablate
from probe.ablate import registry
from probe.ablate.compose import in_order, label
from probe.ablate.reduce import Reduce
from probe.ablate.sites import Layer, Mid
from probe.cost import predict
from probe.engine.sweep import runs
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.ablate import every
from tests.ablate.every import CASES, Case, listed, model_of, shown
from tests.families import masks
from tests.snapshot import same, snapshot

TOLERANCE = 1e-5
NEW = 4
AS_TEXT = [case for case in CASES if isinstance(case.make, str)]
NEUTRAL = [case for case in CASES if case.neutral]
ON_VIDEO = [case for case in CASES if not case.text]


class Plain:
    """A model without ablations, computed once."""

    def __init__(self, name: str) -> None:
        self.model = model_of(name)
        self.x, self.answered = shown(self.model), shown(self.model, answer="red")
        self.text = self.model.encode(None, "What moves?", answer="red")
        self.asked = self.model.encode(None, "What moves?")
        self.run = self.model.run(self.answered).logits
        self.generated = self.model.generate(self.x, max_new_tokens=NEW).logits
        self.text_run = self.model.run(self.text).logits
        self.text_generated = self.model.generate(self.asked, max_new_tokens=NEW).logits


_PLAIN: dict[str, Plain] = {}


def plain(case: Case) -> Plain:
    if case.on not in _PLAIN:
        _PLAIN[case.on] = Plain(case.on)
    return _PLAIN[case.on]


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to rounding, on the scale of the values; -inf where the other is."""
    size = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * size)


def test_every_registered_name_has_a_case() -> None:
    assert {case.name for case in every.OPERATORS} == set(registry.OPERATORS)
    assert {case.name for case in every.RECIPES} == set(registry.RECIPES)
    kinds = {str(case).split("(")[0] for case in AS_TEXT if case.name != "mustdrop_cache"}
    assert kinds <= set(ablate.names())


@pytest.mark.parametrize("case", NEUTRAL, ids=str)
def test_neutral_is_bit_identical(case: Case) -> None:
    bare = plain(case)
    one = listed(case.neutral, bare.model, bare.x)
    run = bare.model.run(bare.answered, ablate=one)
    assert np.array_equal(run.logits, bare.run)
    generated = bare.model.generate(bare.x, ablate=one, max_new_tokens=NEW)
    assert np.array_equal(generated.logits, bare.generated)


@pytest.mark.parametrize("case", ON_VIDEO, ids=str)
def test_without_a_clip_nothing_changes(case: Case) -> None:
    bare = plain(case)
    one = case.made(bare.model, bare.x)
    assert np.array_equal(bare.model.run(bare.text, ablate=one).logits, bare.text_run)
    generated = bare.model.generate(bare.asked, ablate=one, max_new_tokens=NEW)
    assert np.array_equal(generated.logits, bare.text_generated)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_decode_is_recompute_and_leaves_nothing(case: Case) -> None:
    bare = plain(case)
    model, x = bare.model, bare.x
    one = case.made(model, x)
    before = snapshot(model.hf)
    generated = model.generate(x, ablate=one, max_new_tokens=NEW)
    full = model.force(x, generated.meta["generated"])
    run = model.run(full, ablate=one)
    again = model.run(full, ablate=one)
    same(before, snapshot(model.hf))
    close(generated.logits, run.logits)
    assert np.array_equal(run.logits, again.logits)
    whole = generated.kept.sizes["position"]
    np.testing.assert_array_equal(run.kept.values[:, : whole - NEW], generated.kept.values[:, : whole - NEW])
    unchanged = model.run(full).logits
    first = np.abs(generated.logits[0] - bare.generated[0]).max()
    assert first == 0 if case.late else first > 1e-4
    assert np.abs(run.logits - unchanged).max() > 1e-4
