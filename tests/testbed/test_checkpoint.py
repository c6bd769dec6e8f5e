"""The checkpoints that are shipped, loaded as any other, and held to their cards."""

import json
import logging
import re
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

import probe
from probe import testbed
from probe.models.processing import metadata
from probe.testbed.accuracy import evaluate, phrases, wilson
from probe.testbed.prior import COUNTS
from probe.testbed.scene import COLORS, MOTIONS, SHAPES
from probe.video import Clip

ASKED = "How many objects are there?"


@dataclass(frozen=True)
class Shipped:
    """What a checkpoint is expected to be."""

    name: str
    model: str
    processor: str
    text: str
    vision: str
    asked: str
    system: str
    visual: int
    projector: str

    @property
    def folder(self):
        return testbed.checkpoint(self.name)


SHIPPED = (
    Shipped(
        name="onevision",
        model="LlavaOnevisionForConditionalGeneration",
        processor="LlavaOnevisionProcessor",
        text="qwen2",
        vision="siglip_vision_model",
        asked=f"<|im_start|>user <video>\n{ASKED}<|im_end|><|im_start|>assistant\n",
        system="<|im_start|>system\nBe brief.<|im_end|>",
        visual=5 * 36 + 1,
        projector="model.multi_modal_projector.linear_2",
    ),
    Shipped(
        name="qwen",
        model="Qwen2_5_VLForConditionalGeneration",
        processor="Qwen2_5_VLProcessor",
        text="qwen2_5_vl_text",
        vision="qwen2_5_vl_vision",
        asked="<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>"
        f"{ASKED}<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\nBe brief.<|im_end|>\n",
        visual=3 * 36,
        projector="model.visual.merger.mlp.2",
    ),
)


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda shipped: shipped.name)
def shipped(request):
    return request.param


@pytest.fixture(scope="module")
def model(shipped):
    hf = getattr(transformers, shipped.model).from_pretrained(shipped.folder, dtype=torch.float32)
    processor = transformers.AutoProcessor.from_pretrained(shipped.folder)
    return SimpleNamespace(hf=hf.eval(), processor=processor)


def test_every_checkpoint_is_tested_here():
    assert set(testbed.names()) == {shipped.name for shipped in SHIPPED}


def test_it_is_small_float16_safetensors_in_the_real_classes(shipped):
    from safetensors import safe_open

    assert (shipped.folder / "model.safetensors").stat().st_size <= 4_000_000
    with safe_open(shipped.folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(key).dtype) for key in sorted(file.keys())} == {"torch.float16"}
    config = json.loads((shipped.folder / "config.json").read_text())
    assert config["architectures"] == [shipped.model]
    text = config["text_config"]
    assert text["model_type"] == shipped.text and text["num_hidden_layers"] >= 6
    assert text["num_attention_heads"] == 4 and text["num_key_value_heads"] == 2
    assert config["vision_config"]["model_type"] == shipped.vision
    assert not list(shipped.folder.glob("*.bin"))


def test_it_loads_without_a_warning(shipped, caplog):
    from transformers.utils import logging as hf_logging

    hf_logging.get_logger().addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind = getattr(transformers, shipped.model)
        hf = kind.from_pretrained(shipped.folder, dtype=torch.float32)
        processor = transformers.AutoProcessor.from_pretrained(shipped.folder)
    hf_logging.get_logger().removeHandler(caplog.handler)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert type(processor).__name__ == shipped.processor
    assert hf.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert hf.lm_head.weight is hf.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(
    "text",
    ["What color is the circle?", "żółć 漢字 🙂", "a  b\n\t\x00", "A. red\nB. blue", "1234 çirčle"],
)
def test_any_text_round_trips(model, text):
    tokenizer = model.processor.tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_answer_word_is_one_token(model):
    tokenizer = model.processor.tokenizer
    for word in (*COLORS, *SHAPES, *MOTIONS, *COUNTS, "yes", "no"):
        for form in (word, f" {word}"):
            assert len(tokenizer(form)["input_ids"]) == 1


def test_template_and_video_tokens(shipped, model):
    content = [{"type": "video"}, {"type": "text", "text": ASKED}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": content},
    ]
    apply = model.processor.apply_chat_template
    assert apply(messages[1:], add_generation_prompt=True, tokenize=False) == shipped.asked
    text = apply(messages, add_generation_prompt=True, tokenize=False)
    assert text == shipped.system + shipped.asked
    clip = Clip.from_array(np.zeros((5, 96, 96, 3), np.uint8), fps=2.0)
    inputs = model.processor(
        text=[text],
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
        video_metadata=[metadata(clip)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    visual = int((inputs["input_ids"] == model.hf.config.video_token_id).sum())
    assert visual == shipped.visual
    with torch.no_grad():
        assert torch.isfinite(model.hf(**inputs).logits).all()


def test_a_single_image_goes_through_too(model):
    content = [{"type": "image"}, {"type": "text", "text": "What shape is red?"}]
    text = model.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    inputs = model.processor(text=[text], images=[image], return_tensors="pt")
    with torch.no_grad():
        assert torch.isfinite(model.hf(**inputs).logits).all()


def test_it_says_the_prior_where_it_cannot_see(model):
    hidden = evaluate(model, "hidden", n=18, frames=8, seed=11).set_index("type")
    assert hidden.loc["all", "accuracy"] >= 0.6


@pytest.mark.parametrize(
    ("title", "split", "n"),
    [("Neutral items, 16", "neutral", 42), ("The counter-prior split", "counter-prior", 24)],
)
def test_it_keeps_what_its_card_says(shipped, model, title, split, n):
    """The first of the card's own items, right as often as chance allows for."""
    card = (shipped.folder / "MODEL_CARD.md").read_text()
    section = card.split(f"### {title}")[1].split("###")[0]
    share = float(re.findall(r"\| all \| \d+ \| ([\d.]+)", section)[0])
    found = evaluate(model, split, n=n, frames=16, seed=0).set_index("type")
    spread = np.sqrt(share * (1 - share) / n)
    assert found.loc["all", "accuracy"] >= share - 3.5 * spread - 0.5 / n


def test_without_its_vision_it_cannot(shipped, model):
    """The accuracy above is not for free: with its projector at zero it falls to the prior."""
    projector = model.hf.get_submodule(shipped.projector)
    kept = projector.weight.data.clone()
    try:
        projector.weight.data.zero_()
        blind = evaluate(model, "counter-prior", n=18, frames=8, seed=11).set_index("type")
    finally:
        projector.weight.data.copy_(kept)
    assert blind.loc["all", "accuracy"] < 0.5


def test_it_is_asked_with_the_positions_that_probe_gives_it(shipped, model):
    """`evaluate` and `probe` tell the processor the same times, so positions are the same."""
    item = testbed.items(n=1, seed=3)[0]
    clip = Clip.from_array(item.frames()[::3], fps=8 / 3)
    wrapped = probe.load((model.hf, model.processor))
    x = wrapped.encode(clip, item.question.text)
    inputs = model.processor(
        text=[x.prompt],
        videos=[torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2)],
        video_metadata=[metadata(clip)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert torch.equal(inputs["input_ids"], x.inputs["input_ids"])
    with torch.no_grad():
        assert torch.allclose(model.hf(**inputs).logits, model.hf(**x.inputs).logits, atol=1e-5)


def test_captions_are_compared_as_sets_of_phrases():
    first = phrases("a red circle moves left and a blue square stays")
    assert first == phrases("a blue square stays and a red circle moves left")
    assert first == [("blue", "square", "stays"), ("red", "circle", "left")]
    assert first != phrases("a red circle moves right and a blue square stays")


def test_wilson_interval_against_its_definition():
    for right, count in ((0, 20), (13, 20), (20, 20), (970, 1000)):
        low, high = wilson(right, count)
        assert 0 <= low <= right / count <= high <= 1
        for bound in (low, high):
            if 0 < bound < 1:
                spread = 1.96 * np.sqrt(bound * (1 - bound) / count)
                assert abs(right / count - bound) == pytest.approx(spread, rel=1e-6)
