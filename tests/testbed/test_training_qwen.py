"""What testbed/qwen takes over from testbed/onevision, and where its tokens stand."""

import numpy as np
import torch

from probe.testbed.drawing import render
from probe.testbed.training_clips import training_scene
from probe.testbed.training_model import recipe_of
from probe.testbed.training_qwen import Teacher, seconds_per_group, teacher
from probe.testbed.training_vision import pixels


def test_qwen_starts_from_the_decoder_of_onevision():
    """Same rotary tables and same embeddings in: the two decoders say the same of text."""
    recipe, other = recipe_of("qwen"), teacher()
    model, processor = recipe.build(0)
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(["<video>", "<|vision_start|>"]) == [4, 471]
    model.model.language_model.rotary_emb.inv_freq = other.model.language_model.rotary_emb.inv_freq
    ids = tokenizer("Which way does the star move?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mine, theirs = model(input_ids=ids).logits, other(input_ids=ids).logits
    assert torch.allclose(mine[..., : theirs.shape[-1]], theirs, atol=1e-4)


def test_the_teacher_s_tokens_are_the_mean_over_a_group():
    images = pixels(render(training_scene(0))[[0, 3, 5, 5]]).unflatten(0, (2, 2))
    like, single = Teacher("cpu"), recipe_of("onevision")
    found = like(images)
    with torch.no_grad():
        frames = single.tokens(like.model, images.flatten(0, 1)[:, None])
    known = torch.stack([frames[:2].mean(0), frames[2]])
    assert (found - known).norm() / known.norm() < 0.02
    assert (found.flip(0) - known).norm() / known.norm() > 0.1


def test_positions_follow_the_seconds():
    """16 frames at 8 a second: a group is a quarter of a second, one position; 4: five."""
    assert float(seconds_per_group(np.arange(16), 2)) == 0.25
    assert float(seconds_per_group(np.array([0, 5, 10, 15]), 2)) == 1.25
    assert float(seconds_per_group(np.array([4, 4]), 2)) == 2.0
    recipe = recipe_of("qwen")
    model, _ = recipe.build(0)
    places = recipe.places(model, 4, np.array([[0, 5, 10, 15]]), 1)
    assert places.prefix.shape == (3, 1, 4 + 2 * 36) and places.after.tolist() == [10]
    video = places.prefix[:, 0, 4:].unflatten(1, (2, 6, 6))
    assert video[0].unique().tolist() == [4, 9]
    assert (video[1] == 4 + torch.arange(6)[:, None]).all()
    assert (video[2] == 4 + torch.arange(6)).all()
