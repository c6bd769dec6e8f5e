"""GLM-4.1V: seconds behind their frames, norms after attention and MLP, half of a head rotated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import NoRope
from probe.capture import AttentionRows, Contributions
from probe.models.given import Picture
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests.families.glm4v import build
from tests.families.pixels import prove
from tests.tiny import clip

SHOWN = clip(5, 32, 48, seed=1)  # two rows of three tokens, without any resizing
UNEVEN = Clip(
    clip(7, 32, 48).frames,
    np.array([0.04, 0.1, 0.99, 1.7, 13.25, 13.3, 28.8]),
    np.array([1, 3, 27, 51, 330, 331, 720]),
    25.0,
    "uneven",
    29.0,
)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build(seed=3)


@pytest.fixture(scope="module")
def eager() -> VideoModel:
    return build("eager", seed=3)


@pytest.mark.parametrize("count", [2, 5, 6])
def test_tokens_are_those_of_the_processor(model: VideoModel, count: int) -> None:
    x = model.encode(clip(count, 32, 48), "What moves?", frames=None)
    thw = x.inputs["video_grid_thw"]
    with torch.no_grad():
        features = model.hf.get_video_features(x.inputs["pixel_values_videos"], thw).pooler_output
    video = x.layout.select("video")
    assert len(video) == len(features[0]) == int(thw.prod()) // 4
    assert (x.inputs["input_ids"][0, video] == model.hf.config.image_token_id).all()
    assert x.layout.grid == (2, 3) and len(x.layout.groups) == (count + 1) // 2
    assert x.layout.frames[-1] == ((count - 1,) if count % 2 else (count - 2, count - 1))


def test_each_group_is_followed_by_its_whole_second(model: VideoModel) -> None:
    layout = model.encode(UNEVEN, "What moves?", frames=None).layout
    stamps = layout.role == "timestamp"
    texts = []
    for number, label in enumerate(layout.groups):
        here = np.flatnonzero(stamps & (layout.group == number))
        texts.append("".join(layout.tokens[position] for position in here))
        assert here[0] == layout.select(label)[-1] + 2  # the end of the image is between them
    assert texts == ["0", "0", "13", "28"]  # of frames 0, 2, 4 and 6
    assert model.family.timestamps is not None
    times = model.family.timestamps(layout.visuals[0], layout.seconds)
    assert times.tolist() == [float(text) for text in texts]


def test_several_clips_or_images(model: VideoModel) -> None:
    shown = clip(3, 48, 32)
    x = model.encode([shown, SHOWN], "What moves?", frames=None)
    assert [visual.cells for visual in x.layout.visuals] == [(3, 2), (2, 3)]
    assert x.layout.groups == ("frames 0-1", "frame 2", "frames 3-4", "frames 5-6", "frame 7")
    kinds = x.inputs["mm_token_type_ids"][0].numpy()
    assert np.flatnonzero(kinds == 2).tolist() == x.layout.select("video").tolist()
    prove(model, x, SHOWN)
    pictures = [Picture(clip(1, side, 32, seed=side).frames[0]) for side in (32, 48)]
    x = model.encode(pictures, "What moves?")
    assert [visual.cells for visual in x.layout.visuals] == [(2, 2), (3, 2)]
    for picture in pictures:
        prove(model, x, picture)
    with pytest.raises(ProbeError, match="clips or images in a prompt, not both"):
        model.encode([SHOWN, pictures[0]], "What moves?", frames=None)


def test_positions_have_three_axes(model: VideoModel) -> None:
    x = model.encode([SHOWN, clip(2, 48, 48)], "What moves?", frames=None)
    ids = x.inputs["position_ids"][:, 0].numpy()
    layout, here, position = x.layout, 0, 0
    while position < len(layout):
        count = 1
        if layout.role[position] == "video":
            rows, cols = layout.visuals[layout.visual[position]].cells or (0, 0)
            count = rows * cols
            places = np.arange(position, position + count)
            axes = np.stack([np.zeros(count, int), layout.row[places], layout.col[places]])
            np.testing.assert_array_equal(ids[:, places], here + axes)
            here += max(rows, cols)
        else:
            assert ids[:, position].tolist() == [here] * 3
            here += 1
        position += count


def test_pixels_change_the_tokens_that_the_layout_names(model: VideoModel) -> None:
    prove(model, model.encode(SHOWN, "What moves?", frames=None), SHOWN)


def test_contributions_go_through_the_norms_that_follow(model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None, answer="red")
    capture = Contributions("r", versus="b", sources="roles", by_position=True)
    data = model.run(x, [capture]).data
    # What joins the residual stream, from transformers' own modules.
    joined: dict[tuple[int, str], torch.Tensor] = {}

    def keep(layer: int, part: str) -> Any:
        return lambda module, args, out: joined.__setitem__((layer, part), out[0, x.layout.last])

    handles = [
        getattr(block, name).register_forward_hook(keep(layer, part))
        for layer, block in enumerate(model.layers)
        for part, name in (
            ("attention", "post_self_attn_layernorm"),
            ("mlp", "post_mlp_layernorm"),
        )
    ]
    final: list[torch.Tensor] = []
    handles.append(model.decoder.norm.register_forward_pre_hook(lambda _, a: final.append(a[0])))
    with torch.no_grad():
        logits = model.hf(**x.inputs).logits[0, x.layout.last]
    for handle in handles:
        handle.remove()
    red, blue = (model.token_id(x, word, "test") for word in "rb")
    norm, head = model.decoder.norm, model.head.weight
    scale = (final[0][0, x.layout.last].square().mean() + norm.variance_epsilon).rsqrt()
    direction = norm.weight * scale * (head[red] - head[blue])
    for (layer, part), out in joined.items():
        found = float(data.contributions.sel(layer=layer, part=part))
        assert found == pytest.approx(float((out @ direction).detach()), abs=1e-5)
    assert float(data.contributions_logit) == pytest.approx(
        float(logits[red] - logits[blue]), abs=1e-5
    )
    assert abs(float(data.contributions_error)) < 1e-5
    attention = data.contributions.sel(part="attention")
    heads = data.contributions_attention.sum(["head", "source_group"])
    np.testing.assert_allclose(heads, attention, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        data.contributions_position.sum("position"), attention, rtol=0, atol=1e-5
    )


def test_no_rope_undoes_a_partial_rotary_in_pairs(model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None)
    vectors: list[torch.Tensor] = []
    attention = model.layers[2].self_attn
    handles = [
        part.register_forward_hook(
            lambda _, __, out: vectors.append(
                out[0].view(len(x.layout), -1, model.head_dim).transpose(0, 1)
            )
        )
        for part in (attention.q_proj, attention.k_proj)
    ]
    with torch.no_grad():
        model.hf(**x.inputs)
    for handle in handles:
        handle.remove()
    query, key = vectors[0], vectors[1].repeat_interleave(2, 0)
    scores = query @ key.mT / model.head_dim**0.5
    scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
    run = model.run(x, [AttentionRows("all", layers=2)], [NoRope("all -> all", layers=2)])
    plain = model.run(x, [AttentionRows("all", layers=2)])
    found = run.data.attention_rows.values[0]
    np.testing.assert_allclose(found, scores.softmax(-1), rtol=0, atol=1e-5)
    assert np.abs(found - plain.data.attention_rows.values[0]).max() > 0.05


def test_the_attention_is_the_dense_map(model: VideoModel, eager: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None, answer="red")
    before = model.hf.model.rope_deltas
    run = model.run(x, [AttentionRows("all")])
    model.generate(model.encode(UNEVEN, "And now?", frames=None), max_new_tokens=2)
    assert model.hf.model.rope_deltas is before
    with torch.no_grad():
        out = eager.hf(**x.inputs, output_attentions=True, use_cache=False)
    dense = torch.stack([layer[0] for layer in out.attentions])
    np.testing.assert_allclose(run.data.attention_rows, dense, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run.logits, out.logits[0, x.layout.readout], rtol=0, atol=2e-5)
