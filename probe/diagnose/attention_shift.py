"""AttentionShift: does attention favour late tokens, and how dispersed is it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probe.capture import AttentionReceived, VisionAttention
from probe.capture.vision_attention import CLS
from probe.diagnose.attention_queries import QueriesThatSee
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.cells import by_frame, clip_tokens
from probe.diagnose.ranks import spearman
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case

SETS = {"all": "all", "image": "video", "text": "text", "last": "last"}
BINS = 10


@dataclass(frozen=True)
class AttentionShift(Diagnosis):
    """Attention received by a visual token against its place in the sequence, and concentration.

    Shift (FasterVLM): attention received at a position, mean over heads, divided by the number of
    queries that attend to it, for the query sets all, image, text and last; the slope is that of
    a line through it over the place (0 first to 1 last visual token), in units of its mean. Late
    queries spread their attention over more keys, so that early tokens look favoured by sets that
    lie inside the clip; ours: the same relative to what uniform attention would give.

    Dispersion (FasterVLM): C20 is the part of the attention mass on visual tokens that the 20 %
    with most hold; the paper finds about .8 for CLS in the vision tower and .4 for the last query
    in layer 1 of the language model. Its samples are single images: the comparison here is within
    frames, mean over frames. The tower's layer is the last but one, which is FasterVLM's choice
    for pruning. One forward, shared; the tower's attention is read in full.

    Attributes:
        layer: of the language model, for the dispersion.

    Values: slope, slope_over_uniform, rank_correlation [query_set, layer], shift [query_set,
    bin] (mean over layers, in ten bins of place), c20 [layer] over all visual tokens,
    c20_frames [layer] within frames. shift_slope_SET and over_uniform_slope_SET: mean over layers
    (expected: above 0); c20_llm, c20_llm_frames at `layer`; c20_cls (expected: at least .7) and
    c20_gap = c20_cls - c20_llm_frames (expected: above .2), NaN where the tower has no CLS;
    c20_received, gap_received: the same with the tower's mean received attention, a proxy, where
    it has none.
    """

    source: ClassVar[str] = "FasterVLM (arXiv 2412.01818)"

    layer: int = 1

    def reads(self, case: Case) -> list[Capture]:
        captures: list[Capture] = [
            AttentionReceived(queries=list(SETS.values())),
            QueriesThatSee(list(SETS.values())),
        ]
        return [*captures, _tower(case)] if case.model.vision is not None else captures

    def measure(self, case: Case) -> Values:
        import xarray as xr

        if not 0 <= self.layer < case.model.n_layers:
            last = case.model.n_layers - 1
            raise ProbeError(f"{self.kind}: layer={self.layer}; the model has layers 0 to {last}")
        layout = case.x.layout
        tokens, frames = clip_tokens(layout), by_frame(layout, self.kind)
        received = case.of(AttentionReceived(queries=list(SETS.values()))).mean("head")
        see = case.of(QueriesThatSee(list(SETS.values())))
        sizes = np.array([len(layout.select(what)) for what in SETS.values()])[:, None]
        mass = received.values.astype(np.float64) * sizes  # [layer, set, position]
        shift = _over(mass, see.sel(quantity="rows").values)[..., tokens]
        fair = _over(mass, see.sel(quantity="uniform").values)[..., tokens]
        own = mass[:, list(SETS).index("last")]
        layers = np.arange(len(own))
        found = {
            "slope": slope(shift),
            "slope_over_uniform": slope(fair),
            "rank_correlation": spearman(shift, np.arange(len(tokens))),
        }
        dims = {"query_set": list(SETS), "layer": layers}
        about = {
            "slope": "slope of attention on place in the clip, in units of its mean",
            "slope_over_uniform": "the same relative to uniform attention",
            "rank_correlation": "Spearman of attention and place in the clip",
        }
        values: dict[str, float | xr.DataArray] = {
            name: xr.DataArray(
                array.T, dims, list(dims), attrs={"units": "1", "description": about[name]}
            )
            for name, array in found.items()
        }
        relative = (shift / shift.mean(-1, keepdims=True)).mean(0)
        bins = np.array_split(np.arange(len(tokens)), min(BINS, len(tokens)))
        place = [float(np.mean(part) / max(1, len(tokens) - 1)) for part in bins]
        values["shift"] = xr.DataArray(
            np.stack([relative[:, part].mean(-1) for part in bins], -1),
            {"query_set": list(SETS), "place": place},
            ["query_set", "place"],
            attrs={"units": "1", "description": "attention in units of its mean, by place"},
        )
        whole, within = top_share(own[:, tokens]), top_share(own[:, frames]).mean(-1)
        for name, line in (("c20", whole), ("c20_frames", within)):
            what = "in the top 20 % of the visual tokens" + (" of a frame" if name[3:] else "")
            values[name] = xr.DataArray(
                line,
                {"layer": layers},
                ["layer"],
                attrs={"units": "1", "description": f"part of the mass {what}"},
            )
        for number, name in enumerate(SETS):
            values[f"shift_slope_{name}"] = float(found["slope"][:, number].mean())
            values[f"over_uniform_slope_{name}"] = float(
                found["slope_over_uniform"][:, number].mean()
            )
        values["c20_llm"] = float(whole[self.layer])
        values["c20_llm_frames"] = float(within[self.layer])
        return values | _of_tower(case, float(within[self.layer]))


def _tower(case: Case) -> VisionAttention:
    from probe.engine.vision_parts import vision_tower

    return VisionAttention(layers=max(0, len(vision_tower(case.model).layers) - 2))


def _of_tower(case: Case, llm: float) -> dict[str, float]:
    names = ("c20_cls", "c20_gap", "c20_received", "gap_received")
    found: dict[str, float] = dict.fromkeys(names, float("nan"))
    if case.model.vision is None:
        return found
    attention = case.of(_tower(case)).isel(vision_layer=0, vision_query=0).mean("vision_head")
    frames = attention.transpose("frame", "patch").values.astype(np.float64)
    shares = [top_share(frame[np.isfinite(frame)]) for frame in frames]
    tower = float(np.mean(shares))
    cls = str(attention.vision_query.values) == CLS
    return found | dict(zip(names[:2] if cls else names[2:], (tower, tower - llm), strict=True))


def _over(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.divide(a, b))


def slope(values: Float[np.ndarray, "*any place"]) -> Float[np.ndarray, "*any"]:
    """Slope of a line through values in units of their mean, over place 0 to 1."""
    place = np.linspace(0, 1, values.shape[-1])
    away = place - place.mean()
    relative = _over(values, values.mean(-1, keepdims=True))
    return np.asarray(relative @ away / (away @ away))


def top_share(
    mass: Float[np.ndarray, "*any token"], part: float = 0.2
) -> Float[np.ndarray, "*any"]:
    """Part of the mass that the largest values hold, with as many as `part` of them, rounded up;
    NaN without mass.
    """
    count = int(np.ceil(part * mass.shape[-1] - 1e-9))
    top = np.sort(mass, -1)[..., -count:].sum(-1)
    return np.asarray(_over(top, mass.sum(-1)))
