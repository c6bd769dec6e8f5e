"""The checkpoint that is shipped, loaded as any other."""

import json
import logging
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from probe import testbed
from probe.testbed.accuracy import evaluate, phrases, wilson
from probe.testbed.prior import COUNTS
from probe.testbed.scene import COLORS, MOTIONS, SHAPES

FOLDER = testbed.checkpoint("onevision")


@pytest.fixture(scope="module")
def model():
    from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

    hf = LlavaOnevisionForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    return SimpleNamespace(hf=hf.eval(), processor=AutoProcessor.from_pretrained(FOLDER))


def test_it_is_small_float16_safetensors_in_the_real_classes():
    from safetensors import safe_open

    assert (FOLDER / "model.safetensors").stat().st_size <= 4_000_000
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(key).dtype) for key in sorted(file.keys())} == {"torch.float16"}
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["LlavaOnevisionForConditionalGeneration"]
    text = config["text_config"]
    assert text["model_type"] == "qwen2" and text["num_hidden_layers"] >= 6
    assert text["num_attention_heads"] == 4 and text["num_key_value_heads"] == 2
    assert config["vision_config"]["model_type"] == "siglip_vision_model"
    assert not list(FOLDER.glob("*.bin"))


def test_it_loads_without_a_warning(caplog):
    from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration
    from transformers.utils import logging as hf_logging

    hf_logging.get_logger().addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf = LlavaOnevisionForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(FOLDER)
    hf_logging.get_logger().removeHandler(caplog.handler)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert type(processor).__name__ == "LlavaOnevisionProcessor"
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


def test_template_and_video_tokens(model):
    content = [{"type": "video"}, {"type": "text", "text": "How many objects are there?"}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": content},
    ]
    apply = model.processor.apply_chat_template
    asked = "<|im_start|>user <video>\nHow many objects are there?<|im_end|><|im_start|>assistant\n"
    assert apply(messages[1:], add_generation_prompt=True, tokenize=False) == asked
    text = apply(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>" + asked
    clip = torch.zeros(5, 3, 96, 96, dtype=torch.uint8)
    inputs = model.processor(
        text=[text], videos=[clip], do_sample_frames=False, return_tensors="pt"
    )
    assert int((inputs["input_ids"] == model.hf.config.video_token_id).sum()) == 5 * 36 + 1
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


def test_it_answers_what_it_sees_and_the_prior_where_it_cannot(model):
    torch.manual_seed(0)
    neutral = evaluate(model, "neutral", n=42, frames=8, seed=11).set_index("type")
    assert neutral.loc["all", "accuracy"] >= 0.85
    assert (neutral["low"] <= neutral["accuracy"]).all()
    hidden = evaluate(model, "hidden", n=18, frames=8, seed=11).set_index("type")
    assert hidden.loc["all", "accuracy"] >= 0.6
    against = evaluate(model, "counter-prior", n=18, frames=8, seed=11).set_index("type")
    assert against.loc["all", "accuracy"] >= 0.8


def test_without_its_vision_it_cannot(model):
    """The accuracy above is not for free: with its projector at zero it falls to the prior."""
    projector = model.hf.model.multi_modal_projector.linear_2
    kept = projector.weight.data.clone()
    try:
        projector.weight.data.zero_()
        blind = evaluate(model, "counter-prior", n=18, frames=8, seed=11).set_index("type")
    finally:
        projector.weight.data.copy_(kept)
    assert blind.loc["all", "accuracy"] < 0.5


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
