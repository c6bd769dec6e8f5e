"""Findings: everything one report shows about one clip and one question."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.models.layout import Layout
    from probe.video import Clip


@dataclass(frozen=True)
class Findings:
    """What `probe demo` and `probe run` found; page, figures and data.zarr are drawn from it.

    Attributes:
        model: name the checkpoint was loaded by.
        clip: the frames the model was given, with their times.
        question: the question as asked.
        answer: what the model answered (greedy).
        target, versus: the two answers whose logit difference is the margin.
        gold: the right answer where it is known, else None.
        layout: the token layout of the encoded example.
        evidence: (frame, (x0, y0, x1, y1)) boxes that decide the question, where known.
        notes: sentences the reader must see first (foreign clip, partial file, ...).
        data: xarray.Dataset of the captured run, with the variables
            attention_mass (layer, head, query_group, key_group),
            attention_received (layer, head, query_group, position),
            attention_entropy (layer, head, query_group), token_norms (vector, layer, position),
            contributions (layer, part), contributions_attention (layer, head, source_group),
            logit_lens_probability (lens_layer, readout, rank) and logit_lens_token (same dims).
        tokens: one row per generated token: step, token, influence (KL in nats between the next
            token as is and with video -> text cut), entropy (nats), video_mass (0 to 1).
        redundancy: tables by name: attention_to_video (layer, mass), frame_similarity
            (layer, similarity), kept (score, keep, tokens, margin, margin_low, margin_high,
            answer), drop_from_layer (layer, margin, answer).
        hallucination: tables by name: counterfactuals (clip, margin, probability, answer), and
            over many items existence (split, n, accuracy, low, high, yes_rate) where it was run.
        full_margin, blind_margin: margin with everything, and without any clip.
        ablations: one row per ablation run on this clip: name, margin, answer, tokens_kept
            (mean share of the video tokens over layers), flops_ratio, kv_ratio, visual_tokens
            (by layer, as text), own (asked for by the user).
        checks: one row per self-check: name, value, limit, passed.
        summary: the five lines printed at the end.
        manifest: versions, seeds, settings, input hashes, the command that repeats it.
    """

    model: str
    clip: Clip
    question: str
    answer: str
    target: str
    versus: str | None
    gold: str | None
    layout: Layout
    data: xr.Dataset
    tokens: pd.DataFrame
    redundancy: dict[str, pd.DataFrame]
    hallucination: dict[str, pd.DataFrame]
    full_margin: float
    blind_margin: float
    ablations: pd.DataFrame
    checks: pd.DataFrame
    summary: tuple[str, ...]
    manifest: dict[str, Any]
    evidence: tuple[tuple[int, tuple[int, int, int, int]], ...] = ()
    notes: tuple[str, ...] = field(default=())
