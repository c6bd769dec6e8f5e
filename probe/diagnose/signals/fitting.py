"""Fitting a HallucinationScore, its kind chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probe.diagnose.signals.score import HallucinationScore, Tree
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

CLIP = (0.005, 0.995)  # quantiles of the fit that features are kept within, also under a shift
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
DEPTHS = (1, 2, 3)


def fit(
    table: pd.DataFrame,
    label: str = "hallucinated",
    features: Sequence[str] | None = None,
    *,
    level: str = "answer",
    kinds: Sequence[str] = ("logistic", "signed", "boosting"),
    about: str = "",
    seed: int = 0,
) -> HallucinationScore:
    """Fit a score: of logistic regressions, some with every weight held to its signal's published
    sign, and gradient boosting, the one with the least log loss in five-fold cross-validation over
    the videos of this table. No other split is looked at.

    Args:
        table: a row an answer or token: `video`, the label (0, 1; rows with NaN are left out), and
            columns of scores.
        label: column that says what is made up.
        features: columns to combine; by default every signed score but the controls.
        level: "answer" or "token".
        kinds: what to choose from.
        about: put in front of what is stored about the fit.
        seed: of folds and boosting.

    Raises:
        ProbeError: no scikit-learn, one class alone, or fewer than five videos of each.
    """
    from probe.study.statistics_extra import need

    every = table[label].to_numpy(float)
    known = ~np.isnan(every)
    truth, groups = every[known], table["video"].to_numpy()[known]
    columns = {name: table[name].to_numpy(float)[known] for name in features or _signed(table)}
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    names, raw = list(columns), np.stack(list(columns.values()), axis=1)
    if min(len(set(groups[truth == value])) for value in (0.0, 1.0)) < 5:
        raise ProbeError("hallucination score: a fit takes five videos or more of either label")
    folds = need("sklearn.model_selection").StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    parts = list(folds.split(truth, truth, groups))
    log_loss = need("sklearn.metrics").log_loss
    losses: dict[tuple[str, float], float] = {}
    for choice in _choices(kinds):
        predicted = np.zeros(len(truth))
        for train, test in parts:
            made = _made(names, raw[train], truth[train], choice, level, seed)
            predicted[test] = made.probability(dict(zip(names, raw[test].T, strict=True)))
        losses[choice] = float(log_loss(truth, np.clip(predicted, 1e-6, 1 - 1e-6)))
    best = min(losses, key=lambda choice: losses[choice])
    note = f"{about}; " if about else ""
    note += f"n {len(truth)} in {len(set(groups.tolist()))} videos, {truth.mean():.0%} made up; "
    note += f"{best[0]} {best[1]:g} with log loss {losses[best]:.4f} in cross-validation"
    return _made(names, raw, truth, best, level, seed, note)


def _signed(table: pd.DataFrame) -> list[str]:
    """Scores with a sign that are no controls, by their names."""
    from probe.diagnose.signals.paired import CLIPS
    from probe.diagnose.signals.scalars import signs

    known = signs(CLIPS)
    return [name for name in table.columns if known.get(str(name)) and name != "index"]


def _choices(kinds: Sequence[str]) -> list[tuple[str, float]]:
    every = [(kind, c) for kind in ("logistic", "signed") for c in STRENGTHS]
    every += [("boosting", float(depth)) for depth in DEPTHS]
    found = [choice for choice in every if choice[0] in kinds]
    if not found:
        known = ", ".join(dict.fromkeys(kind for kind, _ in every))
        raise ProbeError(f"hallucination score: kinds={kinds}; there are {known}")
    return found


def _made(
    names: Sequence[str],
    raw: Float[np.ndarray, "row feature"],
    truth: Float[np.ndarray, " row"],
    choice: tuple[str, float],
    level: str,
    seed: int,
    about: str = "",
) -> HallucinationScore:
    """One model on some rows."""
    from probe.study.statistics_extra import need

    fill = np.nan_to_num(np.nanmedian(np.where(np.isfinite(raw), raw, np.nan), axis=0))
    full = np.where(np.isfinite(raw), raw, fill)
    low, high = np.quantile(full, CLIP, axis=0)
    full = np.clip(full, low, high)
    scale = full.std(0)
    plain: Mapping[str, Any] = {
        "features": tuple(names),
        "level": level,
        "low": tuple(low.tolist()),
        "high": tuple(high.tolist()),
        "fill": tuple(fill.tolist()),
        "mean": tuple(full.mean(0).tolist()),
        "scale": tuple(np.where(scale > 0, scale, 1.0).tolist()),
        "about": about,
    }
    empty = HallucinationScore(**plain)
    x = empty.table(dict(zip(names, raw.T, strict=True)))
    if choice[0] == "logistic":
        found = need("sklearn.linear_model").LogisticRegression(C=choice[1], max_iter=5000)
        found.fit(x, truth)
        weights = tuple(found.coef_[0].tolist())
        return HallucinationScore(**plain, weights=weights, intercept=float(found.intercept_[0]))
    if choice[0] == "signed":
        weights, intercept = _signed_logistic(names, x, truth, choice[1])
        return HallucinationScore(**plain, weights=weights, intercept=intercept)
    boosting = need("sklearn.ensemble").GradientBoostingClassifier
    found = boosting(
        n_estimators=150, learning_rate=0.08, subsample=0.7,
        max_depth=int(choice[1]), min_samples_leaf=10, random_state=seed,
    ).fit(x, truth)  # fmt: skip
    share = truth.mean()
    return HallucinationScore(
        **plain,
        trees=tuple(_tree(one.tree_) for one in found.estimators_[:, 0]),
        rate=found.learning_rate,
        intercept=float(np.log(share / (1 - share))),
    )


def _signed_logistic(
    names: Sequence[str],
    x: Float[np.ndarray, "row feature"],
    truth: Float[np.ndarray, " row"],
    strength: float,
) -> tuple[tuple[float, ...], float]:
    """Weights and intercept of the same regression, no weight against its signal's sign."""
    from scipy.optimize import minimize

    from probe.diagnose.signals.paired import CLIPS
    from probe.diagnose.signals.scalars import signs

    known, free = signs(CLIPS), (None, None)
    sides = {"H+": (0, None), "H-": (None, 0)}

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logit = x @ w[:-1] + w[-1]
        value = (np.logaddexp(0, logit) - truth * logit).sum()
        away = 1 / (1 + np.exp(-logit)) - truth
        slope = np.append(strength * x.T @ away + w[:-1], strength * away.sum())
        return float(strength * value + w[:-1] @ w[:-1] / 2), slope

    found = minimize(
        loss,
        np.zeros(x.shape[1] + 1),
        jac=True,
        bounds=[sides.get(known.get(name, ""), free) for name in names] + [free],
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-12, "gtol": 1e-8},
    ).x.tolist()
    return tuple(found[:-1]), found[-1]


def _tree(tree: Any) -> Tree:
    return Tree(
        tuple(np.maximum(tree.feature, -1).tolist()),
        tuple(tree.threshold.tolist()),
        tuple(tree.children_left.tolist()),
        tuple(tree.children_right.tolist()),
        tuple(tree.value[:, 0, 0].tolist()),
    )
