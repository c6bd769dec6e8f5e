"""Cases on tiny models, a model that sees nothing, and logits from transformers alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from probe.diagnose import Case
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families import models

ANSWERS = ("red", "blue", "green")
QUICK = ("glm4v", "instructblipvideo")  # one that merges frames, one that takes a fixed number
FAMILIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in models.NAMES
]


@cache
def blind_model() -> VideoModel:
    """A model whose projector gives zeros and whose layers add nothing: it reads no video, and no
    other token.
    """
    model = tiny.build(tiny.EVEN, seed=5)
    for part in model.hf.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(part)
    for layer in model.hf.model.language_model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    return model


@cache
def zero_projector() -> VideoModel:
    """A model to which all pictures look the same."""
    model = tiny.build(tiny.EVEN, seed=5)
    for part in model.hf.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(part)
    return model


def case(model: VideoModel, frames: int = 6, **more) -> Case:
    """A clip of noise, a question, and three answers."""
    given = {"gold": "red", "answers": ANSWERS, "id": "one", "video": "noise"} | more
    shown = tiny.clip(model.family.frames or frames, 56, 56)
    return Case(model, tiny.example(model, shown, "Which colour?"), **given)


def plain_margin(model: VideoModel, x: Example, answers: tuple[str, ...] = ANSWERS) -> float:
    """log p(first) - log p(best other) from transformers' own forward pass."""
    with torch.no_grad():
        row = model.hf(**x.inputs).logits[0, -1].double().log_softmax(-1).numpy()
    ids = [model.tokenizer(answer)["input_ids"][0] for answer in answers]
    return float(row[ids[0]] - np.max(row[ids[1:]]))
