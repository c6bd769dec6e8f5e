"""Methods inside the decoder against a plain loop over its layers, with dense attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from probe.ablate.recipes.attention_pruning import pyramiddrop, sparsevlm
from probe.ablate.recipes.token_merging import framefusion
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.recipes.peers import cos, nearest, peaks, top
from tests.decoder import embeddings
from tests.tiny import example

FRAMES = 9


class Loop:
    """The decoder of transformers, layer by layer.

    Attributes:
        h: [row, channel].
        ids: position ids of the rows.
        visual: whether a row is a visual token.
        place, frame: of visual rows; -1 elsewhere.
        counts: visual rows in each layer's attention.
    """

    def __init__(self, model: VideoModel, x: Example) -> None:
        self.model = model
        self.h = embeddings(model, x).float()
        self.ids = torch.arange(len(self.h))
        self.visual = np.isin(np.arange(len(self.h)), x.layout.select("video"))
        cells = x.layout.row * 99 + x.layout.col
        self.place = np.where(self.visual, cells, -1)
        self.counts: list[int] = []

    def attend(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention adds, and its weights [head, row, key]."""
        layer = self.model.layers[number]
        tables = self.model.decoder.rotary_emb(self.h[None], self.ids[None])
        mask = torch.full((len(self.h), len(self.h)), -torch.inf).triu(1)[None, None]
        normed = layer.input_layernorm(self.h)[None]
        out, weights = layer.self_attn(normed, position_embeddings=tables, attention_mask=mask)
        return out[0], weights[0]

    def reduce(self, rows: dict[int, dict[int, float]], reindex: bool = True) -> None:
        """Visual rows become these, by anchor {row: weight}; text stays."""
        rows = rows | {i: {i: 1.0} for i in np.flatnonzero(~self.visual).tolist()}
        anchors = sorted(rows)
        self.h = torch.stack(
            [sum((v * self.h[i] for i, v in rows[a].items()), torch.zeros(())) for a in anchors]
        )
        self.ids = torch.arange(len(anchors)) if reindex else self.ids[anchors]
        self.visual, self.place = self.visual[anchors], self.place[anchors]

    @torch.no_grad()
    def run(self, before: Callable[[int], None], middle: Callable[..., None] | None = None) -> Any:
        """Logits of the last row; `before` a layer, and in the `middle` with its weights."""
        for number in range(self.model.n_layers):
            before(number)
            out, weights = self.attend(number)
            self.counts.append(int(self.visual.sum()))
            self.h = self.h + out
            if middle is not None and number < self.model.n_layers - 1:
                middle(number, weights)
            layer = self.model.layers[number]
            self.h = self.h + layer.mlp(layer.post_attention_layernorm(self.h))
        return self.model.hf.lm_head(self.model.decoder.norm(self.h[-1])).numpy()


def units(kept: list[int]) -> dict[int, dict[int, float]]:
    return {i: {i: 1.0} for i in kept}


def agree(model: VideoModel, x: Example, one: Any, loop: Loop, logits: np.ndarray) -> None:
    run = model.run(x, ablate=one)
    text = len(x.layout) - len(x.layout.select("video"))
    assert [length - text for length in run.cost.length] == loop.counts
    np.testing.assert_allclose(run.logits[-1], logits, rtol=0, atol=2e-5)
    assert loop.counts[-1] < len(x.layout) - text


def test_pyramiddrop(pair) -> None:
    model, eager = pair
    x = example(model, FRAMES)
    loop, stages = Loop(eager, x), {1: 0.5, 2: 0.2}
    size = int(loop.visual.sum())

    def before(number: int) -> None:
        if number in stages:
            seen = loop.attend(number)[1][:, -1].mean(0)
            visual = np.flatnonzero(loop.visual).tolist()
            loop.reduce(units(top(visual, seen.tolist(), int(size * stages[number]))))

    logits = loop.run(before)
    agree(model, x, pyramiddrop(list(stages), list(stages.values())), loop, logits)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_sparsevlm(pair, variant: str) -> None:
    model, eager = pair
    x = example(model, FRAMES)
    loop, stages = Loop(eager, x), {1: 300, 2: 110}
    size, text = int(loop.visual.sum()), x.layout.select("question")
    likeness = loop.h[x.layout.select("video")] @ loop.h[text].T
    relevance = likeness.softmax(-1).mean(0)
    raters = text[(relevance > relevance.mean()).numpy()]
    assert 0 < len(raters) < len(text)

    def before(number: int) -> None:
        if number not in stages:
            return
        gone = len(x.layout) - len(loop.h)
        seen = loop.attend(number)[1][:, raters - gone]
        visual = np.flatnonzero(loop.visual).tolist()
        by_head = seen[:, :, visual].mean(1)
        if variant == "v2":
            order = np.argsort(-by_head.sum(1).numpy(), kind="stable")
            seen = seen[order[: len(order) // 2]]
        score = seen.mean((0, 1)).tolist()
        kept = top(visual, score, round(size * stages[number] / 576))
        if variant == "v2":
            loop.reduce(units(kept), reindex=False)
            return
        others = [i for i in visual if i not in kept]
        some = sorted(top(others, score, int(len(others) * 0.3) + 1))
        count, features = int(len(some) / 10) + 1, loop.h.double().numpy()
        joined = {centre: [centre] for centre in peaks(features, some, count, count)}
        for i in some:
            if i not in joined:
                joined[nearest(features, i, list(joined))].append(i)
        loop.reduce(units(kept) | {c: dict.fromkeys(g, 1 / len(g)) for c, g in joined.items()})

    logits = loop.run(before)
    one = sparsevlm(192, variant, list(stages), list(stages.values()))
    agree(model, x, one, loop, logits)


@pytest.mark.parametrize(("cost", "tau"), [(0.6, 1.1), (0.7, 0.3), (0.8, 0.6), (0.5, -0.2)])
def test_framefusion(pair, cost: float, tau: float) -> None:
    model, eager = pair
    x = example(model, FRAMES)
    loop, layers = Loop(eager, x), model.n_layers
    size = int(loop.visual.sum())
    left = [size]  # before the language model, behind the first site, behind the second, ...
    ended: list[int] = []

    def merge(spent: list[int]) -> None:
        visual, h = np.flatnonzero(loop.visual).tolist(), loop.h.double().numpy()
        budget = (cost * layers * size - sum(spent)) / (layers - len(spent))
        most = int((1 - min(1.0, budget / len(visual))) * len(visual) + 1e-9)
        earlier, previous = {}, {}
        for i in visual:
            if loop.place[i] in earlier:
                previous[i] = earlier[loop.place[i]]
            earlier[loop.place[i]] = i
        alike = {i: cos(h[i], h[j]) for i, j in previous.items()}
        joins = sorted((i for i in alike if alike[i] >= tau), key=lambda i: (-alike[i], i))[:most]
        first, runs = {}, {}
        for i in visual:
            first[i] = first[previous[i]] if i in joins else i
            runs.setdefault(first[i], []).append(i)
        loop.reduce({s: dict.fromkeys(run, 1 / len(run)) for s, run in runs.items()}, False)

    def site(spent: list[int], weights: torch.Tensor | None) -> None:
        if not ended:
            merge(spent)
        elif len(ended) == 1 and weights is not None:
            visual = np.flatnonzero(loop.visual).tolist()
            budget = (cost * layers * size - sum(spent)) / (layers - len(spent))
            count = round(min(1.0, budget / len(visual)) * len(visual))
            score = weights[:, -1].mean(0).tolist()
            loop.reduce(units(sorted(top(visual, score, count))), False)
        left.append(int(loop.visual.sum()))
        if ended or 1 - left[-1] / left[-2] < 0.1:
            ended.append(len(left))

    def before(number: int) -> None:
        if number == 0:
            site([], None)

    def middle(number: int, weights: torch.Tensor) -> None:
        site(loop.counts[: number + 1], weights)

    logits = loop.run(before, middle)
    agree(model, x, framefusion(cost, tau, layers=layers), loop, logits)
