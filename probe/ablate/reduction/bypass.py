"""Bypass: unselected tokens pass one layer by in the residual stream (mixture of depths)."""

from __future__ import annotations

from dataclasses import dataclass

from probe.ablate.reduction.rest import Drop


@dataclass(frozen=True)
class Bypass(Drop):
    """They are there again behind the layer, unchanged, and leave no key in it (Raposo et al.
    2024, arXiv 2404.02258; VideoLLM-MoD).
    """
