"""Redundancy on one clip: how much of the video the answer needs, and until which layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from probe.ablate.reduce import Layer, Reduce
from probe.ablate.reduction.parts import Score
from probe.ablate.scores import LastQuery, Norm, Random, Uniform
from probe.capture.mass import AttentionMass
from probe.diagnose.margin import Margin, margin
from probe.diagnose.similarity import FrameSimilarity
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

KEEP = (0.75, 0.5, 0.25, 0.1, 0.05, 0.02)


def redundancy(
    model: VideoModel,
    x: Example,
    against: Margin | None = None,
    *,
    keep: Sequence[float] = KEEP,
    at: int = 2,
    seeds: int = 5,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, pd.DataFrame]:
    """Four tables.

    Args:
        model, x: an example without an answer, with a clip.
        against: the margin to follow; the model's own answer against its best rival by default.
        keep: fractions of visual tokens kept from layer `at` on.
        at: first layer that works on fewer tokens.
        seeds: random choices that make the control's band.
        progress: called after each run.

    Returns:
        attention_to_video: layer, mass: attention from the last position to all video tokens,
            mean over heads.
        frame_similarity: layer, similarity: cosine of adjacent frames, mean over pairs.
        kept: score, keep, tokens, margin, margin_low, margin_high, answer. Scores are attention
            (FastV), norm, uniform and random; for random the margin is the mean over seeds and
            low and high are the extremes. keep = 1 is the untouched run.
        drop_from_layer: layer, margin, answer, with all video tokens gone from that layer on; the
            last row (layer = number of layers) is the untouched run.
    """
    import pandas as pd

    if not x.layout.clips or x.answer is not None:
        raise ProbeError("redundancy: encode a clip and a question, without an answer")
    full = model.run(x, [AttentionMass(queries=["last"], keys=["video"]), FrameSimilarity()])
    progress()
    follow = against or margin(model, x, full)
    mass = full.data.attention_mass.mean("head").values[:, 0, 0]
    similarity = full.data.frame_similarity.mean("pair").values
    layers = np.arange(model.n_layers)
    at = min(at, model.n_layers - 1)
    return {
        "attention_to_video": pd.DataFrame({"layer": layers, "mass": mass}),
        "frame_similarity": pd.DataFrame({"layer": layers, "similarity": similarity}),
        "kept": _kept(model, x, follow, full, keep, at, seeds, progress),
        "drop_from_layer": _dropped(model, x, follow, progress),
    }


def _kept(model, x, follow, full, keep, at, seeds, progress) -> pd.DataFrame:
    import pandas as pd

    count = len(x.layout.select("video"))
    scores: dict[str, list[Score]] = {
        "attention": [LastQuery()],
        "norm": [Norm()],
        "uniform": [Uniform()],
        "random": [Random(seed) for seed in range(seeds)],
    }
    every = [
        (name, fraction, Reduce(at=Layer(at), score=score, keep=fraction))
        for name, variants in scores.items()
        for fraction in keep
        for score in variants
    ]
    video = x.layout.select("video")

    def read(run: Run) -> dict[str, float]:
        return {"margin": follow.of(run), "tokens": int(run.kept.values[-1][video].sum())}

    swept = model.sweep(x, [one for _, _, one in every], read, progress=progress).iloc[1:]
    rows = []
    for name, variants in scores.items():
        untouched = follow.of(full)
        rows.append((name, 1.0, count, untouched, untouched, untouched, full.tokens[0]))
        for fraction in keep:
            mine = [n == name and f == fraction for n, f, _ in every]
            found = swept[mine]
            margins, answers = found["margin"].tolist(), found["answer"].tolist()
            assert len(margins) == len(variants)
            rows.append(
                (
                    name,
                    fraction,
                    int(found["tokens"].iloc[0]),
                    float(np.mean(margins)),
                    min(margins),
                    max(margins),
                    max(set(answers), key=answers.count),
                )
            )
    names = ["score", "keep", "tokens", "margin", "margin_low", "margin_high", "answer"]
    return pd.DataFrame(rows, columns=names)


def _dropped(model, x, follow, progress) -> pd.DataFrame:
    every = [
        Reduce(at=Layer(layer), score=Uniform(), keep_tokens=0) for layer in range(model.n_layers)
    ]
    swept = model.sweep(x, every, follow, progress=progress)
    table = swept[["value", "answer"]].rename(columns={"value": "margin"})
    table = table.iloc[[*range(1, len(table)), 0]].reset_index(drop=True)
    table.insert(0, "layer", np.arange(model.n_layers + 1))
    return table


def droppable_from(table: pd.DataFrame, blind: float, share: float = 0.95) -> int:
    """First layer from which on the video can go and `share` of the margin it earns stays.

    Args:
        table: drop_from_layer.
        blind: margin without any clip.
        share: part of (full - blind) that must stay.
    """
    full = float(table["margin"].iloc[-1])
    enough = np.asarray(table["margin"], dtype=float) - blind >= share * (full - blind)
    layers = np.asarray(table["layer"])
    late = [layer for place, layer in enumerate(layers) if enough[place:].all()]
    return int(late[0]) if late else int(layers[-1])
