"""Training runs the models as transformers does, and can be resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.video_utils import VideoMetadata

from probe.testbed import training_answers, training_vision
from probe.testbed.drawing import render
from probe.testbed.question import TYPES
from probe.testbed.training_answers import Trainer
from probe.testbed.training_clips import MIXED, cell_labels, make_pool, training_scene
from probe.testbed.training_forward import forward, prefix_embeddings
from probe.testbed.training_model import FPS, grouped, recipe_of
from probe.testbed.training_plan import Phase, sample_times
from probe.testbed.training_sight import Kept, Live, keep
from probe.testbed.training_text import Prompts, blind_pairs, pack, pairs_of
from probe.testbed.training_vision import IGNORE, group_targets, pixels

TIMES = ([0, 5, 10, 15], [0, 3, 7, 11, 15], [3, 3, 7, 8, 8, 9])


@pytest.fixture(scope="module")
def pool():
    return make_pool(0, 24, workers=1)


@pytest.fixture(scope="module", params=["onevision", "qwen"])
def parts(request):
    recipe = recipe_of(request.param)
    model, processor = recipe.build(0)
    return recipe, model.eval(), processor


def direct(model, processor, text, clip, times):
    """Logits of the real model, given the clip's times as a reader of its file would."""
    lasts = (times[-1] - times[0]) / FPS
    metadata = VideoMetadata(
        total_num_frames=len(times), fps=(len(times) - 1) / lasts, width=96, height=96,
        duration=lasts, frames_indices=list(range(len(times))),
    )  # fmt: skip
    inputs = processor(
        text=[text],
        videos=[torch.from_numpy(clip).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )
    return model(**inputs).logits[0]


@pytest.mark.parametrize("times", TIMES, ids=["even", "odd", "repeated"])
def test_packed_logits_equal_the_model_on_each_prompt(parts, pool, times):
    recipe, model, processor = parts
    prompts, rng = Prompts(processor, recipe.video), np.random.default_rng(0)
    packed = pack([pairs_of(scene, prompts, rng) for scene in pool.scenes[:2]], 160, rng)
    clips = pool.frames[:2, times]
    before = processor.tokenizer.decode(prompts.head) + recipe.video
    both = np.array([times, times])
    groups = grouped(np.arange(len(times))[None], recipe.span)[0]
    with torch.no_grad():
        images = [pixels(clip[groups.ravel()]).unflatten(0, groups.shape) for clip in clips]
        tokens = torch.stack([recipe.tokens(model, some) for some in images])
        prefix = prefix_embeddings(recipe, model, tokens, prompts.head, 2)
        places = recipe.places(model, len(prompts.head), both, 2)
        logits = model.lm_head(forward(model, prefix, places, packed)[0])
        for row, clip in enumerate(clips):
            assert packed.segment[row].max() >= 4
            for number in range(packed.segment[row].max() + 1):
                where = np.flatnonzero(packed.segment[row] == number)
                if not len(where):
                    continue
                text = before + processor.tokenizer.decode(packed.ids[row, where])
                known = direct(model, processor, text, clip, times)[-len(where) :]
                assert torch.allclose(known, logits[row, where], atol=1e-4)


def test_packed_logits_without_a_clip_equal_the_model_s(parts):
    recipe, model, processor = parts
    prompts, rng = Prompts(processor, recipe.video), np.random.default_rng(0)
    packed = pack([blind_pairs(prompts, rng, 4)], 100, rng)
    with torch.no_grad():
        prefix = prefix_embeddings(recipe, model, None, prompts.blind_head, 1)
        places = recipe.places(model, len(prompts.blind_head), None, 1)
        logits = model.lm_head(forward(model, prefix, places, packed)[0])
        for number in range(4):
            where = np.flatnonzero(packed.segment[0] == number)
            ids = torch.tensor([[*prompts.blind_head, *packed.ids[0, where]]])
            known = model(input_ids=ids).logits[0, 1:]
            assert torch.allclose(known, logits[0, where], atol=1e-4)


def test_text_only_prompts_are_the_template_s_own(parts):
    recipe, _, processor = parts
    prompts = Prompts(processor, recipe.video)
    pair = blind_pairs(prompts, np.random.default_rng(0), 1)[0]
    ids = prompts.blind_head + pair.ids[: pair.start]
    asked = processor.tokenizer.decode(ids).split("<|im_end|>")[0]
    question = asked.removeprefix("<|im_start|>user").strip()
    messages = [{"role": "user", "content": [{"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tuple(processor.tokenizer(text)["input_ids"]) == ids


def test_packing_keeps_answers_whole_and_types_in_proportion(parts):
    recipe, _, processor = parts
    prompts, rng = Prompts(processor, recipe.video), np.random.default_rng(1)
    pairs = [pairs_of(training_scene(seed), prompts, rng) for seed in range(1000, 1060)]
    packed = pack(pairs, 170, rng)
    end = processor.tokenizer.eos_token_id
    for row in range(len(pairs)):
        for number in range(packed.segment[row].max() + 1):
            where = packed.segment[row] == number
            if where.any():
                assert packed.target[row, where][-1] == end
                assert list(packed.offset[row, where]) == list(range(where.sum()))
    assert (packed.target[packed.segment < 0] == -100).all()
    counts = np.bincount(packed.kind[packed.target == end], minlength=len(TYPES))
    assert (counts > 20).all()


def test_cell_labels_name_the_object_with_most_pixels():
    scene = next(s for s in map(training_scene, range(50)) if len(s.things) == 3)
    labels = cell_labels(scene)
    clip = render(scene)
    assert labels.shape == (16, 36) and set(np.unique(labels)) <= {MIXED, -1, 0, 1, 2}
    for frame, cell in np.argwhere(labels >= 0)[::7]:
        thing = scene.things[labels[frame, cell]]
        x0, y0, x1, y1 = thing.boxes[frame]
        x, y = cell % 6 * 16, cell // 6 * 16
        assert x0 < x + 16 and x < x1 and y0 < y + 16 and y < y1
    assert clip.shape[0] == len(labels)


def test_times_are_sorted_and_mostly_even():
    rng = np.random.default_rng(0)
    even = 0
    for _ in range(200):
        times = sample_times(4, 16, rng)
        assert len(times) == 4 and times[0] >= 0 and times[-1] < 16
        assert (np.diff(times) >= 0).all()
        even += np.diff(times).min() >= 3
    assert 150 < even < 200


def test_group_labels_follow_the_scene_graph(pool):
    rng = np.random.default_rng(0)
    clips = rng.integers(len(pool), size=200)
    first = rng.integers(12, size=200)
    times = np.stack([first, first + rng.integers(0, 4, size=200)], 1)
    found = group_targets(pool, clips, times)
    assert found["shape"].shape == (200, 36, 2) and found["way"].shape == (200, 36, 2, 2)
    moving = 0
    for group, cell in np.argwhere(found["moves"])[::11]:
        scene, (start, end) = pool.scenes[clips[group]], times[group]
        which = pool.cells[clips[group], end, cell]
        which = pool.cells[clips[group], start, cell] if which < 0 else which
        before, after = scene.things[which].boxes[start], scene.things[which].boxes[end]
        moved = np.array(after[:2]) - np.array(before[:2])
        assert np.allclose(found["move"][group, cell] * 16, moved, atol=1)
        known = found["motion"][group, cell]
        assert (known == IGNORE) == (start == end)
        moving += start < end and moved.any()
    assert moving > 20


def test_a_kept_or_live_token_is_the_tower_s_own(parts, pool):
    recipe, model, _ = parts
    rng, few = np.random.default_rng(0), replace(pool, frames=pool.frames[:3])
    source, times = np.array([[0, 0, 0, 0], [2, 2, 2, 2]]), np.array([[0, 2, 9, 15], [1, 1, 4, 5]])
    shown = grouped(times, recipe.span)
    frames = few.frames[grouped(source, recipe.span), shown].reshape(-1, 96, 96, 3)
    with torch.no_grad():
        clean = recipe.tokens(model, pixels(frames).unflatten(0, (-1, recipe.span)))
    clean = clean.unflatten(0, (2, -1))
    see = Live(recipe, model, few)
    if recipe.span == 1:
        see = Kept(keep(recipe, model, few, 0))
    found = see(source, times, rng)
    assert found.shape == clean.shape
    together = torch.nn.functional.cosine_similarity(found.flatten(2), clean.flatten(2), -1)
    assert (together > 0.97).all()
    others = torch.nn.functional.cosine_similarity(found.flatten(2), clean.flip(0).flatten(2), -1)
    assert (others < together).all()


def test_a_stopped_run_goes_on_as_if_it_had_not(parts, pool, tmp_path):
    recipe, _, processor = parts
    prompts, rng = Prompts(processor, recipe.video), np.random.default_rng(2)
    pairs = [pairs_of(scene, prompts, rng) for scene in pool.scenes]
    tokens = torch.randn(24, 16, 36, 128, generator=torch.Generator().manual_seed(0)).half()

    def run(folder, stops):
        for stop in stops:
            torch.manual_seed(0)
            model, _ = recipe.build(0)
            see = Kept(tokens) if recipe.span == 1 else Live(recipe, model, pool)
            trainer = Trainer(recipe, model, prompts, pool, see, pairs)
            phases = (Phase(steps=4, clips=4, tokens=60, frames=(4, 5), dense=0.1),)
            training_answers.train(
                trainer, phases, 0, lambda **_: None, folder / "a.pt",
                held=8, every=2, until=stop,
            )  # fmt: skip
        return model.model.language_model.layers[2].mlp.up_proj.weight

    once = run(tmp_path / "once", [4])
    twice = run(tmp_path / "twice", [2, 4])
    assert torch.equal(once, twice)
    fresh = recipe.build(0)[0].model.language_model.layers[2].mlp.up_proj.weight
    assert not torch.equal(once, fresh)


def test_the_tower_learns_in_stage_1_and_the_decoder_does_not(parts, pool, tmp_path):
    recipe, _, _ = parts
    model, _ = recipe.build(0)
    tower = recipe.vision(model)[0]
    before = [p.clone() for p in tower.parameters()]
    decoder = model.model.language_model.layers[0].mlp.up_proj.weight.clone()
    losses = []
    training_vision.train(
        recipe, model, pool, 3, 0, lambda loss, **_: losses.append(loss), tmp_path / "v.pt", 4
    )
    assert len(losses) == 2 and np.isfinite(losses).all()
    pairs = list(zip(before, tower.parameters(), strict=True))
    assert all(not torch.equal(a, b) for a, b in pairs if a.ndim > 1)
    assert torch.equal(decoder, model.model.language_model.layers[0].mlp.up_proj.weight)
