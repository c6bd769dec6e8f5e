"""Visual influence against dense maps and masks; no decay where attention knows no place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import linregress

from probe.ablate import Knockout, edvt
from probe.diagnose import VisualInfluence
from probe.diagnose.visual_influence import slope
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import seeing

TEXT = "a red one"


@pytest.fixture(scope="module")
def measured(tiny):
    case = seeing.case(tiny)
    return (
        case,
        VisualInfluence(TEXT).measure(case),
        case.model.encode(case.x.clip, "Which colour?", answer=TEXT, frames=None),
    )


def test_mass_and_dilution_are_those_of_dense_maps(measured, tiny_eager) -> None:
    _, found, forced = measured
    rows = forced.layout.readout
    dense = tiny_models.dense(tiny_eager, forced)[:, :, rows]
    video = forced.layout.select("video")
    mass = dense[..., video].sum(-1).mean((0, 1))
    assert found["mass"] == pytest.approx(mass.mean(), abs=1e-5)
    share = np.log(mass) - np.log(len(video) / (rows + 1))
    np.testing.assert_allclose(found["log_share_by_step"], share, atol=1e-5)
    steps = np.arange(len(rows))
    expected = linregress(steps, share).slope
    assert found["log_share_slope"] == pytest.approx(expected, abs=1e-5)
    assert found["mass_slope"] == pytest.approx(linregress(steps, mass).slope, abs=1e-5)


def test_influence_is_the_divergence_from_a_masked_run(measured, tiny_eager) -> None:
    _, found, forced = measured
    count, video = len(forced.layout), forced.layout.select("video")
    allowed = np.tril(np.ones((count, count), bool))
    allowed[np.ix_(np.setdiff1d(np.arange(count), video), video)] = False
    mask = torch.zeros(1, 1, count, count)
    mask[0, 0][torch.from_numpy(~allowed)] = float("-inf")
    rows = forced.layout.readout
    with torch.no_grad():
        plain = tiny_eager.hf(**forced.inputs).logits[0, rows].double().numpy()
        cut = tiny_eager.hf(**{**forced.inputs, "attention_mask": mask}).logits[0, rows]
    log_p, log_q = log_softmax(plain, -1), log_softmax(cut.double().numpy(), -1)
    expected = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    np.testing.assert_allclose(found["influence_by_step"], expected, atol=1e-4)
    ids = forced.inputs["input_ids"][0, rows + 1].numpy()
    likelihood = -log_p[np.arange(len(ids)), ids].mean()
    assert found["perplexity"] == pytest.approx(np.exp(likelihood), rel=1e-4)
    assert found["tokens"] == len(rows)


def test_under_edvt_everything_is_measured_there(measured) -> None:
    case, found, forced = measured
    ablations = [edvt(), Knockout("video -> all - video")]
    plain, cut = (
        log_softmax(case.model.run(forced, ablate=some).logits.astype(float), -1)
        for some in (ablations[:1], ablations)
    )
    expected = (np.exp(plain) * (plain - cut)).sum(-1)
    np.testing.assert_allclose(found["influence_by_step_edvt"], expected, atol=1e-5)
    assert found["log_share_slope_edvt"] != pytest.approx(found["log_share_slope"], abs=1e-4)


def test_attention_that_knows_no_place_does_not_decay() -> None:
    """All scores equal: the mass falls with every token, its share over the uniform one stays."""
    model = tiny_models.build(tiny_models.EVEN, seed=5)
    for layer in model.hf.model.language_model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    found = VisualInfluence("a red one that moves", edvt=False).measure(seeing.case(model))
    assert found["log_share_slope"] == pytest.approx(0, abs=1e-6)
    assert found["log_share"] == pytest.approx(0, abs=1e-5)
    assert found["mass_slope"] < -1e-4


def test_a_model_that_sees_nothing_has_no_influence() -> None:
    found = VisualInfluence(TEXT).measure(seeing.case(seeing.blind_model()))
    assert found["influence"] == pytest.approx(0, abs=1e-6)
    assert found["influence_slope"] == pytest.approx(0, abs=1e-6)


def test_the_models_own_answer_is_the_default(tiny) -> None:
    case = seeing.case(tiny)
    found = VisualInfluence(max_new_tokens=4, edvt=False).measure(case)
    assert found["tokens"] == 4
    assert found["influence_by_step"].attrs["units"] == "nats"
    text = tiny.generate(case.x, max_new_tokens=4).meta["generated"]
    forced = tiny.force(case.x, text)
    with torch.no_grad():
        rows = tiny.hf(**forced.inputs).logits[0, forced.layout.readout].double().log_softmax(-1)
    likelihood = -rows[np.arange(4), text].mean()
    assert found["perplexity"] == pytest.approx(float(likelihood.exp()), rel=1e-4)


def test_short_answers_have_no_slope() -> None:
    assert np.isnan(slope(np.array([1.0, 2.0])))
    assert np.isnan(slope(np.array([1.0, -np.inf, 2.0])))
    assert slope(np.array([1.0, 3.0, 5.0])) == 2.0
    with pytest.raises(ProbeError, match="empty"):
        VisualInfluence("").measure(seeing.case(tiny_models.build()))


def test_the_pool_compares_slopes() -> None:
    rng = np.random.default_rng(0)
    names = ["log_share_slope", "influence_slope", "log_share", "influence"]
    table = pd.DataFrame({"sample": range(20), "video": range(20)})
    for name in names:
        table[name] = -rng.uniform(1, 2, 20)
        table[f"{name}_edvt"] = table[name] / 4
    table["perplexity"], table["perplexity_edvt"] = 2.0, np.repeat([2.0, 8.0], 10)
    pooled = VisualInfluence().pool(table).set_index("name")
    assert pooled.loc["edvt_slope_ratio", "value"] == pytest.approx(0.25)
    assert pooled.loc["edvt_perplexity_ratio", "value"] == pytest.approx(2)
    assert pooled.loc["edvt_perplexity_ratio", "low"] < 2


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(seeing.models.build(name), frames=4, gold=None, answers=())
    found = VisualInfluence(TEXT).measure(case)
    assert np.isfinite([found["log_share_slope"], found["influence_edvt"]]).all()
