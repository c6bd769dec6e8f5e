"""InstructBLIP-Video: queries instead of cells, put before the prompt and its start token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.capture import AttentionRows, Contributions
from probe.models.encode import Example
from probe.models.families.instructblipvideo import adapt
from probe.models.given import Picture
from probe.models.loading import load
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests.families.instructblipvideo import QUERIES, build
from tests.tiny import clip

SHOWN = clip(4)
QUESTION = "What moves?"


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build(seed=3)


@pytest.fixture(scope="module")
def x(model: VideoModel) -> Example:
    return model.encode(SHOWN, QUESTION, frames=None)


def test_each_frame_has_its_queries_and_no_cells(model: VideoModel, x: Example) -> None:
    layout = x.layout
    video = layout.select("video")
    assert video.tolist() == list(range(4 * QUERIES))
    assert (x.inputs["input_ids"][0, video] == model.hf.config.video_token_id).all()
    assert layout.group[video].tolist() == [n // QUERIES for n in range(4 * QUERIES)]
    assert (layout.row[video] == -1).all() and (layout.col[video] == -1).all()
    assert layout.grid is None and layout.groups == tuple(f"frame {n}" for n in range(4))
    with pytest.raises(ProbeError, match="no place in the frame"):
        layout.select("box 0,0,9,9")
    painted = layout.paint(np.arange(float(len(layout))), size=(1, 1))
    means = [np.arange(n * QUERIES, (n + 1) * QUERIES).mean() for n in range(4)]
    np.testing.assert_allclose(painted[:, 0, 0], means)


def test_the_prompt_follows_the_queries(model: VideoModel, x: Example) -> None:
    layout = x.layout
    start = 4 * QUERIES
    assert layout.tokens[start] == "<s>"
    assert "".join(layout.tokens[start + 1 :]) == f"{QUESTION}\nAnswer:"
    question = layout.select("question")
    assert "".join(layout.tokens[p] for p in question) == QUESTION
    assert question[0] == start + 1
    plain = model.processor(images=torch.as_tensor(SHOWN.frames).permute(0, 3, 1, 2), text=x.prompt)
    assert x.inputs["input_ids"][0].tolist() == plain["input_ids"][0]
    options = model.encode(SHOWN, QUESTION, frames=None, options=["red", "blue"]).layout
    assert "".join(options.tokens[p] for p in options.select("option 2")) == "B. blue"


def features(model: VideoModel, shown: Clip) -> torch.Tensor:
    """What enters the decoder, [position, width]."""
    inputs = model.encode(shown, QUESTION, frames=None).inputs
    seen: list[torch.Tensor] = []
    handle = model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    with torch.no_grad():
        model.hf(**{name: value for name, value in inputs.items() if name != "position_ids"})
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("frame", range(4))
def test_a_frame_changes_its_queries_and_no_others(
    model: VideoModel, x: Example, frame: int
) -> None:
    frames = SHOWN.frames.copy()
    frames[frame, 10:20, 30:50] ^= 255
    before, after = features(model, SHOWN), features(model, replace(SHOWN, frames=frames))
    moved = (before != after).any(1).nonzero()[:, 0].tolist()
    assert moved == x.layout.select(f"frame {frame}").tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "exactly one clip"),
        ([SHOWN, SHOWN], "exactly one clip"),
        ([SHOWN, Picture(SHOWN.frames[0])], "exactly one clip"),
        (clip(5), "4 frames"),
    ],
    ids=["no clip", "two clips", "an image", "five frames"],
)
def test_what_the_model_does_not_take_is_refused(model: VideoModel, given, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        model.encode(given, QUESTION, frames=None)


def test_the_attention_is_the_dense_map(model: VideoModel) -> None:
    x = model.encode(SHOWN, QUESTION, frames=None, answer="red")
    run = model.run(x, [AttentionRows("all"), Contributions("r")])
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    eager = build("eager", seed=3)
    maps: list[torch.Tensor] = []
    handles = [
        layer.self_attn.register_forward_hook(lambda _, __, out: maps.append(out[1][0]))
        for layer in eager.layers
    ]
    with torch.no_grad():
        logits = eager.hf(**inputs, use_cache=False).logits[0, x.layout.readout]
    for handle in handles:
        handle.remove()
    np.testing.assert_allclose(run.data.attention_rows, torch.stack(maps), rtol=0, atol=1e-5)
    np.testing.assert_allclose(run.logits, logits, rtol=0, atol=1e-5)
    assert abs(float(run.data.contributions_error)) < 1e-5


def test_generation_is_transformers_own(model: VideoModel, x: Example) -> None:
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    plain = model.hf.generate(**inputs, max_new_tokens=5, do_sample=False)[0]
    run = model.generate(x, max_new_tokens=5)
    assert run.meta["generated"] == plain[-5:].tolist()


def test_the_checkpoints_of_instructblip_load(
    model: VideoModel, x: Example, tmp_path: Path
) -> None:
    model.hf.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("instructblipvideo", "instructblip"))
    loaded = load(tmp_path)
    again = loaded.encode(SHOWN, QUESTION, frames=None)
    np.testing.assert_allclose(loaded.run(again).logits, model.run(x).logits, rtol=0, atol=1e-5)


def test_other_language_models_are_refused(model: VideoModel) -> None:
    config = type(model.hf.config)(**model.hf.config.to_dict())
    config.text_config.model_type = "t5"
    with pytest.raises(ProbeError, match=r"over t5: .*Llama"):
        adapt(model.family, config)
