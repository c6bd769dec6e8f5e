"""Figures: matplotlib for papers, plotly (`probe.plot.interactive`) for reading."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "attention_map": "attention",
    "head_grid": "attention",
    "layer_profile": "attention",
    "frame_strip": "frames",
    "contributions_by_layer": "contributions",
    "contributions_by_frame": "contributions",
    "kept_tokens": "curves",
    "drop_from_layer": "curves",
    "counterfactual_clips": "curves",
    "generated_tokens": "answer",
    "logit_lens": "answer",
    "patch_strip": "vision",
    "layer_similarity": "vision",
    "paint_patches": "vision",
    "reduction_matrix": "reduction",
    "reduced_frames": "reduction",
    "tokens_by_frame": "reduction",
    "tokens_by_layer": "reduction",
    "attention_by_place": "diagnoses",
    "flow_of_tokens": "diagnoses",
    "norms_by_layer": "diagnoses",
    "rank_agreement": "diagnoses",
    "ratio_by_head": "diagnoses",
    "retention_by_block": "diagnoses",
    "spectrum_by_layer": "diagnoses",
    "states_by_layer": "diagnoses",
    "static_and_bits": "diagnoses",
    "types_by_layer": "diagnoses",
    "overview": "gallery",
    "figures": "gallery",
    "paper": "style",
    "panel_labels": "style",
    "save": "style",
    "SINGLE": "style",
    "DOUBLE": "style",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'probe.plot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.plot.{_MODULES[name]}"), name)
