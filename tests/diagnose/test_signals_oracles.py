"""What a signal must give where the answer is known: uniform, planted, equal and cut models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.capture.gather import scatter
from probe.diagnose.case import Case
from probe.diagnose.signals import (
    CGC,
    NLL,
    PAS,
    SVAR,
    AttendedSupport,
    Entropy,
    GLSim,
    InternalConfidence,
    Paired,
    TokenMargin,
    given,
)
from probe.diagnose.signals.answer import Answer
from probe.diagnose.signals.rows import AnswerRows
from probe.errors import ProbeError
from probe.video import perturb
from tests import tiny as tiny_models


@pytest.fixture(scope="module")
def uniform():
    """A model whose queries are zero: every row of attention is uniform."""
    model = tiny_models.build(tiny_models.EVEN, seed=5)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    return model


class Planted(Answer):
    """An answer whose captures are given."""

    plants: dict

    def of(self, capture, name=""):
        return self.plants[capture.kind + (f"_{name}" if name else "")]


def planted(tiny, text: str = "left", **plants) -> Planted:
    case = Case(tiny, tiny_models.example(tiny))
    found = Planted(case, given(case, text).ids)
    found.plants = plants
    return found


# -- attention -----------------------------------------------------------------------------


def test_uniform_attention_gives_the_closed_forms(uniform) -> None:
    answer = given(Case(uniform, tiny_models.example(uniform)), "abcdef")
    m, k = len(answer.case.x.layout), np.arange(1, 7)
    at_q = PAS().scores(answer)["pas"]
    np.testing.assert_allclose(at_q, (k - 1) / (m + k - 1), atol=1e-6)
    itself = PAS("self").scores(answer)["pas"]
    np.testing.assert_allclose(itself, (k - 1) / (m + k), atol=1e-6)
    found = SVAR().scores(answer)
    expected = len(answer.video) / (m + k - 1)
    np.testing.assert_allclose(found["svar_mean"], expected, atol=1e-6)
    np.testing.assert_allclose(found["svar_log_ratio"], 0, atol=1e-5)
    np.testing.assert_allclose(found["svar_frame_entropy"], 1, atol=1e-6)
    backwards = perturb.reverse(tiny_models.clip())
    other = given(Case(uniform, tiny_models.example(uniform, backwards)), "abcdef")
    np.testing.assert_allclose(SVAR().scores(other)["svar"], found["svar"], atol=1e-6)


def test_attention_on_the_first_token_alone_is_no_visual_mass(tiny) -> None:
    import xarray as xr

    case = Case(tiny, tiny_models.example(tiny))
    rows = np.zeros((1, 4, len(case.x.layout) + 4), np.float32)
    rows[:, :, 0] = 1
    array = xr.DataArray(rows, dims=["layer", "token", "position"], coords={"layer": [0]})
    found = PAS().scores(planted(tiny, answer_rows=array))
    assert (found["mass_bos"] == 1).all() and (found["pas"] == 0).all()
    assert (found["mass_visual"] == 0).all()


def test_a_layer_that_forgets_is_refused(tiny) -> None:
    class Call:
        layer, heads = 0, 1
        positions = key_positions = np.arange(6)

        def index(self, positions):
            return torch.as_tensor(positions)

        def hidden(self, rows):  # a window of three
            keys = torch.arange(6)
            return (keys[None] > rows[:, None]) | (keys[None] <= rows[:, None] - 3)

        def weights(self, rows):
            return torch.as_tensor(scatter(np.ones((1, len(rows), 6)) / 6, np.arange(6), 6))

    rows = AnswerRows([5])
    state = {"layers": (0,)}
    with pytest.raises(ProbeError, match="layer 0 does not see all earlier tokens"):
        rows.attention(None, state, Call())  # type: ignore[arg-type]


def test_default_layers_of_svar_are_the_papers_at_its_depth() -> None:
    from probe.diagnose.signals.attended import share_of_depth

    assert share_of_depth(32, 5 / 32, 19 / 32) == tuple(range(5, 19))
    assert share_of_depth(32, 20 / 32, 28 / 32) == tuple(range(20, 28))
    assert share_of_depth(6, 5 / 32, 19 / 32) == (1, 2, 3)
    assert share_of_depth(1, 20 / 32, 28 / 32) == (0,)


# -- visual states -------------------------------------------------------------------------


def test_a_visual_token_that_says_the_word_has_confidence_1() -> None:
    model = tiny_models.build(tiny_models.EVEN, seed=6)
    case = Case(model, tiny_models.example(model))
    answer = given(case, "k")
    word = answer.words[0]
    last = model.hf.model.multi_modal_projector.linear_2
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(1e3 * model.head.weight[word.ids[0]])
    found = InternalConfidence().scores(answer)
    assert found["ic"][0] == pytest.approx(1, abs=1e-6)
    assert InternalConfidence(top=50).scores(given(case, "k"))["ic"][0] == pytest.approx(1)


def test_a_model_of_zeros_knows_nothing() -> None:
    model = tiny_models.build(tiny_models.EVEN, seed=6)
    with torch.no_grad():
        for parameter in model.hf.parameters():
            parameter.zero_()
    answer = given(Case(model, tiny_models.example(model)), "no")
    vocabulary = model.head.weight.shape[0]
    assert InternalConfidence().scores(answer)["ic"][0] == pytest.approx(1 / vocabulary)
    np.testing.assert_allclose(NLL().scores(answer)["nll"], np.log(vocabulary), rtol=1e-6)
    entropy = Entropy(normalised=True).scores(answer)["entropy"]
    np.testing.assert_allclose(entropy, 1, rtol=1e-6)
    np.testing.assert_allclose(TokenMargin().scores(answer)["margin"], 0, atol=1e-6)
    assert np.allclose(Paired(["none", "wrong"]).scores(answer)["pdm_wrong"], 0)


def lens_plants(tiny, said: str) -> Planted:
    """Every visual token says one letter at every state; attention is even."""
    import xarray as xr

    made = planted(tiny, "z")
    video, states = made.video, tiny.n_layers + 1
    letter = tiny.tokenizer(said)["input_ids"][0]
    size = len(made.case.x.layout) + 1
    made.plants = {
        "answer_rows": xr.DataArray(
            np.full((len(AttendedSupport().stage(made)), 1, size), 1 / size),
            dims=["layer", "token", "position"]
        ),
        "visual_lens_best": xr.DataArray(
            np.full((states, len(video)), letter), dims=["state", "position"],
            coords={"state": np.arange(states)},
        ),
    }  # fmt: skip
    return made


def test_support_is_whole_where_cells_say_the_word_and_none_where_they_say_another(tiny) -> None:
    assert AttendedSupport().scores(lens_plants(tiny, "z"))["llcc"][0] == 1
    assert AttendedSupport().scores(lens_plants(tiny, "a"))["llcc"][0] == 0
    assert np.isnan(AttendedSupport(gate=1.01).scores(lens_plants(tiny, "z"))["llcc"][0])


@pytest.mark.parametrize(("cosine", "expected"), [(1.0, 1.0), (0.0, 0.0)])
def test_similarity_of_equal_and_of_orthogonal_states(tiny, cosine, expected) -> None:
    import xarray as xr

    made = planted(tiny, "z")
    last, keys = tiny.n_layers, [*made.video, made.case.x.layout.last]
    pairs = [f"{last} {last - 1}", *(f"{s} {s}" for s in range(1, last + 1))]
    values = np.full((len(pairs), 1, len(keys)), cosine)
    lens = np.random.default_rng(0).normal(size=(last + 1, len(made.video), len(made.columns)))
    made.plants = {
        "visual_cosines": xr.DataArray(
            values, dims=["pair", "token", "position"], coords={"pair": pairs}
        ),
        "visual_lens": xr.DataArray(
            lens, dims=["state", "position", "id"],
            coords={"state": np.arange(last + 1), "id": list(made.columns)},
        ),
    }  # fmt: skip
    assert GLSim().scores(made)["glsim"][0] == pytest.approx(expected)
    assert CGC().scores(made)["cgc"][0] == pytest.approx(expected)
    few = max(1, round(0.05 * len(made.video)))
    made.plants["visual_cosines"].values[:, :, :few] = 1  # the query copied into 5 % of cells
    assert CGC().scores(made)["cgc"][0] == pytest.approx(1)
