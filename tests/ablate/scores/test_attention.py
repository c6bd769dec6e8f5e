"""Scores from decoder attention, against the dense maps that transformers itself returns."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from probe.ablate import Knockout
from probe.ablate.scores import LastQuery, Norm
from probe.ablate.scores_attention import KeyNorm, Received
from probe.ablate.scores_pivots import TextPivots
from probe.ablate.scores_text import Raters, TextQuery, TextSimilarity
from probe.capture.base import Capture
from probe.errors import ProbeError
from tests.ablate.scores.host import candidates, score
from tests.decoder import embeddings
from tests.families import masks, models

FAMILIES = ["llava_onevision", "qwen2_5_vl", "internvl", "smolvlm", "molmo2", "glm4v"]


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_attention_scores_are_rows_of_the_dense_map(name: str) -> None:
    model = models.build(name)
    x = models.example(model, answer="red")
    dense = masks.attentions(models.build(name, "eager"), x)
    video, question = x.layout.select("video"), x.layout.select("question")
    last = dense[:, :, x.layout.last][:, :, video]
    close(score(model, x, LastQuery(), site=2), last[1].mean(0))
    close(score(model, x, LastQuery(0), site=2), last[0].mean(0))
    close(score(model, x, LastQuery(2), site=2), last[2].mean(0))
    close(score(model, x, Received(), site=1), dense[0][:, :, video].mean((0, 1)))
    asked = dense[0][:, question][:, :, video]
    close(score(model, x, Received(queries="question"), site=1), asked.mean((0, 1)))
    close(score(model, x, TextQuery(), site=1), asked.mean((0, 1)))
    close(score(model, x, TextQuery(agg="max"), site=1), asked.max((0, 1)))
    best = np.sort(np.argsort(-asked.sum((1, 2)), kind="stable")[:2])
    close(score(model, x, TextQuery(heads=2), site=1), asked[best].mean((0, 1)))
    close(score(model, x, TextQuery(heads=2, agg="max"), site=1), asked[best].max((0, 1)))
    assert len(best) < model.n_heads and model.n_kv_heads < model.n_heads


@dataclass(frozen=True)
class Decoded(Capture):
    """The score of the last query in each step of decoding."""

    layer: int = 0

    def start(self, session) -> dict:
        return {"found": []}

    def attention(self, session, state, call) -> None:
        if call.layer == self.layer:
            there = session.layout.select("video")
            state["found"].append(LastQuery().read(session, call, there).numpy())

    def finish(self, session, state) -> dict:
        return {self.kind: xr.DataArray(np.stack(state["found"]), dims=["step", "token"])}


def test_after_the_prompt_the_last_query_is_the_token_being_decoded() -> None:
    model = models.build("qwen2_5_vl")
    x = models.example(model)
    run = model.generate(x, [Decoded(1)], max_new_tokens=3)
    full = model.force(x, run.meta["generated"])
    dense = masks.attentions(models.build("qwen2_5_vl", "eager"), full)
    rows = x.layout.last + np.arange(3)
    expected = dense[1][:, rows][:, :, x.layout.select("video")].mean(0)
    close(run.data.decoded.values, expected)


def test_many_queries_go_through_tiles_to_the_same_mean(monkeypatch) -> None:
    from probe.ablate import scores_attention

    model = models.build("llava_onevision")
    x = models.example(model)
    before = score(model, x, Received(), site=2)
    monkeypatch.setattr(scores_attention, "MANY", 3)
    close(score(model, x, Received(), site=2), before, 1e-6)
    monkeypatch.setattr(scores_attention, "MANY", 512)
    monkeypatch.setattr(scores_attention, "ROWS", 3)
    close(score(model, x, Received(), site=2), before, 1e-6)


def test_edits_of_attention_are_in_the_scores() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    cut = Knockout("frame 1 -> last")
    there = x.layout.group[x.layout.select("video")] == 1
    found = score(model, x, LastQuery(), site=2, also=[cut])
    assert (found[there] == 0).all() and (found[~there] > 0).all()


def test_the_token_that_the_last_one_sees_is_ranked_first() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    video, count = x.layout.select("video"), len(x.layout)
    hidden = np.zeros((model.n_layers, count, count), bool)
    hidden[1, x.layout.last, np.delete(video, 7)] = True
    hidden[2, x.layout.last, np.delete(video, 3)] = True
    with masks.masked(model, hidden):
        assert score(model, x, LastQuery(), site=2).argmax() == 7
        assert score(model, x, LastQuery(2), site=2).argmax() == 3
        assert score(model, x, TextQuery(queries="last", agg="max"), site=2).argmax() == 7


@pytest.mark.parametrize("p", [1, 2])
def test_norms_of_keys(p: int) -> None:
    model = models.build("qwen2_5_vl")
    x = models.example(model)
    keys: list[torch.Tensor] = []
    undo = model.layers[1].self_attn.k_proj.register_forward_hook(
        lambda module, args, output: keys.append(output[0])
    )
    found = score(model, x, KeyNorm(p=p), site=2)
    undo.remove()
    # Rotation leaves the length of each pair of channels as it is, but not the sum of both.
    expected = keys[0][torch.as_tensor(x.layout.select("video"))]
    if p == 2:
        close(found, expected.norm(dim=-1).detach().numpy())
    np.testing.assert_array_equal(found, score(model, x, Norm(of="key", p=p), site=2))
    np.testing.assert_array_equal(found, score(model, x, KeyNorm(1, p), site=3))
    assert found.argmax() != 0


def test_raters_are_the_text_tokens_of_more_than_average_relevance() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    video, text = x.layout.select("video"), x.layout.select("question")
    merged = embeddings(model, x)
    scores = merged[video] @ merged[text].T
    relevance = scores.softmax(-1).mean(0)
    raters = text[(relevance > relevance.mean()).numpy()]
    assert 0 < len(raters) < len(text)
    assert Raters().positions(whole(x), merged, video).tolist() == raters.tolist()
    dense = masks.attentions(models.build("llava_onevision", "eager"), x)
    asked = dense[1][:, raters][:, :, video]
    close(score(model, x, TextQuery(queries=Raters()), site=2), asked.mean((0, 1)))
    after = np.arange(x.layout.select("video + newline")[-1] + 1, len(x.layout))
    relevance = (merged[video] @ merged[after].T).softmax(-1).mean(0)
    expected = after[(relevance > relevance.mean()).numpy()]
    assert Raters("after").positions(whole(x), merged, video).tolist() == expected.tolist()


def test_raters_of_one_relevance_are_all_of_them() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    video, text = x.layout.select("video"), x.layout.select("question")
    merged = torch.randn(len(x.layout), 8, generator=torch.Generator().manual_seed(0))
    merged[text] = merged[text[0]].clone()
    assert Raters().positions(whole(x), merged, video).tolist() == text.tolist()


def test_similarity_with_the_text() -> None:
    model = models.build("qwen2_vl")
    x = models.example(model)
    merged = embeddings(model, x)
    mean = merged[x.layout.select("question")].mean(0)
    expected = torch.cosine_similarity(merged[x.layout.select("video")], mean[None])
    close(score(model, x, TextSimilarity()), expected.numpy())
    close(score(model, x, TextSimilarity(), site=2), expected.numpy())
    of_all = merged[x.layout.select("text")].mean(0)
    expected = torch.cosine_similarity(merged[x.layout.select("video")], of_all[None])
    close(score(model, x, TextSimilarity("text")), expected.numpy())


def test_text_pivots_have_the_largest_keys() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    keys: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    undo = [
        model.layers[1].self_attn.k_proj.register_forward_hook(
            lambda module, args, output: keys.append(output[0])
        ),
        model.layers[2].register_forward_pre_hook(
            lambda module, args, kwargs: inputs.append(args[0][0]), with_kwargs=True
        ),
    ]
    found = candidates(model, x, TextPivots(count=3, p=2), site=2)
    for handle in undo:
        handle.remove()
    found = candidates(model, x, TextPivots(count=3, p=2), site=2)
    text = np.arange(x.layout.select("video + newline")[-1] + 1, len(x.layout))
    order = np.argsort(-keys[0][text].norm(dim=-1).detach().numpy(), kind="stable")[:3]
    hidden = inputs[0]
    expected = torch.cosine_similarity(
        hidden[x.layout.select("video")][:, None], hidden[text[order]][None], dim=-1
    )
    close(found.readings["text_pivots"].numpy(), expected.numpy())


@pytest.mark.parametrize(
    ("one", "site", "words"),
    [
        (LastQuery(), 0, "no attention before layer 0; use at=layer"),
        (Norm(of="key"), 0, "no attention before layer 0"),
        (LastQuery(3), 2, "layer=3; a reduction before layer 2 can read layers 0 to 2"),
        (LastQuery(-1), 2, "layer=-1; a reduction before layer 2"),
        (TextQuery(agg="median"), 2, 'agg="median"; there are mean and max'),
        (TextQuery(heads=99), 2, 'heads=99; write "all", or 1 to 4'),
        (TextQuery(queries="nonsense"), 2, "nonsense"),
        (TextQuery(queries=Raters("nonsense")), 2, "nonsense"),
        (Received(queries="frame 99"), 2, "frames 0 to 4"),
        (TextPivots(count=0), 2, "count=0; there are"),
    ],
    ids=str,
)
def test_refusals_come_before_the_run(one, site: int, words: str) -> None:
    model = models.build("llava_onevision")
    with pytest.raises(ProbeError, match=words):
        candidates(model, models.example(model), one, site=site)


def whole(x) -> Any:
    """A layout, and all its positions as rows."""
    return SimpleNamespace(layout=x.layout, positions=[np.arange(len(x.layout))])


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
