"""The figures of one set of findings, by file name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.answer import generated_tokens, logit_lens
from probe.plot.attention import attention_map, head_grid, layer_profile
from probe.plot.contributions import contributions_by_frame, contributions_by_layer
from probe.plot.curves import counterfactual_clips, drop_from_layer, kept_tokens
from probe.plot.frames import frame_strip, strip_height
from probe.plot.style import DOUBLE, new_figure, panel_labels, paper
from probe.plot.tables import mass_by_frame, overlays, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probe.report.findings import Findings


def figures(findings: Findings) -> Iterator[tuple[str, Figure]]:
    """Every figure of a report as (file name without ending, figure), made one at a time."""
    data, seconds = findings.data, findings.clip.seconds
    of = title_of(findings.target, findings.versus)
    levels = findings.full_margin, findings.blind_margin
    yield "overview", overview(findings)
    for query in map(str, data.attention_mass.query_group.values):
        yield (
            f"attention_by_frame_{query}",
            attention_map(data.attention_mass, query, seconds=seconds),
        )
        yield f"attention_by_head_{query}", head_grid(data.attention_mass, query)
    for name in overlays(findings):
        yield f"frames_{name.replace(' ', '_')}", strip(findings, name)
    yield "contributions_by_layer", contributions_by_layer(data.contributions, of)
    yield "contributions_by_frame", contributions_by_frame(data.contributions_attention, of)
    redundancy = findings.redundancy
    yield "layers", layer_profile(redundancy["attention_to_video"], redundancy["frame_similarity"])
    yield "kept_tokens", kept_tokens(redundancy["kept"], *levels, of)
    yield "drop_from_layer", drop_from_layer(redundancy["drop_from_layer"], *levels, of)
    yield "other_clips", counterfactual_clips(findings.hallucination["counterfactuals"], of)
    yield "generated_tokens", generated_tokens(findings.tokens)
    yield "logit_lens", logit_lens(data, findings.target, findings.versus)


def busiest_layer(findings: Findings, query: str) -> int:
    """The layer in which a query group attends most to the video, mean over heads."""
    total = mass_by_frame(findings.data.attention_mass, query).sum("key_group")
    return int(total.idxmax("layer"))


def strip(findings: Findings, name: str, figure: Figure | None = None) -> Figure:
    """The frames under one of `overlays(findings)`.

    Attention is that of the layer in which it looks at the video most; contributions are summed
    over layers.
    """
    values = overlays(findings)[name]
    if "query_group" in values.coords:
        layer = busiest_layer(findings, str(values.query_group.item()))
        vector, label = values.sel(layer=layer), f"{name},\nlayer {layer}"
    else:
        vector, label = values.sum("layer", min_count=1), f"{name}\n(logits)"
    painted = findings.layout.paint(np.asarray(vector.values, dtype=float))
    return frame_strip(
        findings.clip.frames,
        painted,
        seconds=findings.clip.seconds,
        label=label,
        evidence=findings.evidence,
        figure=figure,
    )


@paper()
def overview(findings: Findings) -> Figure:
    """One two-column figure: tinted frames, attention, contributions, what the answer needs."""
    data = findings.data
    query = str(data.attention_mass.query_group.values[-1])
    shape = findings.clip.frames.shape
    tall = strip_height(shape[0], shape[1] / shape[2]) + 0.2
    figure = new_figure(DOUBLE, tall + 3.8)
    halves: Any = figure.subfigures(2, 1, height_ratios=[tall, 3.8])
    top, bottom = halves
    strip(findings, f"attention from {query}", top)
    panels = bottom.subplots(2, 2).flat
    of = title_of(findings.target, findings.versus)
    levels = findings.full_margin, findings.blind_margin
    attention_map(data.attention_mass, query, seconds=findings.clip.seconds, ax=panels[0])
    contributions_by_layer(data.contributions, of, ax=panels[1])
    kept_tokens(findings.redundancy["kept"], *levels, of, ax=panels[2])
    drop_from_layer(findings.redundancy["drop_from_layer"], *levels, of, ax=panels[3])
    panel_labels([top, *panels])
    return figure
