"""Maps against eager attention's dense maps and autograd on them, written out by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from probe.capture import Activations, Contributions, GradientTimesInput
from probe.diagnose import (
    AttentionMap,
    Case,
    CentreMap,
    ContributionMap,
    FindsEvidence,
    GradientMap,
    RandomMap,
    ReceivedMap,
    RelevanceMap,
    UnlikeMap,
    ValueNormMap,
    diagnose,
)
from probe.diagnose.importance.base import single
from probe.diagnose.importance.finds_evidence import MAPS
from probe.diagnose.importance.reading import answer, pair
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.tiny import dense, example

ANSWERS = ("r", "b", "g")


def case(model: VideoModel, **more) -> Case:
    return Case(model, example(model), "r", ANSWERS, **more)


@cache
def by_hand(eager: VideoModel) -> dict[str, np.ndarray]:
    """Attention, gradients of the margin by the merged embeddings and by attention, dense."""
    x = example(eager)
    seen: list[torch.Tensor] = []

    def enter(module, args, kwargs):
        merged = args[0] if args else kwargs["hidden_states"]
        seen.append(merged.detach().requires_grad_())
        return (
            ((seen[0], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": seen[0]})
        )

    hook = eager.layers[0].register_forward_pre_hook(enter, with_kwargs=True)
    out = eager.hf(**x.inputs, output_attentions=True, use_cache=False)
    hook.remove()
    row = out.logits[0, x.layout.last]
    right, *wrong = (eager.token_id(x, word, "test") for word in ANSWERS)
    margin = row[right] - torch.stack([row[i] for i in wrong]).max()
    by_input, *by_weight = torch.autograd.grad(margin, [seen[0], *out.attentions])
    rolled = torch.eye(len(x.layout), dtype=torch.float64)
    for weight, gradient in zip(out.attentions, by_weight, strict=True):
        e = (weight * gradient)[0].clamp(min=0).mean(0).double()
        rolled = rolled + e @ rolled
    return {
        "product": (by_input * seen[0])[0].sum(-1).detach().numpy(),
        "norm": by_input[0].norm(dim=-1).numpy(),
        "relevance": rolled[x.layout.last].detach().numpy(),
    }


def test_attention_is_the_last_row_of_the_dense_map(pair) -> None:
    model, eager = pair
    made = case(model)
    weights = dense(eager, made.x)[:, :, made.x.layout.last, made.video_tokens]
    for map_, expected in (
        (AttentionMap(), weights.mean((0, 1))),
        (AttentionMap(layer=2), weights[2].mean(0)),
        (AttentionMap(layer=1, head=3), weights[1, 3]),
        (AttentionMap(head=0), weights[:, 0].mean(0)),
    ):
        np.testing.assert_allclose(map_.scores(made), expected, atol=1e-6)


@pytest.mark.parametrize("queries", ["question", "text", "all", "video"])
def test_received_is_a_mean_over_rows(pair, queries: str) -> None:
    model, eager = pair
    made = case(model)
    layout, tokens = made.x.layout, made.video_tokens
    weights = dense(eager, made.x)[:, :, :, tokens].mean(1)
    rows = layout.select(queries)
    expected = weights[:, rows].mean(1)
    np.testing.assert_allclose(ReceivedMap(queries).scores(made), expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(ReceivedMap(queries, 1).scores(made), expected[1], atol=1e-6)
    seen = [
        weights[2][rows[rows >= token], number].mean() if (rows >= token).any() else 0.0
        for number, token in enumerate(tokens)
    ]
    found = ReceivedMap(queries, 2, seen=True).scores(made)
    np.testing.assert_allclose(found, seen, atol=1e-6)


def test_value_norms_are_those_of_the_vectors_that_are_added(pair) -> None:
    """What the layer adds at the last row is the sum of these vectors over tokens and heads."""
    model, eager = pair
    made = case(model)
    layout, tokens = made.x.layout, made.video_tokens
    weights = dense(eager, made.x)[:, :, layout.last]
    for layer in (0, model.n_layers - 1):
        attention = eager.layers[layer].self_attn
        entered, added = [], []
        hooks = [
            attention.register_forward_pre_hook(
                lambda m, a, k, entered=entered: entered.append(k["hidden_states"]),
                with_kwargs=True,
            ),
            attention.register_forward_hook(lambda m, a, y, added=added: added.append(y[0])),
        ]
        with torch.no_grad():
            eager.hf(**made.x.inputs, use_cache=False)
            values = attention.v_proj(entered[0])[0].unflatten(-1, (model.n_kv_heads, -1))
        for hook in hooks:
            hook.remove()
        values = values.repeat_interleave(model.n_heads // model.n_kv_heads, 1)
        matrix = attention.o_proj.weight.detach().unflatten(1, (model.n_heads, -1))
        with torch.no_grad():
            vectors = torch.einsum("nhd,whd->hnw", values, matrix)
            vectors = vectors * torch.from_numpy(weights[layer])[..., None]
        np.testing.assert_allclose(vectors.sum((0, 1)), added[0][0, layout.last], atol=1e-5)
        by_head = vectors.norm(dim=-1).numpy()[:, tokens]
        whole = vectors.sum(0).norm(dim=-1).numpy()[tokens]
        np.testing.assert_allclose(ValueNormMap(layer, 1).scores(made), by_head[1], atol=1e-5)
        np.testing.assert_allclose(ValueNormMap(layer).scores(made), whole, atol=1e-5)


def test_contributions_are_those_of_the_capture(tiny: VideoModel) -> None:
    made = case(tiny)
    rival = made.margin.versus_id
    capture = Contributions("r", versus=rival, by_position=True)
    by_token = made.model.run(made.x, [capture]).data.contributions_position
    by_token = by_token.values[:, made.video_tokens]
    np.testing.assert_allclose(ContributionMap().scores(made), by_token.sum(0), atol=1e-5)
    np.testing.assert_allclose(ContributionMap(1).scores(made), by_token[1], atol=1e-5)
    assert np.abs(by_token).max() > 0.01


def test_gradients_and_relevance_are_autograd(pair) -> None:
    model, eager = pair
    made = case(model)
    expected, tokens = by_hand(eager), made.video_tokens
    size = {name: np.abs(values[tokens]).max() for name, values in expected.items()}
    for map_, values in (
        (GradientMap("product"), expected["product"]),
        (GradientMap("absolute"), np.abs(expected["product"])),
        (GradientMap("norm"), expected["norm"]),
        (RelevanceMap(), expected["relevance"]),
    ):
        tolerance = 1e-4 * max(size.values())
        np.testing.assert_allclose(map_.scores(made), values[tokens], atol=tolerance)
    assert min(size.values()) > 1e-3


def test_without_answers_the_rival_is_the_best_other_token(tiny: VideoModel) -> None:
    made = Case(tiny, example(tiny))
    row = tiny.run(made.x).logits[0]
    first, second = (int(i) for i in np.argsort(-row)[:2])
    assert answer(made) == {"target": None, "rivals": ()}
    assert pair(torch.from_numpy(row), None, ()) == (first, second)
    capture = GradientTimesInput(first, versus=second)
    expected = tiny.run(made.x, [capture]).data.gradient_times_input.values
    found = GradientMap().scores(made)
    np.testing.assert_allclose(found, expected[made.video_tokens], atol=1e-6)


def test_one_untouched_run_serves_all_maps(tiny: VideoModel, monkeypatch) -> None:
    made = case(tiny)
    made.truth = np.zeros(len(made.x.layout), bool)
    made.truth[made.video_tokens[:3]] = True
    found = diagnose(made, [FindsEvidence()])
    assert len(made._runs) == 1
    names = [name for name in next(iter(found.values())) if name.startswith("auroc ")]
    assert len(names) == len(single(MAPS, made))


def test_controls_know_nothing_of_the_question(tiny: VideoModel) -> None:
    made, other = case(tiny), case(tiny_models.build(tiny_models.ODD, seed=3))
    assert np.ptp(CentreMap().scores(made)) == 0  # 2 x 2 cells are all as far from it
    middle = np.array([0.2, 0.6, 0.8])  # of what a token sees of 5 patches
    layout, tokens = other.x.layout, other.video_tokens
    distance = np.hypot(middle[layout.row[tokens]] - 0.5, middle[layout.col[tokens]] - 0.5)
    np.testing.assert_allclose(CentreMap().scores(other), -distance)
    one = RandomMap().scores(made)
    np.testing.assert_array_equal(one, RandomMap().scores(case(tiny)))
    for another in (RandomMap(1).scores(made), RandomMap().scores(case(tiny, seed=1))):
        assert abs(np.corrcoef(one, another)[0, 1]) < 0.9
    assert not np.array_equal(one, RandomMap().scores(case(tiny, id="b")))


def test_unlike_is_one_minus_the_cosine_with_the_frame(tiny: VideoModel) -> None:
    made = case(tiny)
    layout, tokens = made.x.layout, made.video_tokens
    x = tiny.run(made.x, [Activations("residual", "video", 0)]).data.activations.values[0]
    for number, value in enumerate(UnlikeMap().scores(made)):
        mean = x[layout.group[tokens] == layout.group[tokens[number]]].mean(0)
        cosine = x[number] @ mean / np.linalg.norm(x[number]) / np.linalg.norm(mean)
        assert value == pytest.approx(1 - cosine, abs=1e-5)


def test_a_map_is_a_diagnosis_and_is_painted(tiny: VideoModel) -> None:
    made = case(tiny)
    found = diagnose(made, [AttentionMap(layer=1)])[AttentionMap(layer=1)]["map"]
    np.testing.assert_array_equal(found.position, made.video_tokens)
    scores = AttentionMap(layer=1).scores(made)
    np.testing.assert_array_equal(found.values, scores)
    painted = AttentionMap(layer=1).painted(made)
    assert painted.shape == (5, 40, 60)
    assert painted[2, 0, 59] == scores[2 * 4 + 1]  # frame 2, first row, second column


def test_what_is_refused(tiny: VideoModel) -> None:
    made = case(tiny)
    for map_, message in (
        (AttentionMap(layer=9), "the model has layers 0 to 3"),
        (AttentionMap(layer=0, head=4), "the model has heads 0 to 3"),
        (AttentionMap(layer="each"), "one map of each"),
        (GradientMap("sum"), 'of="sum"; there are product, absolute, norm'),
    ):
        with pytest.raises(ProbeError, match=message):
            map_.scores(made)
    with pytest.raises(ProbeError, match="begin with the same token"):
        GradientMap().scores(Case(tiny, example(tiny), "red", ("red", "rose")))
    made.truth = "a square"
    with pytest.raises(ProbeError, match="neither a testbed item nor"):
        diagnose(made, [FindsEvidence(AttentionMap())])
