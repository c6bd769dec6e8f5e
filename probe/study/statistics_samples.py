"""Samples in clusters: checked, and in one order whatever order they came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from probe.errors import ProbeError


@dataclass(frozen=True)
class Samples:
    """Columns of numbers, one row a sample, sorted by cluster and then by value.

    Equal rows are interchangeable, so that a result does not depend on the order of the samples,
    to the last bit.
    """

    columns: tuple[Float[np.ndarray, " sample"], ...]
    cluster: Int[np.ndarray, " sample"]
    """Number of each sample's cluster, ascending."""
    clusters: int

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.cluster)

    def sums(self, values: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " cluster"]:
        """Sum over each cluster."""
        return np.bincount(self.cluster, weights=values, minlength=self.clusters)

    @property
    def sizes(self) -> Float[np.ndarray, " cluster"]:
        """Samples in each cluster."""
        return np.bincount(self.cluster, minlength=self.clusters).astype(float)


def samples(what: str, clusters: Any, **columns: Any) -> Samples:
    """Check columns that belong together and sort them.

    Args:
        what: the statistic, named in errors.
        clusters: one label a sample (the video it is on); None: each sample is its own cluster.
        columns: one value a sample each: numbers or booleans.

    Raises:
        ProbeError: lengths or indexes that differ, no sample, fewer than two clusters, values that
            are missing or infinite, or not numbers.
    """
    arrays = {name: _numbers(what, name, values) for name, values in columns.items()}
    first, n = next((name, len(values)) for name, values in arrays.items())
    labels = None if clusters is None else np.asarray(clusters, dtype=object).ravel()
    lengths = {name: len(values) for name, values in arrays.items()}
    lengths |= {} if labels is None else {"clusters": len(labels)}
    for name, length in lengths.items():
        if length != n:
            raise ProbeError(
                f"{what}: {first} has {n} samples and {name} has {length}: give one value a sample"
            )
    _same_index(what, columns | ({} if clusters is None else {"clusters": clusters}))
    if not n:
        raise ProbeError(f"{what}: there are no samples")
    for name, values in arrays.items():
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ProbeError(
                f"{what}: {bad} of {n} values of {name} are NaN or infinite: drop these samples"
            )
    order, cluster, count = _order(what, labels, list(arrays.values()))
    if count < 2:
        raise ProbeError(
            f"{what}: all {n} samples are of one cluster: an interval takes two videos at least"
        )
    return Samples(tuple(values[order] for values in arrays.values()), cluster, count)


def classes(what: str, name: str, values: Float[np.ndarray, " sample"]) -> None:
    """Refuse values other than 0 and 1.

    Raises:
        ProbeError: there is another.
    """
    odd = np.flatnonzero((values != 0) & (values != 1))
    if len(odd):
        raise ProbeError(f"{what}: {name} must be 0 or 1 (or a bool), not {values[odd[0]]:g}")


def _numbers(what: str, name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ProbeError(f"{what}: {name} must be numbers, one a sample") from None
    if array.ndim != 1:
        raise ProbeError(f"{what}: {name} has {array.ndim} dims: give one value a sample")
    # -0.0 and 0.0 would sort differently from how they compare.
    return array + 0.0


def _same_index(what: str, columns: dict[str, Any]) -> None:
    """Series of other rows of a table are not paired, though they may be as long."""
    indexed = [(name, values.index) for name, values in columns.items() if hasattr(values, "iloc")]
    for name, index in indexed[1:]:
        if not index.equals(indexed[0][1]):
            raise ProbeError(
                f"{what}: {indexed[0][0]} and {name} have different indexes: "
                "align them, or give their .to_numpy()"
            )


def _order(
    what: str, labels: np.ndarray | None, columns: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, int]:
    if labels is None:
        order = np.lexsort(columns)
        return order, np.arange(len(order)), len(order)
    missing = sum(label is None or label != label for label in labels)
    if missing:
        raise ProbeError(f"{what}: {missing} of {len(labels)} clusters are missing: name the video")
    names, cluster = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    order = np.lexsort([*columns, cluster])
    return order, cluster[order], len(names)
