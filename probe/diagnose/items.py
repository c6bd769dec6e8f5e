"""The diagnoses over many testbed items, with bootstrap intervals over items."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.diagnose.hallucination import counterfactuals
from probe.diagnose.margin import margin
from probe.diagnose.redundancy import redundancy

if TYPE_CHECKING:
    import pandas as pd

    from probe.models.encode import Example
    from probe.models.video_model import VideoModel
    from probe.video import Clip


def clip_of(item: Any, frames: int = 16) -> Clip:
    """A testbed item's clip, written as H.264 and read back like any file."""
    from probe.video import read

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        item.write(path)
        return read(path, frames=frames)


def encode_item(model: VideoModel, item: Any, frames: int = 16) -> Example:
    """A testbed item as the model's input."""
    return model.encode(clip_of(item, frames), item.question.text, frames=None)


def redundancy_over(
    model: VideoModel, items: Sequence, *, progress: Callable[[], object] = lambda: None, **how: Any
) -> dict[str, pd.DataFrame]:
    """`redundancy` on each item, on the margin of the right answer against the best other option.

    Returns:
        The tables of `redundancy`, each value the mean over items, with low and high (bootstrap
        95 % interval) and n; `kept` also has accuracy: share of items whose answer is still that
        of the untouched run.
    """
    tables: dict[str, list] = {}
    for number, item in enumerate(items):
        x = encode_item(model, item)
        full = model.run(x)
        follow = margin(model, x, full, item.question.answer, item.question.options)
        for name, table in redundancy(model, x, follow, **how).items():
            if "answer" in table:
                table["same"] = (table["answer"] == full.tokens[0]).astype(float)
            tables.setdefault(name, []).append(table.assign(item=number))
        progress()
    keys = {
        "attention_to_video": (["layer"], ["mass"]),
        "frame_similarity": (["layer"], ["similarity"]),
        "kept": (["score", "keep"], ["margin", "same", "tokens"]),
        "drop_from_layer": (["layer"], ["margin", "same"]),
    }
    return {name: summarise(_concat(tables[name]), *keys[name]) for name in keys}


def counterfactuals_over(
    model: VideoModel, items: Iterable, *, progress: Callable[[], object] = lambda: None
) -> pd.DataFrame:
    """`counterfactuals` on each item: clip, margin and probability of the right answer, and
    `right` (share of items answered rightly by the first token), with intervals.
    """
    found = []
    for number, item in enumerate(items):
        x = encode_item(model, item)
        follow = margin(model, x, model.run(x), item.question.answer, item.question.options)
        table = counterfactuals(model, x, follow)
        right = (table["answer"] == follow.target).astype(float)
        found.append(table.assign(item=number, right=right))
        progress()
    return summarise(_concat(found), ["clip"], ["margin", "probability", "right"])


def existence(
    model: VideoModel,
    n: int = 100,
    splits: Sequence[str] = ("neutral", "hidden"),
    seed: int = 0,
    *,
    progress: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """Existence questions in the POPE manner: is an object that is not there affirmed?

    Returns:
        split, n, accuracy with low and high (bootstrap 95 %), yes_rate, expected_yes (share of
        items whose right answer is yes), precision, recall, f1 with yes as the positive.
    """
    import pandas as pd

    from probe import testbed

    rows = []
    for split in splits:
        items = testbed.items(split, n=n, seed=seed, types=["existence"])
        said, truth = [], []
        for item in items:
            run = model.run(encode_item(model, item))
            said.append(run.tokens[0].strip().lower() == "yes")
            truth.append(item.question.answer == "yes")
            progress()
        yes, right = np.array(said), np.array(truth)
        low, high = interval((yes == right).astype(float))
        hits = float((yes & right).sum())
        precision = hits / yes.sum() if yes.any() else float("nan")
        recall = hits / right.sum() if right.any() else float("nan")
        rows.append(
            {
                "split": split,
                "n": len(yes),
                "accuracy": float((yes == right).mean()),
                "low": low,
                "high": high,
                "yes_rate": float(yes.mean()),
                "expected_yes": float(right.mean()),
                "precision": precision,
                "recall": recall,
                "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
            }
        )
    return pd.DataFrame(rows)


def summarise(table: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """Mean of each value over items, with `<value>_low` and `<value>_high` and n."""
    import pandas as pd

    rows = []
    for labels in table[by].drop_duplicates().itertuples(index=False):
        row: dict[str, Any] = dict(zip(by, labels, strict=True))
        group = table[(table[by] == list(labels)).all(axis=1)]
        row["n"] = len(set(group["item"]))
        for value in values:
            numbers = np.asarray(group.groupby("item")[value].mean(), dtype=float)
            row[value] = float(numbers.mean())
            row[f"{value}_low"], row[f"{value}_high"] = interval(numbers)
        rows.append(row)
    return pd.DataFrame(rows)


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over items, 2,000 resamples, seeded."""
    if len(values) < 2 or np.ptp(values) == 0:
        mean = float(np.mean(values)) if len(values) else float("nan")
        return mean, mean
    from scipy.stats import bootstrap

    result = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=2000,
        method="percentile",
        rng=0,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _concat(tables: list) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
