"""What every recipe says beforehand about lengths is what then happens, in prefill and cache."""

from __future__ import annotations

import pytest

from probe import ProbeError, ablate
from probe.ablate import registry
from probe.cost import Prediction, predict
from probe.models.video_model import VideoModel
from tests.tiny import Geometry, build, example

KNOWN_BEFOREHAND = {"dycoke_cache", "fastv", "livevlm", "temple", "visual_blackout"}
NEW = 3


@pytest.fixture(scope="module")
def model() -> VideoModel:
    """4 x 4 tokens a frame, six layers."""
    return build(Geometry(layers=6, image=112), seed=2)


def stated(model: VideoModel, x, name: str) -> tuple[list, Prediction] | None:
    """A recipe as it comes and what it says; None where it needs arguments, or does not say."""
    try:
        one = getattr(ablate, name)()
        return one, predict(model, x, one)
    except (TypeError, ProbeError):
        return None


def test_effects(model: VideoModel) -> None:
    x, checked = example(model, 8), set()
    for name in registry.RECIPES:
        found = stated(model, x, name)
        if found is None:
            continue
        one, before = found
        try:
            cost = model.generate(x, ablate=[one], max_new_tokens=NEW).cost
        except ProbeError:  # not for this family, or not at its own counts
            continue
        assert cost.length == before.lengths.rows, name
        assert cost.kv_length == tuple(n + NEW - 1 for n in before.lengths.kv), name
        assert cost.macs == before.macs() and cost.macs_full == before.macs_full(), name
        checked.add(name)
    assert checked >= KNOWN_BEFOREHAND
