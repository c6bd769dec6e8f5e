"""Yes and no under each ablation: precision, recall, F1 and how often yes is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.study.show_scores import methods

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("model", "label", "role", "name", "value", "low", "high", "n", "clusters")


def yes_no(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of answers in the model's own words to questions of yes or no, yes the positive.

    Args:
        table: of `Store.table()`, of a task whose scores have `yesno`: `says_yes` is 1, 0, or NaN
            where an answer is neither (then it is wrong, and no yes), `yesno` is 1 where it is
            right.

    Returns:
        A row for each run and score, in percent, with bootstrap 95 % intervals over videos. Empty
        for other tasks. Samples of which no run said yes or no are left out: what is right is known
        from those that did.
    """
    import pandas as pd

    from probe.diagnose.yes_no import yes_no_rows

    rows: list[tuple[Any, ...]] = []
    if not {"says_yes", "yesno"} <= set(table.columns):
        return pd.DataFrame(columns=list(COLUMNS))
    for model, of_model in table.groupby("model", sort=False):
        truth = _truth(of_model)
        for about, its in methods(of_model):
            known: Any = its[its["sample"].isin(truth) & its["yesno"].notna()]
            if not len(known):
                continue
            right = known["sample"].map(truth)
            said = known["says_yes"].astype(float)
            for row in yes_no_rows("", known, said.to_numpy(), right.to_numpy()):
                rows.append((str(model), about["label"], about["role"], *row))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _truth(table: Any) -> dict[Any, float]:
    """What is right, by sample, from the runs that said yes or no."""
    read = table[table["says_yes"].notna() & table["yesno"].notna()]
    said, right = read["says_yes"].to_numpy(float), read["yesno"].to_numpy(float)
    return dict(zip(read["sample"], np.where(right == 1, said, 1 - said), strict=True))
