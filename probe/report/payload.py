"""What the page draws from: the findings as compact JSON, and the frames as pictures."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.tables import (
    by_score,
    contribution_by_source,
    frame_labels,
    mass_by_frame,
    mass_by_head,
    overlays,
    short,
    title_of,
)
from probe.report.numbers import fixed

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from jaxtyping import UInt8

    from probe.report.findings import Findings

LONGEST = 448  # pixels of an embedded frame's longer side
STEPS = 65535


def payload(findings: Findings) -> dict[str, Any]:
    """Everything the page's script needs, JSON-ready; numbers keep six digits.

    Overlays hold a value per layer, frame, row and column in 16 bits, base64: see `pack`.
    """
    data, layout, clip = findings.data, findings.layout, findings.clip
    labels = frame_labels(data.attention_mass.key_group.values)
    groups = layout.frames
    return {
        "size": list(clip.frames.shape[1:3]),
        "seconds": _plain(clip.seconds),
        "times": [fixed(second) for second in clip.seconds],
        "source": [int(frame) for frame in clip.source_frames],
        "group": [
            next(g for g, f in enumerate(groups) if n in f) for n in range(len(clip.seconds))
        ],
        "groups": [short(label) for label in labels],
        "evidence": [
            {"frame": int(f), "box": [float(x) for x in box]} for f, box in findings.evidence
        ],
        "layers": [int(layer) for layer in data.layer.values],
        "overlays": [
            _overlay(findings, name, values) for name, values in overlays(findings).items()
        ],
        "heads": [_heads(data, str(query)) for query in data.attention_mass.query_group.values],
        "contributions": _contributions(data),
        "kept": _kept(findings.redundancy["kept"]),
        "drop": _columns(findings.redundancy["drop_from_layer"], "layer", "margin", "answer"),
        "profile": {
            "mass": _plain(findings.redundancy["attention_to_video"]["mass"]),
            "similarity": _plain(findings.redundancy["frame_similarity"]["similarity"]),
        },
        "full": _plain(findings.full_margin),
        "blind": _plain(findings.blind_margin),
        "of": title_of(findings.target, findings.versus),
    }


def embed(data: dict[str, Any]) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def pictures(frames: UInt8[np.ndarray, "time height width 3"]) -> list[str]:
    """Each frame as a data URI: small ones as PNG, larger ones as JPEG of at most 448 pixels."""
    from PIL import Image

    found = []
    for frame in frames:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        small = max(picture.size) <= 160
        if max(picture.size) > LONGEST:
            picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        kind, options = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 80})
        picture.save(buffer, kind, **options)
        found.append(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return found


def pack(values: np.ndarray) -> dict[str, Any]:
    """[layer, ...] as base64 of little-endian 16-bit numbers, each layer on its own scale.

    Step s of layer l stands for low[l] + s / 65534 * (high[l] - low[l]); 65535 for no value.
    """
    flat = np.asarray(values, dtype=float).reshape(len(values), -1)
    empty = ~np.isfinite(flat).any(1, keepdims=True)
    low = np.nanmin(np.where(empty, 0, flat), 1, keepdims=True)
    high = np.nanmax(np.where(empty, 0, flat), 1, keepdims=True)
    width = np.where(high > low, high - low, 1)
    steps = np.where(np.isfinite(flat), np.round((flat - low) / width * (STEPS - 1)), STEPS)
    packed = base64.b64encode(steps.astype("<u2").tobytes()).decode()
    return {"low": _plain(low[:, 0], 9), "high": _plain(high[:, 0], 9), "values": packed}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """What `pack` packed, [layer, cell]."""
    low, high = (np.asarray(packed[name], dtype=float)[:, None] for name in ("low", "high"))
    steps = np.frombuffer(base64.b64decode(packed["values"]), "<u2").reshape(len(low), -1)
    return np.where(steps == STEPS, np.nan, low + steps / (STEPS - 1) * (high - low))


def _overlay(findings: Findings, name: str, values: xr.DataArray) -> dict[str, Any]:
    layout, data = findings.layout, findings.data
    painted = [layout.paint(row.astype(float), size=layout.grid) for row in values.values]
    if "query_group" in values.coords:
        table = mass_by_frame(data.attention_mass, str(values.query_group.item()))
        unit, about = "share of attention", "mean over heads"
    else:
        heads = data.contributions_attention.sum("head")
        table = heads.sel(source_group=frame_labels(heads.source_group.values))
        unit, about = "logits", "all heads"
    return {
        "name": name,
        "unit": unit,
        "about": about,
        "grid": list(layout.grid or (1, 1)),
        "byFrame": _plain(table.values),
        **pack(np.stack(painted)),
    }


def _heads(data: xr.Dataset, query: str) -> dict[str, Any]:
    found = {"query": query, "mass": _plain(mass_by_head(data.attention_mass, query).values)}
    if "attention_entropy" in data:
        found["entropy"] = _plain(data.attention_entropy.sel(query_group=query).values)
    return found


def _contributions(data: xr.Dataset) -> dict[str, Any]:
    parts = data.contributions.transpose("layer", "part")
    parts = parts.sel(part=[p for p in parts.part.values if abs(parts.sel(part=p)).sum() > 0])
    sources = contribution_by_source(data.contributions_attention)
    labels = [str(label) for label in sources.source_group.values]
    frames = set(frame_labels(labels))
    return {
        "parts": [str(part) for part in parts.part.values],
        "values": _plain(parts.values),
        "sum": _plain(float(parts.sum())),
        "frames": _plain([float(sources.sel(source_group=x)) for x in labels if x in frames]),
        "others": [
            {"label": x, "value": _plain(float(sources.sel(source_group=x)))}
            for x in labels
            if x not in frames
        ],
    }


def _kept(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = ("tokens", "margin", "margin_low", "margin_high", "answer")
    return [{"score": name, **_columns(part, *columns)} for name, part in by_score(table).items()]


def _columns(table: pd.DataFrame, *names: str) -> dict[str, Any]:
    return {name: _plain(table[name].tolist()) for name in names}


def _plain(value: Any, digits: int = 6) -> Any:
    """Numbers as JSON knows them, rounded to a number of digits; no value is null."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [_plain(item, digits) for item in value]
    if isinstance(value, int):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
