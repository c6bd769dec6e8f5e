"""HallucinationScore: signals combined into the probability that an answer, or a token, is made up.

Fitted with scikit-learn (`fitting`), kept as plain numbers: using one needs NumPy alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from probe.errors import ProbeError

VERSION = 1


@dataclass(frozen=True)
class Tree:
    """A regression tree as arrays over its nodes; feature -1 is a leaf."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class HallucinationScore:
    """A fitted combination of signals.

    Attributes:
        features: names of the scores it reads, as `HallucinationSignals` gives them.
        level: "answer" or "token": what a row was in the fit.
        low, high: each feature is kept within the fit's quantiles.
        fill: median of the fit, where a feature is NaN.
        mean, scale: of the fit, after that.
        weights, intercept: of a logistic regression; no weights with trees.
        trees, rate: of gradient boosting, in log-odds beside the intercept.
        about: model, splits, n and how it was chosen; for the reader.
    """

    features: tuple[str, ...]
    level: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    fill: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...] = ()
    intercept: float = 0.0
    trees: tuple[Tree, ...] = ()
    rate: float = 1.0
    about: str = ""

    def probability(self, values: Any) -> Float[np.ndarray, " row"]:
        """Probability of being made up.

        Args:
            values: a table or mapping with a column for each feature, or `tokens` [score, token].

        Raises:
            ProbeError: a feature that is not there.
        """
        x = self.table(values)
        if self.weights:
            logit = x @ np.array(self.weights) + self.intercept
        else:
            grown = sum((_grow(tree, x) for tree in self.trees), np.zeros(len(x)))
            logit = self.intercept + self.rate * grown
        return 1 / (1 + np.exp(-logit))

    def table(self, values: Any) -> Float[np.ndarray, "row feature"]:
        """Features as the fit had them: filled, clipped, standardised."""
        if hasattr(values, "dims"):
            values = {str(name): values.sel(score=name).values for name in values.score.values}
        missing = next((name for name in self.features if name not in values), None)
        if missing is not None:
            raise ProbeError(f"hallucination score: {missing} is missing; measure it with the rest")
        columns = [np.atleast_1d(np.asarray(values[name], float)) for name in self.features]
        x = np.stack(columns, axis=1)
        x = np.where(np.isnan(x), np.array(self.fill), x)
        x = np.clip(x, np.array(self.low), np.array(self.high))
        return (x - np.array(self.mean)) / np.array(self.scale)

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        path = Path(path)
        path.write_text(json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: str | Path) -> HallucinationScore:
        """The score that `save` wrote.

        Raises:
            ProbeError: not such a file.
        """
        try:
            data: dict[str, Any] = json.loads(Path(path).read_text())
            if data.pop("version") != VERSION:
                raise ValueError
            data = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            data["trees"] = tuple(
                Tree(**{k: tuple(v) for k, v in tree.items()}) for tree in data["trees"]
            )
            return cls(**data)
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            raise ProbeError(f"{path}: not a hallucination score saved by probe") from None


def _grow(tree: Tree, x: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, " row"]:
    """Value of the leaf that each row falls into; scikit-learn compares in float32."""
    x = x.astype(np.float32)
    node = np.zeros(len(x), int)
    feature, threshold = np.array(tree.feature), np.array(tree.threshold)
    left, right = np.array(tree.left), np.array(tree.right)
    rows = np.arange(len(x))
    while (feature[node] >= 0).any():
        inner = feature[node] >= 0
        goes = x[rows, np.maximum(feature[node], 0)] <= threshold[node]
        node = np.where(inner, np.where(goes, left[node], right[node]), node)
    return np.array(tree.value)[node]
