"""Layer-block blackout on models that see the video in one layer alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from probe.ablate import visual_blackout
from probe.diagnose import Blackout, Case, diagnose
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.families import models


def seeing(layers: list[int]) -> VideoModel:
    """A tiny model whose attention adds nothing outside of some layers."""
    model = tiny_models.build(tiny_models.EVEN, seed=7)
    with torch.no_grad():
        for number, layer in enumerate(model.layers):
            if number not in layers:
                layer.self_attn.o_proj.weight.zero_()
    return model


def case(model: VideoModel, x=None) -> Case:
    """Two letters of which the video speaks for the first."""
    x = x or tiny_models.example(model)
    gain = model.run(x).logits[0] - model.run(x, ablate=[visual_blackout()]).logits[0]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    scores = [gain[model.tokenizer.convert_tokens_to_ids(letter)] for letter in letters]
    gold, rival = letters[int(np.argmax(scores))], letters[int(np.argmin(scores))]
    return Case(model, x, gold, [rival, gold])


@pytest.mark.parametrize("layer", range(4))
def test_only_the_block_that_holds_the_layer_matters(layer: int) -> None:
    one = Blackout()
    values = diagnose(case(seeing([layer])), [one])[one]
    expected = np.ones(4)
    expected[layer] = 0
    np.testing.assert_allclose(values["retention"], expected, atol=1e-4)
    assert values["retention_first"] == pytest.approx(expected[0], abs=1e-4)
    assert values["retention_last"] == pytest.approx(expected[3], abs=1e-4)


def test_wider_blocks_are_named_by_their_first_layer() -> None:
    one = Blackout(width=3)
    values = diagnose(case(seeing([2])), [one])[one]
    assert values["retention"].block.values.tolist() == [0, 3]
    assert values["margin_block_3"] == values["margin"][1]
    np.testing.assert_allclose(values["retention"], [0, 1], atol=1e-4)


def test_margins_are_those_of_single_runs(tiny) -> None:
    c = case(tiny)
    one = Blackout()
    values = diagnose(c, [one])[one]
    gold, rival = (c.first(text) for text in (c.gold, c.answers[0]))

    def plain(*ablate) -> float:
        row = torch.as_tensor(tiny.run(c.x, ablate=list(ablate)).logits[0]).log_softmax(-1)
        return float(row[gold] - row[rival])

    assert values["margin_full"] == pytest.approx(plain(), abs=1e-4)
    assert values["margin_blind"] == pytest.approx(plain(visual_blackout()), abs=1e-4)
    blocks = [plain(visual_blackout(layers=layer)) for layer in range(4)]
    np.testing.assert_allclose(values["margin"], blocks, atol=1e-4)
    earned = plain() - plain(visual_blackout())
    expected = (np.array(blocks) - plain(visual_blackout())) / earned
    np.testing.assert_allclose(values["retention"], expected, atol=1e-4)


def test_without_a_clip_is_another_zero(tiny) -> None:
    c = case(tiny)
    one = Blackout(blind="clip", least=-1e9)
    values = diagnose(c, [one])[one]
    assert c.blind is not None
    assert values["margin_blind"] == c.gold_margin(c.blind)
    assert values["margin_blind"] != Blackout().measure(c)["margin_blind"]


def test_retention_of_a_clip_that_earns_nothing_is_nan(tiny) -> None:
    c = case(tiny)
    swapped = Case(tiny, c.x, c.answers[0], c.answers)  # the video speaks against it
    values = Blackout().measure(swapped)
    assert np.isnan(values["retention"]).all() and np.isnan(values["retention_first"])
    assert np.isfinite(values["margin_full"])


def test_the_pool_is_a_ratio_of_means() -> None:
    rng = np.random.default_rng(0)
    n = 40
    earned = rng.uniform(-0.5, 4, n)
    blind = rng.normal(0, 1, n)
    table = pd.DataFrame({"sample": range(n), "video": np.arange(n) // 2})
    table["margin_full"], table["margin_blind"] = blind + earned, blind
    for number, share in enumerate([0.1, 0.5, 0.8, 0.9]):
        table[f"margin_block_{number}"] = blind + share * earned
    table["retention_first"] = rng.normal(0, 100, n)  # what single clips say is not averaged
    pooled = Blackout().pool(table).set_index("name")
    for number, share in enumerate([0.1, 0.5, 0.8, 0.9]):
        row = pooled.loc[f"retention_block_{number}"]
        assert row["low"] == pytest.approx(share) and row["high"] == pytest.approx(share)
        assert row["value"] == pytest.approx(share) and row["clusters"] == 20
    assert pooled.loc["retention_first", "value"] == pytest.approx(0.1)
    assert pooled.loc["retention_last", "value"] == pytest.approx(0.9)
    assert pooled.loc["margin_full", "value"] == pytest.approx(table["margin_full"].mean())
    one = Blackout().pool(table.iloc[:1]).set_index("name")
    assert one.loc["retention_block_1", "value"] == pytest.approx(0.5)
    assert np.isnan(one.loc["retention_block_1", "low"])


def test_the_pooled_interval_is_as_wide_as_the_noise() -> None:
    rng = np.random.default_rng(1)
    n = 200
    table = pd.DataFrame({"sample": range(n), "video": range(n)})
    table["margin_full"], table["margin_blind"] = 2.0, 0.0
    table["margin_block_0"] = rng.normal(1.0, 1.0, n)
    row = Blackout().pool(table).set_index("name").loc["retention_block_0"]
    error = table["margin_block_0"].std() / np.sqrt(n) / 2
    assert row["value"] == pytest.approx(table["margin_block_0"].mean() / 2)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_refusals_are_one_line(tiny) -> None:
    c = case(tiny)
    with pytest.raises(ProbeError, match='blind="noise"'):
        Blackout(blind="noise").measure(c)
    needs = models.build("instructblipvideo")
    with pytest.raises(ProbeError, match="needs a clip"):
        Blackout(blind="clip").measure(Case(needs, models.example(needs)))
