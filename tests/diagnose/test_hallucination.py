"""The hallucination diagnosis: what must be zero is zero, and tables equal single runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from probe.ablate import Knockout
from probe.diagnose import counterfactuals, influence, margin
from probe.errors import ProbeError
from probe.video import Clip


@pytest.fixture(scope="module")
def example(tiny):
    frames = np.random.default_rng(4).integers(0, 256, (5, 56, 56, 3), dtype=np.uint8)
    return tiny.encode(frames, "What moves?", seconds=np.arange(5) / 2)


def test_counterfactuals_equal_single_runs(tiny, example) -> None:
    table = counterfactuals(tiny, example).set_index("clip")
    run = tiny.run(example)
    follow = margin(tiny, example, run)
    assert table.loc["as is", "margin"] == follow.of(run)
    none = tiny.run(tiny.encode(None, "What moves?"))
    assert table.loc["none", "margin"] == pytest.approx(follow.of(none))
    backwards = Clip.from_array(example.clip.frames[::-1].copy(), example.clip.seconds)
    reverse = tiny.run(tiny.encode(backwards, "What moves?"))
    assert table.loc["reversed", "margin"] == pytest.approx(follow.of(reverse), abs=1e-5)
    assert table["margin"].nunique() == len(table)


def test_a_still_clip_is_the_same_in_every_order(tiny) -> None:
    still = np.full((5, 56, 56, 3), 90, np.uint8)
    x = tiny.encode(still, "What moves?", seconds=np.arange(5) / 2)
    table = counterfactuals(tiny, x).set_index("clip")["margin"]
    for name in ("reversed", "shuffled", "frozen"):
        assert table[name] == pytest.approx(table["as is"], abs=1e-5)


def test_influence_is_the_divergence_from_the_cut_run(tiny, example) -> None:
    generated = tiny.generate(example, max_new_tokens=4)
    table = influence(tiny, example, generated)
    forced = tiny.force(example, generated.meta["generated"])
    plain = log_softmax(tiny.run(forced).logits.astype(float), axis=-1)
    cut = log_softmax(
        tiny.run(forced, ablate=[Knockout("video -> all - video")]).logits.astype(float), axis=-1
    )
    expected = (np.exp(plain) * (plain - cut)).sum(-1)
    np.testing.assert_allclose(table["influence"], expected, atol=1e-6)
    assert (table["influence"] > 0).all() and (table["entropy"] > 0).all()
    assert table["token"].tolist() == generated.tokens


def test_influence_of_a_run_that_did_not_generate_is_refused(tiny, example) -> None:
    with pytest.raises(ProbeError, match="generate"):
        influence(tiny, example, tiny.run(example))
