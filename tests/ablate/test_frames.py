"""Frames: against plain encoding of a clip that is changed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probe import spec
from probe.ablate.frames import CHANGES, Frames, Interleave
from probe.ablate.recipes.frames import intp, temple
from probe.ablate.recipes.rotary import intp_rope
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from probe.video import Clip, read
from tests.families import models
from tests.tiny import clip, example

FAMILIES = ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "video_llava"]
VIDEOS = Path(__file__).parents[2].parent / "shared" / "videos"
EIGHT = clip(8, 40, 60)


def shown(order: list[int], taken: bool = False) -> Clip:
    """The frames of EIGHT in an order, at the times of the places, or at their own if taken."""
    seconds = EIGHT.seconds[order] if taken else EIGHT.seconds[: len(order)]
    return replace(
        EIGHT,
        frames=EIGHT.frames[order],
        seconds=seconds,
        source_frames=EIGHT.source_frames[order],
    )


def painted(frames: np.ndarray) -> Clip:
    return replace(EIGHT, frames=frames)


def noisy(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.stack([draw.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(8)])


MEAN = round(float(EIGHT.frames.mean()))
BY_HAND = {
    Frames("drop", frames=[1, 6]): shown([0, 2, 3, 4, 5, 7], taken=True),
    Frames("keep", frames=[0, 2]): shown([0, 2], taken=True),
    Frames("single", frame=5): shown([5], taken=True),
    Frames("window", first=2, count=4): shown([2, 3, 4, 5], taken=True),
    Frames("subsample", every=3): shown([0, 3, 6], taken=True),
    Frames("resample", count=4): shown([0, 2, 5, 7], taken=True),
    Frames("reverse"): shown([7, 6, 5, 4, 3, 2, 1, 0]),
    Frames("reverse", magnitude=2): shown([4, 5, 6, 7, 0, 1, 2, 3]),
    Frames("reverse", magnitude=4): shown([6, 7, 4, 5, 2, 3, 0, 1]),
    Frames("reverse", magnitude=16): shown([7, 6, 5, 4, 3, 2, 1, 0]),
    Frames("swap_halves"): shown([4, 5, 6, 7, 0, 1, 2, 3]),
    Frames("freeze", frame=3): shown([3] * 8),
    Frames("loop", times=4): shown([0, 1] * 4),
    Frames("blank"): painted(np.full((8, 40, 60, 3), MEAN, np.uint8)),
    Frames("blank", fill="black"): painted(np.zeros((8, 40, 60, 3), np.uint8)),
    Frames("noise", seed=4): painted(noisy(4)),
    Frames("crop", rows=2, cols=2, tile=3): painted(EIGHT.frames[:, 20:, 30:]),
    Frames("crop", how="strided"): painted(EIGHT.frames[:, ::2, ::2]),
}
NEUTRAL = [
    Frames("keep", frames=range(8)),
    Frames("drop", frames=[]),
    Frames("drop", magnitude=1),
    Frames("reverse", magnitude=1),
    Frames("shuffle", magnitude=1, seed=3),
    Frames("loop", times=1),
    Frames("subsample", every=1),
    Frames("resample", count=8),
    Frames("window"),
    Frames("crop", rows=1, cols=1),
    Frames("tiles", rows=1, cols=1),
    Frames("mask", share=0.0),
    Interleave(1),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_plain_encoding_of_the_clip_changed_by_hand(name: str) -> None:
    model = models.build(name)
    how = {"answer": "A red", "options": ["a red ball", "a blue ball"], "frames": None}
    x = model.encode(EIGHT, "What moves?", **how)
    plain = model.run(x).logits
    for number, (ablation, by_hand) in enumerate(BY_HAND.items()):
        if name == "qwen3_vl" and len(by_hand) == 1:  # its processor takes two frames or more
            with pytest.raises(ProbeError, match="its processor refuses"):
                model.run(x, ablate=[ablation])
            continue
        y, z = model.encode(by_hand, "What moves?", **how), ablation.prepare(model, x)
        assert z.layout.tokens == y.layout.tokens, ablation
        assert all(torch.equal(y.inputs[n], z.inputs[n]) for n in y.inputs), ablation
        if number % 4:
            continue  # equal inputs; the rest is the same for all families
        logits = model.run(y).logits
        assert np.array_equal(model.run(x, ablate=[ablation]).logits, logits), ablation
        assert not np.array_equal(logits, plain), ablation


def test_generation_and_layout_are_those_of_the_changed_clip(tiny: VideoModel) -> None:
    x, ablation = example(tiny, EIGHT), Frames("keep", frames=[0, 2])
    y = example(tiny, shown([0, 2], taken=True))
    run, plain = (
        tiny.generate(x, ablate=[ablation], max_new_tokens=4),
        tiny.generate(y, max_new_tokens=4),
    )
    assert np.array_equal(run.logits, plain.logits)
    assert run.layout.tokens == plain.layout.tokens
    assert run.layout.seconds.tolist() == [0.0, 1.0]
    assert run.layout.source_frame.tolist() == [0, 6]


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_neutral_is_bit_identical(name: str) -> None:
    model = models.build(name)
    x = model.encode(EIGHT, "What moves?", frames=None)
    run, generated = model.run(x), model.generate(x, max_new_tokens=3)
    for neutral in NEUTRAL:
        assert neutral.prepare(model, x) is x
    assert np.array_equal(model.run(x, ablate=NEUTRAL).logits, run.logits)
    again = model.generate(x, ablate=NEUTRAL, max_new_tokens=3)
    assert np.array_equal(again.logits, generated.logits)


def test_a_clip_of_one_frame_has_no_order(tiny: VideoModel) -> None:
    x = example(tiny, 1)
    for what in ("shuffle", "reverse", "swap_halves", "freeze"):
        assert Frames(what).prepare(tiny, x) is x
    for ablation in (
        Frames("loop", times=4),
        Frames("drop", magnitude=8),
        Frames("shuffle", magnitude=4),
        temple("reverse", 16),
    ):
        assert ablation.prepare(tiny, x) is x


def test_text_alone_is_left_alone(tiny: VideoModel) -> None:
    x = tiny.encode(None, "What moves?")
    some = [*BY_HAND, Frames("drop", frames=99), Frames("shuffle", clip=7), Interleave(3)]
    for ablation in some:
        assert ablation.prepare(tiny, x) is x
    assert np.array_equal(tiny.run(x, ablate=some).logits, tiny.run(x).logits)


def test_reverse_twice_is_the_clip(tiny: VideoModel) -> None:
    x = example(tiny, EIGHT)
    for one in (Frames("reverse"), Frames("reverse", magnitude=4), Frames("swap_halves")):
        y = one.prepare(tiny, one.prepare(tiny, x))
        assert all(torch.equal(x.inputs[name], y.inputs[name]) for name in x.inputs)
        assert np.array_equal(tiny.run(x, ablate=[one, one]).logits, tiny.run(x).logits)


def test_a_list_is_applied_in_order(tiny: VideoModel) -> None:
    x = example(tiny, EIGHT)
    both = tiny.run(x, ablate=[Frames("keep", frames=[1, 4, 5]), Frames("reverse")]).logits
    by_hand = replace(shown([5, 4, 1]), seconds=EIGHT.seconds[[1, 4, 5]])
    assert np.array_equal(both, tiny.run(example(tiny, by_hand)).logits)


def test_which_clip(tiny: VideoModel) -> None:
    first, second = clip(4, seed=1), clip(4, seed=2)
    x = tiny.encode([first, second], "Which?", frames=None)
    for number in (0, 1):
        y = Frames("reverse", clip=number).prepare(tiny, x)
        assert y.clips[1 - number] is x.clips[1 - number]
        assert np.array_equal(y.clips[number].frames, x.clips[number].frames[::-1])
    both = Frames("reverse").prepare(tiny, x)
    assert [len(c) for c in both.clips] == [4, 4]
    assert np.array_equal(both.clips[1].frames, second.frames[::-1])
    with pytest.raises(ProbeError, match='no clip 2; write 0 to 1, or "all"'):
        Frames("reverse", clip=2).prepare(tiny, x)


def test_seeds(tiny: VideoModel) -> None:
    x = example(tiny, EIGHT)
    for what, more in (("shuffle", {}), ("noise", {}), ("mask", {"share": 0.3, "size": 10}),
                       ("drop", {"magnitude": 2}), ("shuffle", {"magnitude": 4})):  # fmt: skip
        runs = [tiny.run(x, ablate=[Frames(what, seed=s, **more)]).logits for s in (1, 1, 2)]
        assert np.array_equal(runs[0], runs[1])
        assert not np.array_equal(runs[0], runs[2]), what


def test_what_shows_the_same_did_not_fire(tiny: VideoModel) -> None:
    still = example(tiny, replace(EIGHT, frames=np.full_like(EIGHT.frames, 90)))
    for ablation in (Frames("shuffle"), Frames("reverse"), Frames("freeze"), Frames("blank")):
        with pytest.raises(ProbeError, match="did not fire") as error:
            tiny.run(still, ablate=[ablation])
        assert "\n" not in str(error.value)


def test_a_family_with_a_fixed_number_of_frames() -> None:
    model = models.build("instructblipvideo")
    x = models.example(model)
    count = model.family.frames
    assert count == len(x.clips[0]) == 4
    for ablation in (Frames("drop", frames=0), Frames("resample", count=8), Frames("tiles")):
        with pytest.raises(ProbeError, match="takes 4 frames a clip, and this leaves") as error:
            model.run(x, ablate=[ablation])
        assert "\n" not in str(error.value)
    by_hand = replace(x.clips[0], frames=x.clips[0].frames[::-1])
    y = model.encode(by_hand, x.question, frames=None)
    assert np.array_equal(model.run(x, ablate=[Frames("reverse")]).logits, model.run(y).logits)


def test_interleaved_parts_encoded_alone() -> None:
    model = models.build("qwen2_5_vl")
    x = model.encode(EIGHT, "What moves?", frames=None)
    parts = [model.encode(shown(list(range(j, 8, 2))), "?", frames=None) for j in (0, 1)]
    alone = [vision(model, part).reshape(2, -1, model.hf.config.text_config.hidden_size)
             for part in parts]  # fmt: skip
    in_time = torch.stack([alone[0], alone[1]], 1).flatten(0, 2)
    y = Interleave(2).prepare(model, x)
    assert torch.allclose(vision(model, y), in_time, atol=1e-5)
    assert not torch.allclose(vision(model, x), in_time, atol=1e-2)
    assert np.abs(model.run(x, ablate=[Interleave(2)]).logits - model.run(x).logits).max() > 1e-4


@pytest.mark.parametrize("name", ["llava_onevision", "video_llava", "internvl"])
def test_interleaving_changes_nothing_where_frames_are_encoded_alone(name: str) -> None:
    model = models.build(name)
    x = model.encode(EIGHT, "What moves?", frames=None)
    assert Interleave(2).prepare(model, x) is x


def test_intp(tiny: VideoModel) -> None:
    model = models.build("qwen2_5_vl")
    x = model.encode(EIGHT, "What moves?", frames=None)
    both = model.run(x, ablate=intp(2)).logits
    y = Interleave(2).prepare(model, x)
    assert np.array_equal(both, model.run(y, ablate=[intp_rope(2.0)]).logits)
    assert np.array_equal(model.run(x, ablate=intp(1)).logits, model.run(x).logits)
    z = example(tiny, EIGHT)  # frame by frame: the rotary base is all there is
    base = tiny.run(z, ablate=[intp_rope(4.0)]).logits
    assert np.array_equal(tiny.run(z, ablate=intp(4)).logits, base)


def vision(model: VideoModel, x) -> torch.Tensor:
    """The features of the clip, as the Hugging Face model computes them."""
    with torch.no_grad():
        found = model.hf.model.get_video_features(
            x.inputs["pixel_values_videos"], x.inputs["video_grid_thw"]
        )
    return torch.cat(tuple(getattr(found, "pooler_output", found)))


def test_recipe() -> None:
    assert temple("drop", 8, seed=3) == Frames("drop", magnitude=8, unit=2, seed=3)
    assert temple("reverse", 2) == Frames("reverse", magnitude=2, unit=2)
    with pytest.raises(ProbeError, match="temple: what='blank'"):
        temple("blank")


def test_text_and_json() -> None:
    names = {"Frames": Frames, "Interleave": Interleave}
    for ablation in (*BY_HAND, *NEUTRAL):
        assert spec.parse(str(ablation), names) == [ablation]
        assert spec.from_json(ablation.to_json(), names) == ablation
    assert spec.parse('Frames("shuffle", seed=1)', names) == [Frames("shuffle", seed=1)]
    assert spec.parse('Frames("keep", frames=[0, 2])', names) == [Frames("keep", frames=[0, 2])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"what": "melt"}, "what='melt' is none of drop, keep"),
        ({"what": "reverse", "seed": 1}, "reverse does not take seed; it takes magnitude, unit"),
        (
            {"what": "swap_halves", "frames": 1},
            "swap_halves does not take frames; it takes nothing",
        ),
        ({"what": "keep"}, "keep needs frames="),
        ({"what": "mask", "amount": 0.1}, "mask does not take amount"),
    ],
)
def test_wrong_arguments(arguments: dict, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        Frames(**arguments)
    assert "\n" not in str(error.value)


def test_wrong_frames_are_refused_before_anything_runs(tiny: VideoModel) -> None:
    x = example(tiny, 5)
    for ablation, words in (
        (Frames("keep", frames=[5]), "no frame 5; there are 0 to 4"),
        (Frames("drop", frames=range(5)), "would leave no frame"),
        (Frames("drop"), "frames or a magnitude"),
        (Frames("noise", amount=2.0), "amount"),
        (Frames("reverse", magnitude=0), "magnitude is a whole number"),
    ):
        with pytest.raises(ProbeError, match=words) as error:
            tiny.run(x, ablate=[ablation])
        assert "\n" not in str(error.value)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize("name", ["sample_demo_1.mp4", "nasa_13013.mp4", "h265_video.mp4"])
def test_real_clips(tiny: VideoModel, name: str) -> None:
    seen = read(VIDEOS / name, frames=6)
    x = example(tiny, seen)
    for ablation, order in ((Frames("reverse", magnitude=3), [4, 5, 2, 3, 0, 1]),
                            (Frames("freeze", frame=2), [2] * 6)):  # fmt: skip
        y = example(tiny, replace(seen, frames=seen.frames[order]))
        assert np.array_equal(tiny.run(x, ablate=[ablation]).logits, tiny.run(y).logits)
    assert len(CHANGES["tiles"](seen)) == 24
