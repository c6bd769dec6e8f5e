"""Attention by type against the dense maps of transformers, with and without sinks."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from probe.diagnose import AttentionTypes, Case, diagnose
from probe.diagnose.attention_by_type import LEFT_OUT, AttentionByType
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import readings

SINK = 1.3  # norms of random models lie close together


def reference(weights: np.ndarray, states: np.ndarray, layout, first: int) -> np.ndarray:
    """[layer, left_out, quantity, target, source] by loops over single rows."""
    text = ~np.isin(layout.role, ["video", "newline"])
    rows = {"instruction": np.flatnonzero(text)[:-1], "response": np.array([layout.last])}
    found = np.full((len(weights), 3, 2, 2, 2), np.nan)
    for layer, heads in enumerate(weights):
        a = heads.mean(0)
        norms = np.linalg.norm(states[layer], axis=-1)
        sinks = norms > SINK * np.sort(norms)[(len(norms) - 1) // 2]
        away = [np.zeros(len(text), bool), np.arange(len(text)) < first, sinks]
        for out, gone in enumerate(away):
            for target, several in enumerate(rows.values()):
                for source, is_text in enumerate((True, False)):
                    columns = (text == is_text) & ~gone
                    total, entropies = 0.0, []
                    for row in several:
                        mass = a[row, columns].sum()
                        if mass > 0:
                            total += mass
                            entropies.append(stats.entropy(a[row, columns]))
                    if entropies:
                        found[layer, out, 0, target, source] = total / len(entropies)
                        found[layer, out, 1, target, source] = np.mean(entropies)
    return found


def test_masses_and_entropies_are_those_of_the_dense_map(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    expected = reference(readings.dense(eager, x), readings.states(eager, x), x.layout, 4)
    found = Case(model, x).of(AttentionByType(4, SINK))
    np.testing.assert_allclose(found.values, expected, atol=2e-5)
    assert (found.sinks > 0).any()
    rows = found.sel(quantity="mass", target="response", left_out="nothing").sum("source")
    np.testing.assert_allclose(rows, 1, atol=1e-6)


def test_scalars_are_shares_of_the_response(tiny, tiny_eager) -> None:
    x = tiny_models.example(tiny)
    one = AttentionTypes(sink=SINK)
    values = diagnose(Case(tiny, x), [one])[one]
    a = readings.dense(tiny_eager, x).mean(1)[:, x.layout.last]
    visual = np.isin(x.layout.role, ["video", "newline"])
    share = a[:, visual].sum(-1)
    assert values["second_half_text_share"] == pytest.approx(1 - share[2:].mean(), abs=1e-6)
    rho = stats.spearmanr(range(4), share).statistic
    assert values["vision_share_spearman"] == pytest.approx(rho)
    entropy = stats.entropy(a[:, visual], axis=-1)
    change = entropy[2:].mean() - entropy[:2].mean()
    assert values["vision_entropy_change"] == pytest.approx(change, abs=1e-5)
    a[:, :4] = 0
    share = a[:, visual].sum(-1) / a.sum(-1)
    found = values["vision_share"].sel(left_out="first")
    np.testing.assert_allclose(found, share, atol=1e-6)
    assert values["second_half_text_share_without_first"] == pytest.approx(1 - share[2:].mean())


def test_a_model_that_turns_to_the_instruction_passes_the_shape(tiny) -> None:
    vision = np.array([0.5, 0.3, 0.1, 0.05])
    mass = np.stack([1 - vision, vision], -1)
    values = np.broadcast_to(mass[:, None, None, None, :], (4, 3, 2, 2, 2)).copy()
    coords = dict(AttentionByTypeCoords) | {"layer": np.arange(4), "sinks": ("layer", [0] * 4)}
    dims = ["layer", "left_out", "quantity", "target", "source"]
    told = xr.DataArray(values, coords, dims)
    x = tiny_models.example(tiny)
    case = readings.Told(tiny, x, says={AttentionByType: told})
    found = AttentionTypes().measure(case)
    for suffix in ("", "_without_first", "_without_sinks"):
        assert found[f"vision_share_spearman{suffix}"] == pytest.approx(-1)
        assert found[f"second_half_text_share{suffix}"] == pytest.approx(0.925)


AttentionByTypeCoords = {
    "left_out": list(LEFT_OUT),
    "quantity": ["mass", "entropy"],
    "target": ["instruction", "response"],
    "source": ["instruction", "vision"],
}


def test_refuses_what_has_no_meaning(tiny) -> None:
    x = tiny_models.example(tiny)
    with pytest.raises(ProbeError, match="sink=1"):
        diagnose(Case(tiny, x), [AttentionTypes(sink=1)])
    with pytest.raises(ProbeError, match="needs a clip"):
        diagnose(Case(tiny, tiny_models.example(tiny, None)), [AttentionTypes()])
