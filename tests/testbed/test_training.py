"""Training runs the model as transformers does, and can be resumed."""

import numpy as np
import pytest
import torch

from probe.testbed import training_answers, training_vision
from probe.testbed.architecture import build_model, build_processor
from probe.testbed.drawing import render
from probe.testbed.question import TYPES
from probe.testbed.tokenizer import build_tokenizer
from probe.testbed.training_answers import Phase, Trainer, sample_times
from probe.testbed.training_clips import MIXED, cell_labels, make_pool, training_scene
from probe.testbed.training_forward import forward, prefix_embeddings
from probe.testbed.training_text import Prompts, blind_pairs, pack, pairs_of


@pytest.fixture(scope="module")
def parts():
    tokenizer = build_tokenizer()
    return build_model(tokenizer).eval(), build_processor(tokenizer), make_pool(0, 24, workers=1)


def test_packed_logits_equal_the_model_on_each_prompt(parts):
    model, processor, pool = parts
    prompts, rng = Prompts(processor), np.random.default_rng(0)
    packed = pack([pairs_of(scene, prompts, rng) for scene in pool.scenes[:2]], 160, rng)
    clips = pool.frames[:2, [0, 5, 10, 15]]
    with torch.no_grad():
        tokens = [training_vision.pooled(model, training_vision.pixels(clip)) for clip in clips]
        prefix = prefix_embeddings(model, torch.stack(tokens), prompts.head, 2)
        logits = model.lm_head(forward(model, prefix, packed)[0])
        for row, clip in enumerate(clips):
            assert packed.segment[row].max() >= 4
            for number in range(packed.segment[row].max() + 1):
                where = np.flatnonzero(packed.segment[row] == number)
                if not len(where):
                    continue
                text = processor.tokenizer.decode(packed.ids[row, where])
                inputs = processor(
                    text=["<|im_start|>user <video>" + text],
                    videos=[torch.from_numpy(clip).permute(0, 3, 1, 2)],
                    do_sample_frames=False,
                    return_tensors="pt",
                )
                direct = model(**inputs).logits[0, -len(where) :]
                assert torch.allclose(direct, logits[row, where], atol=1e-4)


def test_text_only_prompts_are_the_template_s_own(parts):
    _, processor, _ = parts
    prompts = Prompts(processor)
    pair = blind_pairs(prompts, np.random.default_rng(0), 1)[0]
    question = processor.tokenizer.decode(pair.ids[1:]).split("<|im_end|>")[0]
    messages = [{"role": "user", "content": [{"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    known = processor.tokenizer(text)["input_ids"]
    assert tuple(known) == prompts.head + pair.ids[: pair.start]


def test_packing_keeps_answers_whole_and_types_in_proportion(parts):
    _, processor, _ = parts
    prompts, rng = Prompts(processor), np.random.default_rng(1)
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


def test_a_stopped_run_goes_on_as_if_it_had_not(parts, tmp_path):
    _, processor, pool = parts
    prompts, rng = Prompts(processor), np.random.default_rng(2)
    pairs = [pairs_of(scene, prompts, rng) for scene in pool.scenes]
    tokens = torch.randn(24, 16, 36, 128, generator=torch.Generator().manual_seed(0)).half()

    def run(folder, stops):
        for stop in stops:
            torch.manual_seed(0)
            model = build_model(processor.tokenizer)
            trainer = Trainer(model, prompts, pool, tokens, pairs)
            phases = (Phase(steps=4, clips=4, tokens=60, frames=(4, 5), dense=0.1),)
            training_answers.train(
                trainer, phases, 0, lambda **_: None, folder / "a.pt",
                held=8, every=2, until=stop,
            )  # fmt: skip
        return model.model.language_model.layers[2].mlp.up_proj.weight

    once = run(tmp_path / "once", [4])
    twice = run(tmp_path / "twice", [2, 4])
    assert torch.equal(once, twice)
    fresh = build_model(processor.tokenizer).model.language_model.layers[2].mlp.up_proj.weight
    assert not torch.equal(once, fresh)
