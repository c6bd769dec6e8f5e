"""Importance maps: one number for each video token, and how right they are."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "AttentionMap": "attention",
    "CentreMap": "prior",
    "ContributionMap": "values",
    "EvidenceMap": "truth",
    "Faithfulness": "faithful",
    "FindsEvidence": "finds_evidence",
    "GradientMap": "gradients",
    "ImportanceMap": "base",
    "OcclusionMap": "occlusion",
    "RandomMap": "prior",
    "ReceivedMap": "attention",
    "RelevanceMap": "gradients",
    "UniformMap": "prior",
    "UnlikeMap": "prior",
    "ValueNormMap": "values",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'probe.diagnose.importance' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.diagnose.importance.{_MODULES[name]}"), name)
