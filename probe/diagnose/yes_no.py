"""Yes or no: what a reply says, and the scores of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.diagnose.pool_rows import Row, of_sums, quotient

if TYPE_CHECKING:
    import pandas as pd


def lenient(reply: str) -> bool:
    """Yes, as POPE's evaluation reads it (arXiv 2305.10355, its code): no where the first
    sentence has the word "No", "no" or "not", and yes in every other case, "NO" and refusals
    among them.
    """
    words = reply.split(".")[0].replace(",", "").split()
    return not any(word in words for word in ("No", "no", "not"))


def yes_no_rows(prefix: str, table: pd.DataFrame, said: Any, truth: Any) -> list[Row]:
    """Accuracy, precision, recall, F1 (yes the positive) and yes-rate, in percent.

    Args:
        prefix: in front of each name.
        table: has the column "video".
        said: 1 for yes, 0 for no, NaN for a reply that says neither, which is wrong and no yes.
        truth: 1 or 0.

    Returns:
        Rows with bootstrap intervals over videos; NaN where a score is undefined.
    """
    given, true = np.asarray(said, dtype=float), np.asarray(truth, dtype=float)
    yes, positive = (given == 1).astype(float), (true == 1).astype(float)
    columns = {
        "hit": yes * positive,
        "right": (given == true).astype(float),
        "yes": yes,
        "positive": positive,
        "one": np.ones(len(true)),
    }
    scores = {
        "accuracy": lambda hit, right, yes, positive, one: quotient(right, one),
        "precision": lambda hit, right, yes, positive, one: quotient(hit, yes),
        "recall": lambda hit, right, yes, positive, one: quotient(hit, positive),
        "f1": lambda hit, right, yes, positive, one: quotient(2 * hit, yes + positive),
        "yes_rate": lambda hit, right, yes, positive, one: quotient(yes, one),
    }
    return [_percent(of_sums(f"{prefix}{n}", table, columns, of)) for n, of in scores.items()]


def _percent(row: Row) -> Row:
    name, value, low, high, count, clusters = row
    return name, 100 * value, 100 * low, 100 * high, count, clusters
