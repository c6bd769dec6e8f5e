"""Diagnoses: what captures and ablations mean, on one clip and over many samples."""

from __future__ import annotations

import importlib
from typing import Any

from probe.diagnose.base import Diagnosis, diagnose
from probe.diagnose.case import Case
from probe.diagnose.hallucination import counterfactuals, influence
from probe.diagnose.items import counterfactuals_over, existence, redundancy_over
from probe.diagnose.margin import Margin, margin
from probe.diagnose.patching import patching
from probe.diagnose.redundancy import droppable_from, redundancy
from probe.diagnose.registry import DIAGNOSES
from probe.diagnose.similarity import FrameSimilarity
from probe.diagnose.testbed import case_of

__all__ = [
    "Case",
    "Diagnosis",
    "FrameSimilarity",
    "Margin",
    "case_of",
    "counterfactuals",
    "counterfactuals_over",
    "diagnose",
    "diagnoses",
    "droppable_from",
    "existence",
    "influence",
    "margin",
    "parse",
    "patching",
    "redundancy",
    "redundancy_over",
    *DIAGNOSES,
]


def __getattr__(name: str) -> Any:
    if name not in DIAGNOSES:
        raise AttributeError(f"module 'probe.diagnose' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.diagnose.{DIAGNOSES[name]}"), name)


def diagnoses() -> dict[str, type]:
    """Every diagnosis by class name, for the command line and JSON."""
    return {name: __getattr__(name) for name in DIAGNOSES}


def parse(text: str) -> list[Diagnosis]:
    """Diagnoses from text such as "RankStability(queries='question')", without eval.

    Arguments may be parts of ablations: "Deletion(by=[Norm()])".

    Raises:
        ProbeError: text that is not calls of known names with plain arguments, or no diagnosis.
    """
    from probe import ablate, spec
    from probe.errors import ProbeError

    found = spec.parse(text, spec.Lazy(__name__, DIAGNOSES, ablate.names()))
    wrong = next((one for one in found if not isinstance(one, Diagnosis)), None)
    if wrong is not None:
        raise ProbeError(f"'{wrong}' is no diagnosis; `probe diagnoses` lists them")
    return found
