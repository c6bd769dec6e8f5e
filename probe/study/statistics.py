"""The statistics of a study: differences, accuracies, rankings, calibration and curves.

Everything takes one value a sample and the video of each sample (`clusters`), resamples whole
videos, depends on the seed and not on the order of the samples, and returns a frozen result with
`to_json()` and a line for a table.
"""

from probe.study.statistics_accuracy import Accuracy, McNemar, accuracy, mcnemar
from probe.study.statistics_calibration import Bin, Calibration, calibration, risk_coverage
from probe.study.statistics_correlation import spearman
from probe.study.statistics_curve import CONTROLS, curve
from probe.study.statistics_difference import Difference, difference
from probe.study.statistics_equivalence import Equivalence, equivalence
from probe.study.statistics_holm import families, holm
from probe.study.statistics_ranking import auroc, average_precision, fifths
from probe.study.statistics_ranking_difference import RankingDifference, auroc_difference
from probe.study.statistics_result import Estimate

__all__ = [
    "CONTROLS",
    "Accuracy",
    "Bin",
    "Calibration",
    "Difference",
    "Equivalence",
    "Estimate",
    "McNemar",
    "RankingDifference",
    "accuracy",
    "auroc",
    "auroc_difference",
    "average_precision",
    "calibration",
    "curve",
    "difference",
    "equivalence",
    "families",
    "fifths",
    "holm",
    "mcnemar",
    "risk_coverage",
    "spearman",
]
