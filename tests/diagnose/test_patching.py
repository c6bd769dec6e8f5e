"""The patching table against single cells made with hooks on plain transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.diagnose import margin
from probe.diagnose.patching import patching
from probe.models.video_model import VideoModel
from tests.ablate import plain
from tests.ablate.plain import show
from tests.tiny import clip, example

GROUPS = ["frame 1", "frames 2-4 + newline + question"]


def first(logits: np.ndarray) -> float:
    return float(logits[0, 5] - logits[0, 9])


def test_every_cell_is_a_hook_on_the_plain_model(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    clean, corrupted = show(model), show(model, seed=7)
    found = patching(
        model, clean, corrupted, lambda run: first(run.logits), ["residual", "mlp"], GROUPS, "1-2"
    )
    assert found.dims == ("direction", "site", "layer", "group")
    high, low = (first(plain.logits(model, x)) for x in (clean, corrupted))
    assert found.attrs["clean"] == pytest.approx(high, abs=1e-5)
    assert found.attrs["corrupted"] == pytest.approx(low, abs=1e-5)
    for layer in (1, 2):
        places = {"residual": (plain.given, model.layers[layer])}
        places["mlp"] = (plain.changed, model.layers[layer].mlp)
        for site, (hooked, module) in places.items():
            stored = [
                plain.record(model, x, module, inputs=site == "residual")
                for x in (clean, corrupted)
            ]
            for group in GROUPS:
                mine = clean.layout.select(group)

                def put(new: torch.Tensor, mine: np.ndarray = mine):
                    def change(y: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
                        y[mine] = new[mine]
                        return y

                    return change

                with hooked(module, put(stored[0])):
                    recovered = (first(plain.logits(model, corrupted)) - low) / (high - low)
                with hooked(module, put(stored[1])):
                    destroyed = (high - first(plain.logits(model, clean))) / (high - low)
                cell = found.sel(site=site, layer=layer, group=group).values
                np.testing.assert_allclose(cell, [recovered, destroyed], rtol=0, atol=1e-4)


def test_everything_is_all_and_text_before_the_clip_is_nothing(tiny: VideoModel) -> None:
    clean, corrupted = show(tiny), show(tiny, seed=7)
    follow = margin(tiny, clean, tiny.run(clean))
    before = clean.layout.select("video")[0] - 1
    ran: list[int] = []
    found = patching(
        tiny,
        clean,
        corrupted,
        follow,
        groups=["all", f"tokens 0-{before}", "last"],
        layers=[0, 3],
        progress=lambda: ran.append(1),
    )
    np.testing.assert_allclose(found.sel(group="all").values, 1, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.sel(group=f"tokens 0-{before}").values, 0)
    np.testing.assert_array_equal(found.sel(group="last", layer=0).values, 0)  # not yet different
    assert len(ran) == 2 * (1 + 3)  # untouched, and the cells that can differ
    assert found.attrs["clean"] == follow.of(tiny.run(clean))


def test_paths_into_the_last_token(tiny: VideoModel) -> None:
    clean, corrupted = show(tiny), show(tiny, seed=7)
    found = patching(
        tiny,
        clean,
        corrupted,
        lambda run: first(run.logits),
        groups="frames",
        readers="last",
        directions=["denoising"],
    )
    assert list(found.group.values) == list(clean.layout.partition("frames"))
    assert found.shape == (1, 1, 4, found.sizes["group"])
    assert (found.sel(group="frame 2") != 0).any()
    total = patching(
        tiny, clean, corrupted, lambda run: first(run.logits), groups=["frame 2"], layers=3
    )
    direct = found.sel(group="frame 2", layer=3).item()  # the last layer: no other way is left
    assert total.sel(direction="denoising").item() == pytest.approx(direct, abs=1e-4)


def test_what_is_refused(tiny: VideoModel) -> None:
    clean, corrupted = show(tiny), show(tiny, seed=7)

    def measure(run) -> float:
        return first(run.logits)

    for args, message in [
        ((clean, example(tiny, clip(3)), measure), "different layouts"),
        ((clean, clean, measure), "choose two that it tells apart"),
        ((clean, corrupted, measure, "query"), 'site "query"'),
        ((clean, corrupted, measure, "residual", "frame 9"), "frames 0 to 4"),
        ((clean, corrupted, measure, "residual", "frames", 9), "layer 9"),
    ]:
        with pytest.raises(ProbeError, match=message):
            patching(tiny, *args)
    with pytest.raises(ProbeError, match='direction "back"'):
        patching(tiny, clean, corrupted, measure, directions=["back"])
    with pytest.raises(ProbeError, match='leave sites="residual"'):
        patching(tiny, clean, corrupted, measure, "mlp", readers="last")
