"""Relevance against dense maps and their gradients by autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.ablate.scores_relevance import Relevance
from probe.errors import ProbeError
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests import snapshot
from tests.ablate.scores.host import candidates, score
from tests.families import models


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "internvl", "smolvlm", "molmo2"])
def test_relevance_is_the_rollout_of_dense_gradients(name: str, monkeypatch) -> None:
    from probe.ablate import scores_relevance

    monkeypatch.setattr(scores_relevance, "TILE", 4096)
    model = models.build(name)
    x = models.example(model)
    model.run(x)
    before = snapshot.snapshot(model.hf)
    found = Relevance().ahead(model, x)
    named = Relevance(7).ahead(model, x)
    snapshot.same(before, snapshot.snapshot(model.hf))
    close(found, dense(models.build(name, "eager"), x, None))
    close(named, dense(models.build(name, "eager"), x, 7))
    assert np.abs(found - named).max() > 1e-3 * found.max()
    video = x.layout.select("video")
    np.testing.assert_allclose(score(model, x, Relevance(), site=1), found[video], rtol=1e-6)
    assert found[video].max() > 0


def test_relevance_of_an_answered_example_is_that_of_its_prompt() -> None:
    model = models.build("llava_onevision")
    x, answered = models.example(model), models.example(model, answer="red")
    found = Relevance().ahead(model, answered)
    np.testing.assert_allclose(found[: len(x.layout)], Relevance().ahead(model, x), rtol=1e-4)
    assert (found[len(x.layout) :] == 0).all()


def test_a_target_of_several_tokens_is_refused() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    with pytest.raises(ProbeError, match="relevance: 'several words' is"):
        candidates(model, x, Relevance("several words"))


def dense(eager: VideoModel, x: Example, target: int | None) -> np.ndarray:
    """R of Chefer et al. by the whole matrix, from the maps that transformers returns."""
    with torch.enable_grad():
        out = eager.hf(**x.inputs, output_attentions=True, use_cache=False)
        maps = getattr(out, "language_model_outputs", out).attentions
        row = out.logits[0, x.layout.last]
        goal = row[int(row.argmax()) if target is None else target]
        gradients = torch.autograd.grad(goal, maps)
    r = torch.eye(len(x.layout), dtype=torch.float64)
    for a, g in zip(maps, gradients, strict=True):
        r = r + (a[0].double() * g[0].double()).clamp(min=0).mean(0) @ r
    return r[x.layout.last].detach().numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
