"""Findings with the structure of a real analysis, from a seed: 6 layers, 4 heads, 16 frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from probe.models.layout import Layout
from probe.models.visual import Visual, VisualGrid
from probe.report.findings import Findings
from probe.video import Clip

LAYERS, HEADS, FRAMES, SIDE, PIXELS = 6, 4, 16, 6, 96
QUESTION = "Which appears first, the red circle or the blue square?"
QUERIES = ["question", "last"]
FULL, BLIND = 6.4, 0.7


@dataclass(frozen=True)
class Shape:
    """What a synthetic analysis has: sizes that tests vary."""

    layers: int = LAYERS
    heads: int = HEADS
    frames: int = FRAMES
    rows: int = SIDE
    cols: int = SIDE
    height: int = PIXELS
    width: int = PIXELS


def findings(shape: Shape | None = None, **changed) -> Findings:
    """A whole synthetic result; keyword arguments replace fields."""
    shape = shape or Shape()
    rng = np.random.default_rng(0)
    layout = _layout(shape)
    fields = {
        "model": "testbed/onevision",
        "clip": _clip(shape),
        "question": QUESTION,
        "answer": "red circle",
        "target": "red",
        "versus": "blue",
        "gold": "red circle",
        "layout": layout,
        "data": _data(rng, shape, layout),
        "tokens": _tokens(),
        "redundancy": _redundancy(shape),
        "hallucination": _hallucination(),
        "full_margin": FULL,
        "blind_margin": BLIND,
        "ablations": _ablations(),
        "checks": _checks(),
        "summary": (
            "It answers 'red' with probability 0.98, 6.4 logits ahead of 'blue'; without the clip "
            "the margin is 0.7.",
            "It looks at the video most in layer 2 (61% of the last position's attention); "
            "frame 4 adds most to the answer.",
            "The video can be dropped from layer 4 of 6 on; 57 of 576 tokens, chosen by "
            "attention, still give the same answer.",
            "The same answer comes out for these other clips: frozen.",
            "The generated token that depends most on the video is 'red' (3.1 nats); the mean "
            "is 1.2 nats.",
        ),
        "manifest": {
            "command": "probe demo --seed 0",
            "settings": {"seed": 0, "frames": shape.frames, "sha256": "9f86d081884c7d65" * 4},
            "versions": {"python": "3.11.9", "probe": "0.1.0", "torch": "2.11.0"},
            "platform": "Linux x86_64",
        },
        "evidence": tuple((f, (22 + 6 * f - 13, 39, 22 + 6 * f + 12, 64)) for f in (2, 3, 4)),
    }
    return Findings(**(fields | changed))


def _layout(shape: Shape) -> Layout:
    cells = shape.rows * shape.cols
    video = np.arange(shape.frames * cells)
    before, after = "<|im_start|>user\n".split("|"), QUESTION.split()
    role = np.array(
        ["template"] * len(before)
        + ["video"] * len(video)
        + ["newline"]
        + ["question"] * len(after)
        + ["template"] * 3
    )
    none = np.full
    pad, end = len(before), len(after) + 4

    def whole(values: np.ndarray) -> np.ndarray:
        return np.concatenate([none(pad, -1), values, none(end, -1)])

    def edges(count: int) -> np.ndarray:
        return np.stack([np.arange(count), np.arange(1, count + 1)], 1) / count

    grid = VisualGrid(
        role=np.array(["video"] * len(video) + ["newline"]),
        group=np.append(video // cells, -1),
        row=np.append(video % cells // shape.cols, -1),
        col=np.append(video % shape.cols, -1),
        frames=tuple((frame,) for frame in range(shape.frames)),
        row_edges=edges(shape.rows),
        col_edges=edges(shape.cols),
    )
    seconds = np.arange(shape.frames) * 0.125
    tokens = [
        *before,
        *["<video>"] * len(video),
        "<video>",
        *after,
        "<|im_end|>",
        "\n",
        "assistant",
    ]
    return Layout(
        tokens=tuple(tokens),
        role=role,
        group=whole(video // cells),
        row=whole(video % cells // shape.cols),
        col=whole(video % shape.cols),
        visual=whole(np.zeros(len(video), int)),
        visuals=(Visual("video", 0, shape.frames, (shape.height, shape.width), grid=grid),),
        seconds=seconds,
        ends=seconds + 0.125,
        source_frame=np.arange(shape.frames) * 2,
        last=len(tokens) - 1,
        readout=np.array([len(tokens) - 1]),
    )


def _clip(shape: Shape) -> Clip:
    y, x = np.mgrid[: shape.height, : shape.width]
    base = np.stack([90 + 60 * y / shape.height, 95 + 50 * x / shape.width, 110 + 0 * x], -1)
    frames = np.repeat(base[None], shape.frames, 0)
    unit = shape.height / 8
    for frame in range(shape.frames):
        cx, cy = (1.8 + 0.5 * frame) * unit * shape.width / shape.height, 4.3 * unit
        if frame >= 2:
            frames[frame][(x - cx) ** 2 + (y - cy) ** 2 < unit**2] = (205, 40, 40)
        if frame >= 8:
            top = (0.4 + 0.2 * frame) * unit
            square = (abs(x - 0.75 * shape.width) < unit) & (abs(y - top - unit) < unit)
            frames[frame][square] = (40, 70, 200)
    return Clip(
        frames=frames.clip(0, 255).astype(np.uint8),
        seconds=np.arange(shape.frames) * 0.125,
        source_frames=np.arange(shape.frames) * 2,
        fps=16.0,
        source="clip.mp4",
        duration=shape.frames * 0.125,
        note=None,
    )


def _data(rng: np.random.Generator, shape: Shape, layout: Layout) -> xr.Dataset:
    layers, heads = np.arange(shape.layers), np.arange(shape.heads)
    keys = list(layout.partition("frames"))
    logits = rng.normal(0, 0.7, (shape.layers, shape.heads, len(QUERIES), len(keys)))
    depth = np.exp(-(((layers / shape.layers - 0.4) / 0.25) ** 2))
    for number, key in enumerate(keys):
        if key.startswith("frame"):
            near = np.exp(-(((int(key.split()[1]) - 4) / 3) ** 2))
            logits[..., number] += -1 + 2.6 * near * depth[:, None, None]
    mass = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    received = rng.gamma(0.6, 1e-3, (shape.layers, shape.heads, len(QUERIES), len(layout)))
    hit = (abs(layout.col - (0.9 + 0.37 * layout.group)) < 0.8) & (abs(layout.row - 2.8) < 1)
    hit &= layout.group >= 2
    received[..., hit] += 0.012 * depth[:, None, None, None] * rng.random(int(hit.sum()))
    token = rng.normal(0, 0.004, (shape.layers, len(layout)))
    token[:, hit] += 0.03 * depth[:, None]
    by_frame = rng.normal(0, 0.02, (shape.layers, shape.heads, len(keys)))
    for number, key in enumerate(keys):
        if key.startswith("frame"):
            near = np.exp(-(((int(key.split()[1]) - 4) / 2.5) ** 2))
            by_frame[..., number] += 0.14 * near * depth[:, None]
    parts = np.zeros((shape.layers, 3))
    parts[0, 0] = 0.3
    parts[:, 1] = by_frame.sum((1, 2))
    parts[:, 2] = rng.normal(0, 0.4, shape.layers)
    parts[-1, 2] += FULL - parts.sum()
    lens = _lens(rng, shape)
    units = {"units": "1"}
    return xr.Dataset(
        {
            "attention_mass": (("layer", "head", "query_group", "key_group"), mass, units),
            "attention_received": (("layer", "head", "query_group", "position"), received, units),
            "attention_entropy": (
                ("layer", "head", "query_group"),
                rng.uniform(1, 5, mass.shape[:3]),
                {"units": "nat"},
            ),
            "token_norms": (
                ("vector", "layer", "position"),
                rng.gamma(4, 1, (3, shape.layers, len(layout))),
            ),
            "contributions": (("layer", "part"), parts, {"units": "logit"}),
            "contributions_attention": (("layer", "head", "source_group"), by_frame),
            "contributions_position": (("layer", "position"), token),
            "contributions_logit": ((), FULL),
            "contributions_error": ((), 3.1e-7),
            **lens,
        },
        coords={
            "layer": layers,
            "head": heads,
            "query_group": QUERIES,
            "key_group": keys,
            "source_group": keys,
            "part": ["embedding", "attention", "mlp"],
            "vector": ["residual", "key", "value"],
            "position": np.arange(len(layout)),
            "lens_layer": np.arange(shape.layers + 1),
            "readout": layout.readout,
            "rank": np.arange(5),
        },
    )


def _lens(rng: np.random.Generator, shape: Shape) -> dict:
    words = np.array(["red", "blue", "green", "circle", " the", "yes", "left"])
    at = np.linspace(0, 1, shape.layers + 1)
    scores = rng.normal(0, 0.6, (shape.layers + 1, len(words)))
    scores[:, 0] += 6 * np.clip(at - 0.35, 0, None) / 0.65
    scores[:, 1] += 2.5 * np.sin(np.pi * at)
    p = np.exp(scores) / (np.exp(scores).sum(-1, keepdims=True) + 3 * (1 - at)[:, None])
    order = np.argsort(-p, -1)[:, :5]
    dims = ("lens_layer", "readout", "rank")
    return {
        "logit_lens_probability": (dims, np.take_along_axis(p, order, -1)[:, None]),
        "logit_lens_token": (dims, words[order][:, None]),
    }


def _tokens() -> pd.DataFrame:
    tokens = ["a", " red", " circle", " moves", " left", " and", " a", " blue", " square", "<eos>"]
    influence = [0.2, 3.1, 1.4, 0.4, 2.6, 0.1, 0.1, 2.9, 1.1, 0.02]
    return pd.DataFrame(
        {
            "step": range(len(tokens)),
            "token": tokens,
            "influence": influence,
            "entropy": np.linspace(0.6, 0.02, len(tokens)),
            "probability": np.linspace(0.98, 0.71, len(tokens)),
            "probability_cut": np.linspace(0.2, 0.5, len(tokens)),
            "video_mass": np.linspace(0.42, 0.11, len(tokens)),
        }
    )


def _redundancy(shape: Shape) -> dict[str, pd.DataFrame]:
    keep = np.array([1.0, 0.75, 0.5, 0.25, 0.1, 0.05, 0.02])
    count = np.round(keep * shape.frames * shape.rows * shape.cols).astype(int)
    rows = []
    for score, half in [("attention", 0.01), ("norm", 0.12), ("uniform", 0.05), ("random", 0.07)]:
        margin = BLIND + (FULL - BLIND) * keep / (keep + half) * (1 + half)
        width = 0.9 * (1 - keep) if score == "random" else 0 * keep
        answers = ["red" if m > 2 else "blue" for m in margin]
        table = {"score": score, "keep": keep, "tokens": count, "margin": margin}
        bounds = {"margin_low": margin - width, "margin_high": margin + width, "answer": answers}
        rows.append(pd.DataFrame(table | bounds))
    layers = np.arange(shape.layers)
    at = np.arange(shape.layers + 1)
    margin = BLIND + (FULL - BLIND) / (1 + np.exp(-(at - shape.layers * 0.5) * 8 / shape.layers))
    margin[-1] = FULL
    mass = 0.15 + 0.45 * np.exp(-(((layers / shape.layers - 0.4) / 0.25) ** 2))
    return {
        "attention_to_video": pd.DataFrame({"layer": layers, "mass": mass}),
        "frame_similarity": pd.DataFrame(
            {"layer": layers, "similarity": 0.98 - 0.2 * np.sqrt(layers / shape.layers)}
        ),
        "kept": pd.concat(rows, ignore_index=True),
        "drop_from_layer": pd.DataFrame(
            {"layer": at, "margin": margin, "answer": ["blue" if m < 2 else "red" for m in margin]}
        ),
    }


def _hallucination() -> dict[str, pd.DataFrame]:
    margins = [FULL, -1.8, 0.9, 5.2, 0.4, 0.6, BLIND]
    return {
        "counterfactuals": pd.DataFrame(
            {
                "clip": ["as is", "reversed", "shuffled", "frozen", "noise", "blank", "none"],
                "margin": margins,
                "probability": [0.98, 0.11, 0.55, 0.95, 0.4, 0.46, 0.47],
                "answer": ["red", "blue", "red", "red", "blue", "red", "red"],
            }
        ),
        "existence": pd.DataFrame(
            {
                "split": ["neutral", "hidden"],
                "n": [40, 40],
                "accuracy": [0.975, 0.5],
                "low": [0.925, 0.35],
                "high": [1.0, 0.65],
                "yes_rate": [0.49, 0.83],
                "expected_yes": [0.5, 0.5],
                "precision": [0.98, 0.5],
                "recall": [0.97, 0.83],
                "f1": [0.975, 0.62],
            }
        ),
    }


def _ablations() -> pd.DataFrame:
    rows = [
        ("nothing", FULL, "red", 1.0, 1.0),
        ("fastv(k=2, keep=0.5)", 6.3, "red", 0.67, 0.68),
        ("fastv(k=2, keep=0.1)", 4.9, "red", 0.4, 0.43),
        ("edvt()", 5.7, "red", 1.0, 1.11),
        ('knockout("video -> question")', 2.2, "red", 1.0, 1.0),
        ('knockout("video -> last")', 5.9, "red", 1.0, 1.0),
        ('knockout("video -> text", layers=[0, 1, 2])', -0.6, "blue", 1.0, 1.0),
        ('knockout("video -> text", layers=[3, 4, 5])', 5.1, "red", 1.0, 1.0),
    ]
    return pd.DataFrame(rows, columns=["name", "margin", "answer", "tokens_kept", "flops_ratio"])


def _checks() -> pd.DataFrame:
    rows = [
        ("attention mass sums to 1", 2.4e-7, 1e-5),
        ("contributions sum to the logit difference", 3.1e-7, 1e-4),
        ("capturing changes no logit", 0.0, 0.0),
        ("dropping tokens equals masking them", 7.2e-6, 1e-4),
        ("generation with a cache equals one full pass", 1.6e-5, 1e-3),
    ]
    table = pd.DataFrame(rows, columns=["name", "value", "limit"])
    return table.assign(passed=table["value"] <= table["limit"])
