"""Molmo2: windows of patches, two views of an image, visual tokens that all see each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import NoRope
from probe.capture import AttentionRows, Contributions
from probe.models.given import Picture
from probe.models.loading import load
from probe.models.video_model import VideoModel
from tests.families import pixels
from tests.families.molmo2 import build
from tests.tiny import clip

SHOWN = clip(4, 40, 40, seed=1)  # five by five patches, without any resizing
UNEVEN = replace(SHOWN, seconds=np.array([0.04, 0.3, 5.87, 61.25]))


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build(seed=3)


def picture(height: int, width: int) -> Picture:
    return Picture(clip(1, height, width, seed=height).frames[0])


def test_tokens_are_those_of_the_processor(model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None)
    given = (x.inputs[f"{name}"] for name in ("pixel_values_videos", "video_token_pooling"))
    with torch.no_grad():
        features = model.hf.get_video_features(*given, x.inputs["video_grids"]).pooler_output
    video = x.layout.select("video")
    assert len(video) == len(features[0]) == 4 * 2 * 2
    assert (x.inputs["input_ids"][0, video] == model.hf.config.image_patch_id).all()
    table = x.layout.to_frame().loc[video, ["frame", "row", "col"]]
    cells = [(f, r, c) for f in range(4) for r in range(2) for c in range(2)]
    assert list(map(tuple, table.to_numpy())) == cells


def test_windows_at_the_border_are_smaller(model: VideoModel) -> None:
    grid = model.encode(SHOWN, "What moves?", frames=None).layout.visuals[0].grid
    assert grid is not None
    for edges in (grid.row_edges, grid.col_edges):  # three patches, then the two that are left
        np.testing.assert_allclose(edges * 5, [[0, 3], [3, 5]])
    grid = model.encode(picture(90, 40), "What?").layout.visuals[0].grid
    assert grid is not None
    np.testing.assert_allclose(grid.row_edges[:3] * 5, [[0, 2], [2, 4], [4, 5]])
    # Four crops below one another, overlapping by two patches: 14 rows of patches, two a window.
    np.testing.assert_allclose(grid.row_edges[3:] * 14, [[n, n + 2] for n in range(0, 14, 2)])
    np.testing.assert_allclose(grid.col_edges[3:] * 5, [[0, 2], [2, 4], [4, 5]])


def test_an_image_has_two_views(model: VideoModel) -> None:
    x = model.encode([picture(40, 40), picture(90, 40)], "What is it?")
    layout = x.layout
    assert [visual.cells for visual in layout.visuals] == [(6, 6), (10, 6)]
    for label, rows in (("image 0", (3, 3)), ("image 1", (3, 7))):
        table = layout.to_frame().loc[layout.select(label), ["row", "col"]]
        low = [(r, c) for r in range(rows[0]) for c in range(3)]
        high = [(3 + r, 3 + c) for r in range(rows[1]) for c in range(3)]
        assert list(map(tuple, table.to_numpy())) == low + high
    count = x.inputs["image_token_pooling"].shape[0]
    assert len(layout.select("image")) == count == 9 + 9 + 9 + 21
    # A box at the top of the second image is seen in both of its views.
    top = layout.select("box 0,0,40,10 & image 1")
    assert sorted(set(layout.row[top].tolist())) == [0, 3]


def test_pixels_change_the_tokens_that_the_layout_names(model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None)
    pixels.prove(model, x, SHOWN)
    same, tall = picture(40, 40), picture(112, 40)  # the canvas of the second is as it is given
    x = model.encode([same, tall], "What is it?")
    pixels.prove(model, x, same)
    pixels.prove(model, x, tall, margin=0.25)


def test_the_text_states_the_times_of_the_layout(model: VideoModel) -> None:
    layout = model.encode(UNEVEN, "What moves?", frames=None).layout
    assert model.family.timestamps is not None
    times = model.family.timestamps(layout.visuals[0], layout.seconds)
    assert times.tolist() == UNEVEN.seconds.tolist()
    for number, second in enumerate(UNEVEN.seconds):
        here = np.flatnonzero((layout.role == "timestamp") & (layout.group == number))
        assert "".join(layout.tokens[p] for p in here) == f"{second:.1f}"
        assert here[-1] < layout.select(f"frame {number}")[0]


def test_what_the_model_does_not_take_is_refused(model: VideoModel) -> None:
    with pytest.raises(ProbeError, match="one video"):
        model.encode([SHOWN, UNEVEN], "What moves?", frames=None)
    with pytest.raises(ProbeError, match="one clip or images in a prompt, not both"):
        model.encode([SHOWN, picture(40, 40)], "What moves?", frames=None)


def test_visual_tokens_see_later_ones(model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None, answer="red")
    eager = build("eager", seed=3)
    run = model.run(x, [AttentionRows("all"), Contributions("r")])
    with torch.no_grad():
        out = eager.hf(**x.inputs, output_attentions=True, use_cache=False)
    dense = torch.stack([layer[0] for layer in out.attentions])
    rows = run.data.attention_rows.values
    np.testing.assert_allclose(rows, dense, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run.logits, out.logits[0, x.layout.readout], rtol=0, atol=2e-5)
    assert abs(float(run.data.contributions_error)) < 1e-5
    first, last = x.layout.select("frame 0"), x.layout.select("frame 3")
    assert (rows[:, :, first][..., last] > 0).all()
    assert (rows[:, :, first][..., x.layout.select("question")] == 0).all()


@pytest.mark.parametrize("layer", [0, 1])  # the one has scaled tables, the other has not
def test_no_rope_undoes_the_table_of_each_layer(model: VideoModel, layer: int) -> None:
    assert model.decoder.rope_types[:2] == ["scaled", "unscaled"]
    x = model.encode(SHOWN, "What moves?", frames=None)
    vectors: list[torch.Tensor] = []
    attention = model.layers[layer].self_attn
    handles = [
        part.register_forward_hook(lambda _, __, out: vectors.append(out[0].transpose(0, 1)))
        for part in (attention.q_norm, attention.k_norm)
    ]
    plain = model.run(x, [AttentionRows("all", layers=layer)]).data.attention_rows.values[0]
    for handle in handles:
        handle.remove()
    query, key = vectors[0], vectors[1].repeat_interleave(2, 0)
    scores = (query @ key.mT / model.head_dim**0.5).masked_fill(
        torch.as_tensor(plain) == 0, -torch.inf
    )
    run = model.run(x, [AttentionRows("all", layers=layer)], [NoRope("all -> all", layers=layer)])
    found = run.data.attention_rows.values[0]
    np.testing.assert_allclose(found, scores.softmax(-1), rtol=0, atol=1e-5)
    assert np.abs(found - plain).max() > 0.05


def test_norms_that_follow_are_part_of_the_contributions(model: VideoModel) -> None:
    config = type(model.hf.config)(**model.hf.config.to_dict())
    config.text_config.norm_after = True
    hf = type(model.hf)._from_config(config, attn_implementation="sdpa").eval()
    hf.load_state_dict(model.hf.state_dict())
    after = load((hf, model.processor))
    x = after.encode(SHOWN, "What moves?", frames=None)
    run = after.run(x, [Contributions("r", sources="roles")])
    assert np.abs(run.logits - model.run(x).logits).max() > 0.1
    assert abs(float(run.data.contributions_error)) < 1e-5
    heads = run.data.contributions_attention.sum(["head", "source_group"])
    expected = run.data.contributions.sel(part="attention")
    np.testing.assert_allclose(heads, expected, rtol=0, atol=1e-5)
