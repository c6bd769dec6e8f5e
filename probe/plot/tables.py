"""Plain tables that figures and pages are drawn from: means over heads, sums over frames."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.report.findings import Findings

SCORES = ("attention", "norm", "uniform", "random")
_FRAMES = re.compile(r"frames? (\d+)(?:-(\d+))?")


def frame_labels(labels: Iterable) -> list[str]:
    """Those group labels that select frames, in their order: "frame 3" or "frames 2-3"."""
    return [str(label) for label in labels if _FRAMES.fullmatch(str(label))]


def short(label: str) -> str:
    """A label for an axis that says frame: "frame 3" as "3", "frames 2-3" as "2–3"."""
    match = _FRAMES.fullmatch(label)
    if match is None:
        return label
    return match[1] if match[2] is None else f"{match[1]}–{match[2]}"


def mass_by_frame(mass: xr.DataArray, query: str) -> xr.DataArray:
    """Attention mass [layer, key_group] of one query group on each frame, mean over heads.

    Args:
        mass: attention_mass [layer, head, query_group, key_group].
        query: which query group.
    """
    frames = frame_labels(mass.key_group.values)
    return mass.sel(query_group=query, key_group=frames).mean("head")


def mass_by_head(mass: xr.DataArray, query: str) -> xr.DataArray:
    """Attention mass [layer, head] of one query group on all frames together."""
    frames = frame_labels(mass.key_group.values)
    return mass.sel(query_group=query, key_group=frames).sum("key_group", min_count=1)


def contribution_by_source(heads: xr.DataArray) -> xr.DataArray:
    """What attention brought from each group of source tokens [source_group], in logits.

    Args:
        heads: contributions_attention [layer, head, source_group].
    """
    return heads.sum(["layer", "head"])


def by_score(kept: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table of kept tokens by score, the known scores first, fewest tokens first."""
    there = dict.fromkeys(kept["score"].tolist())
    names = [name for name in SCORES if name in there]
    names += [name for name in there if name not in SCORES]
    return {name: kept.loc[kept["score"] == name].sort_values(by="tokens") for name in names}


def follow_lens(data: xr.Dataset, token: str, readout: int = 0) -> pd.DataFrame:
    """Probability of one token by layer, as far as the logit lens kept it.

    Returns:
        lens_layer, probability (of the token; where it is not among those kept, of the last one
        kept, which it cannot exceed), kept (whether it is among them).
    """
    import pandas as pd

    probability = data.logit_lens_probability.isel(readout=readout)
    probability = probability.transpose("lens_layer", "rank").values
    tokens = data.logit_lens_token.isel(readout=readout).transpose("lens_layer", "rank").values
    hit = tokens.astype(str) == token
    value = np.where(hit.any(1), (probability * hit).sum(1), probability.min(1))
    return pd.DataFrame(
        {"lens_layer": data.lens_layer.values, "probability": value, "kept": hit.any(1)}
    )


def overlays(findings: Findings) -> dict[str, xr.DataArray]:
    """What can be painted over the frames, each [layer, position], mean or sum over heads.

    "attention from <query group>" is attention received by each token; "contribution", where the
    run has `contributions_position`, is what attention brought from the token to the margin.
    """
    received = findings.data.attention_received.mean("head")
    found = {
        f"attention from {query}": received.sel(query_group=query)
        for query in received.query_group.values
    }
    if "contributions_position" in findings.data:
        found["contribution"] = findings.data.contributions_position
    return found


def printable(token: str, width: int | None = None) -> str:
    """A token as it can be shown: edges trimmed, control characters visible, cut at `width`."""
    shown = "".join(
        {"\n": "↵", "\t": "⇥"}.get(c, c if c.isprintable() else "·") for c in token
    ).strip()
    shown = shown or "␣"
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"


def title_of(target: str, versus: str | None) -> str:
    """What a margin measures, for an axis: the logit of "red − blue", or of "red" alone."""
    of = printable(target, 10)
    return of if versus is None else f"{of} − {printable(versus, 10)}"
