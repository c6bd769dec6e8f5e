"""SampledAgreement: do answers drawn at random say the same?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.diagnose.margin import log_softmax
from probe.diagnose.signals.answer import Answer
from probe.diagnose.signals.base import Scores, Signal
from probe.diagnose.signals.supported import normalised

if TYPE_CHECKING:
    from probe.engine.result import Run


@dataclass(frozen=True)
class SampledAgreement(Signal):
    """Entropy over clusters of sampled answers, cluster = equal strings after `normalised`.

    semantic_entropy_exact: -sum f log f over the clusters' shares of samples, in nats (discrete
    semantic entropy, Farquhar et al. 2024, whose clusters come from entailment in both
    directions; ours from equality, hence the name). semantic_entropy_weighted: shares by
    exp(mean token log-probability) of each sample. self_inconsistency: 1 - the largest share.
    The whole answer has one score, which each token gets.

    Costs `samples` generations.

    Attributes:
        samples, temperature: of the sampling.
        most: tokens of a sample.
    """

    samples: int = 10
    temperature: float = 1.0
    most: int = 32

    signs: ClassVar[Mapping[str, str]] = {
        "semantic_entropy_exact": "H+",
        "semantic_entropy_weighted": "H+",
        "self_inconsistency": "H+",
    }
    source: ClassVar[str] = "arXiv 2302.09664, clusters by equality"

    def scores(self, answer: Answer) -> Scores:
        """The same for each token."""
        case = answer.case
        how = {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        runs = [
            case.model.generate(
                case.x, seed=case.seed + n, do_sample=True, max_new_tokens=self.most, **how
            )
            for n in range(self.samples)
        ]
        texts = [normalised(run.text or "") for run in runs]
        values = clusters(texts, [_mean_log_p(run) for run in runs])
        return {name: np.full(len(answer.scored), value) for name, value in values.items()}


def clusters(texts: Sequence[str], mean_log_p: Sequence[float]) -> dict[str, float]:
    """The three scores of sampled answers.

    Args:
        texts: normalised answers.
        mean_log_p: mean log-probability of the tokens of each.
    """
    _, number, counts = np.unique(np.array(texts), return_inverse=True, return_counts=True)
    weights = np.exp(np.array(mean_log_p, float))
    shares = counts / counts.sum()
    weighted = np.bincount(number, weights=weights) / weights.sum()
    return {
        "semantic_entropy_exact": _entropy(shares),
        "semantic_entropy_weighted": _entropy(weighted),
        "self_inconsistency": float(1 - shares.max()),
    }


def _entropy(p: Float[np.ndarray, " cluster"]) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum()) + 0.0


def _mean_log_p(run: Run) -> float:
    ids = run.meta["generated"]
    return float(log_softmax(run.logits)[np.arange(len(ids)), ids].mean())
