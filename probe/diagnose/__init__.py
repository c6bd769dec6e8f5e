"""Diagnoses: what captures and ablations mean, on one clip and over many items."""

from probe.diagnose.hallucination import counterfactuals, influence
from probe.diagnose.items import counterfactuals_over, existence, redundancy_over
from probe.diagnose.margin import Margin, margin
from probe.diagnose.patching import patching
from probe.diagnose.redundancy import droppable_from, redundancy
from probe.diagnose.similarity import FrameSimilarity

__all__ = [
    "FrameSimilarity",
    "Margin",
    "counterfactuals",
    "counterfactuals_over",
    "droppable_from",
    "existence",
    "influence",
    "margin",
    "patching",
    "redundancy",
    "redundancy_over",
]
