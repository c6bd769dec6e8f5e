"""What a signal must give where the answer is known: uniform, planted, equal and cut models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from probe.ablate import Knockout
from probe.capture.gather import scatter
from probe.diagnose import influence
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
    OptionMargin,
    Paired,
    SampledAgreement,
    Signal,
    TokenIndex,
    TokenMargin,
    VideoInfluence,
    given,
    own,
)
from probe.diagnose.signals.answer import Answer
from probe.diagnose.signals.paired import CLIPS, hellinger
from probe.diagnose.signals.rows import AnswerRows
from probe.diagnose.signals.semantic import clusters
from probe.diagnose.signals.words import lemma, words_of
from probe.errors import ProbeError
from probe.video import perturb
from tests import tiny as tiny_models
from tests.families import models

FIRST = ("instructblipvideo", "llava_onevision", "qwen3_vl")
NAMES = [
    name
    if name in ("instructblipvideo", "qwen3_vl")
    else pytest.param(name, marks=pytest.mark.full)
    for name in models.NAMES
]


@pytest.fixture(scope="module")
def uniform():
    """A model whose queries are zero: every row of attention is uniform."""
    model = tiny_models.build(tiny_models.EVEN, seed=5)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    return model


@pytest.fixture(scope="module")
def answer(tiny) -> Answer:
    return given(Case(tiny, tiny_models.example(tiny)), "left, Xq")


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


# -- pairs of runs -------------------------------------------------------------------------


def test_distance_of_distributions() -> None:
    rng = np.random.default_rng(0)
    p, q = log_softmax(rng.normal(size=(2, 3, 9)), -1)
    one, two = np.full((2, 1, 4), -np.inf)
    one[0, 1], two[0, 3] = 0, 0
    assert hellinger(one, two)[0] == pytest.approx(1) and (hellinger(p, p) == 0).all()
    np.testing.assert_allclose(hellinger(p, q), hellinger(q, p))
    expected = np.linalg.norm(np.sqrt(np.exp(p)) - np.sqrt(np.exp(q)), axis=-1) / np.sqrt(2)
    np.testing.assert_allclose(hellinger(p, q), expected)


def test_the_same_clip_changes_nothing_and_another_one_does(tiny) -> None:
    still = perturb.freeze(tiny_models.clip())
    same = given(Case(tiny, tiny_models.example(tiny, still)), "left")
    found = Paired(["mean", "frozen", "shuffled", "reversed", "wrong"]).scores(same)
    for clip in ("mean", "frozen", "shuffled", "reversed"):
        for name in ("pdm", "pmi", "contrast"):
            np.testing.assert_allclose(found[f"{name}_{clip}"], 0, atol=1e-3)
    assert (found["pdm_wrong"] > 0.01).all()


def test_mutual_information_sums_to_the_likelihood_ratio(tiny, tiny_eager, answer) -> None:
    found = Paired(["none", "reversed"]).scores(answer)
    moved = tiny_models.clip()
    clips = {"reversed": perturb.reverse(moved), "none": None}

    def likelihood(clip) -> float:
        x = tiny_eager.force(tiny_models.example(tiny_eager, clip), answer.ids)
        with torch.no_grad():
            logits = tiny_eager.hf(**x.inputs).logits[0].double().numpy()
        log_p = log_softmax(logits[x.layout.readout], -1)
        return log_p[np.arange(len(answer.ids)), list(answer.ids)].sum()

    for name, clip in clips.items():
        ratio = likelihood(moved) - likelihood(clip)
        assert found[f"pmi_{name}"].sum() == pytest.approx(ratio, abs=1e-3)
    best = answer.log_p.copy()
    best[np.arange(len(best)), answer.targets] = -np.inf
    rival = best.argmax(-1)
    gain = answer.log_p - answer.under("none")
    contrast = [gain[k, t] - gain[k, rival[k]] for k, t in enumerate(answer.targets)]
    np.testing.assert_allclose(found["contrast_none"], contrast)


@pytest.mark.parametrize("name", NAMES)
def test_cutting_the_clip_is_the_knockout_in_every_family(name) -> None:
    from probe.diagnose.signals import HallucinationSignals

    model = models.build(name)
    case = Case(model, models.example(model), gold="left")
    answer = given(case, "left")
    run = model.run(answer.x, ablate=[Knockout("video -> all - video")])
    expected = log_softmax(run.logits.astype(float), -1)
    np.testing.assert_allclose(answer.under("cut"), expected, atol=2e-4)
    values = HallucinationSignals(("cut", "mean"), answer="left").measure(case)
    scalars = {k: v for k, v in values.items() if isinstance(v, float)}
    never = {"svar_nosink", "sink_share", "sinks_first", "hidden", "hallucinated"}
    never |= {"option_margin", "option_entropy"}
    assert {k for k, v in scalars.items() if np.isnan(v)} <= never
    assert values["tokens"].sizes["token"] == 4


def test_influence_is_that_of_the_report(tiny) -> None:
    x = tiny_models.example(tiny)
    generated = tiny.generate(x, max_new_tokens=4)
    ids = generated.meta["generated"]
    found = VideoInfluence().scores(Answer(Case(tiny, x), tuple(ids)))["influence"]
    np.testing.assert_allclose(found, influence(tiny, x, generated)["influence"], atol=1e-5)


def test_one_frame_has_one_order_and_an_unknown_clip_is_refused(tiny) -> None:
    answer = given(Case(tiny, tiny_models.example(tiny, 1)), "left")
    found = Paired(["shuffled", "wrong"]).scores(answer)
    assert np.isnan(found["pdm_shuffled"]).all() and not np.isnan(found["pdm_wrong"]).any()
    assert "shuffled" in CLIPS
    with pytest.raises(ProbeError, match="upside"):
        Paired(["upside"]).scores(answer)


# -- answers and words ---------------------------------------------------------------------


def test_the_guess_is_verified_and_equals_generation() -> None:
    from probe import load, testbed
    from probe.diagnose.testbed import case_of

    model = load("testbed/qwen")
    items = [
        *testbed.items("neutral", n=5, seed=77)[4:],
        *testbed.items("hidden", n=6, seed=77)[5:],
    ]
    missed = 0
    for item in items:
        case = case_of(model, item)
        answer = own(case)
        missed += "generated" in vars(case)
        assert list(answer.ids) == model.generate(case.x).meta["generated"]
        assert answer.text == model.generate(case.x).text
        assert answer.ids[-1] in model.tokenizer.all_special_ids
        assert len(answer.scored) == len(answer.ids) - 1
    assert 0 < missed < len(items)


def test_words_are_found_by_their_characters(tiny) -> None:
    words = words_of(tiny.tokenizer, tiny.tokenizer("a red-ish cat’s  cats")["input_ids"])
    assert [word.text for word in words] == ["a", "red-ish", "cat’s", "cats"]
    assert [word.content for word in words] == [False, True, True, True]
    assert words[3].lemma == "cat" and len(words[2].tokens) == len("cat’s".encode())
    assert [lemma(w) for w in ("Boxes", "glass", "bus", "dogs", "is")] == [
        "box", "glass", "bus", "dog", "is",
    ]  # fmt: skip


def test_summaries_are_over_content_words(tiny) -> None:
    answer = given(Case(tiny, tiny_models.example(tiny)), "a cat of men")
    index = TokenIndex()
    assert index.words(answer)["index"].tolist() == [0, 2, 6, 9]
    assert index.summary(answer) == {"index": 5.5}
    assert index.summary(answer, "worst") == {"index": 9.0}
    assert TokenMargin().summary(answer, "worst")["margin"] == pytest.approx(
        min(TokenMargin().scores(answer)["margin"][[2, 9]])
    )
    assert answer.content.sum() == 6
    with pytest.raises(ProbeError, match="best"):
        index.summary(answer, "best")


def test_option_margin_is_among_first_tokens_of_options(tiny) -> None:
    case = Case(tiny, tiny_models.example(tiny), gold="up", answers=("up", "no", "yes"))
    answer = given(case, "up")
    ids = [case.first(option) for option in case.answers]
    p = np.exp(answer.log_p[0, ids])
    p = np.sort(p / p.sum())[::-1]
    found = OptionMargin().scores(answer)
    assert found["option_margin"][0] == pytest.approx(p[0] - p[1])
    assert found["option_entropy"][0] == pytest.approx(-(p * np.log(p)).sum() / np.log(3))
    assert np.isnan(found["option_margin"][1:]).all()


# -- sampled answers -----------------------------------------------------------------------


def test_entropy_over_clusters() -> None:
    same = [-1.0] * 10
    name = "semantic_entropy_exact"
    assert clusters(["red"] * 10, same)[name] == 0
    assert clusters([str(n) for n in range(10)], same)[name] == pytest.approx(2.3026, abs=1e-4)
    mixed = clusters(["a"] * 5 + ["b"] * 3 + ["c"] * 2, same)
    assert mixed[name] == pytest.approx(1.0297, abs=1e-4)
    assert mixed["semantic_entropy_weighted"] == pytest.approx(mixed[name])
    assert mixed["self_inconsistency"] == 0.5


def test_samples_of_a_model_that_is_sure_agree(tiny) -> None:
    answer = given(Case(tiny, tiny_models.example(tiny)), "up")
    cold = SampledAgreement(samples=3, temperature=1e-3, most=3).scores(answer)
    hot = SampledAgreement(samples=3, temperature=50.0, most=3).scores(answer)
    assert cold["semantic_entropy_exact"].tolist() == [0, 0]
    assert hot["semantic_entropy_exact"][0] > 0 and hot["self_inconsistency"][0] >= 1 / 3


def test_every_signal_says_its_sign_and_reads_back_from_json() -> None:
    from probe.diagnose import signals
    from probe.spec import from_json

    known = {name: getattr(signals, name) for name in signals.SIGNALS}
    for made in (cls() for cls in known.values()):
        assert isinstance(made, Signal) and made.sign in ("H+", "H-")
        assert from_json(made.to_json(), known) == made
