"""Curves found among ablations, and their tables against pandas and statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from probe.study.show import summary_of
from probe.study.show_curves import Curve, curve_table, curves
from probe.study.show_versus import versus
from tests.study.show_table import KEEPS, NAMES, label, made

QUICK = {"resamples": 200, "permutations": 499}
CONTROLS = ["blind", "random", "uniform frames"]


def found(*texts: str, grids: dict | None = None) -> list[Curve]:
    return curves({text: text for text in texts}, grids or {})


def curve() -> Curve:
    [one] = found(*map(label, KEEPS))
    return one


def test_ablations_that_differ_in_one_number_are_a_curve() -> None:
    one = curve()
    assert (one.name, one.by) == ("fastv(k=2, keep=…)", "keep")
    assert one.points == {label(keep): keep for keep in KEEPS}
    assert found(label(0.5)) == []
    assert found("fastv(k=2, keep=0.5)", "vidcom2(keep=0.25)") == []
    assert found("fastv(k=2, keep=0.5)", "fastv(k=3, keep=0.25)") == []
    assert found("Mask(shape='blackout')", "Mask(shape='neighbour')") == []
    assert found("fastv(k=2, keep=0.5, seed=1)", "fastv(k=2, keep=0.5, seed=2)") == []
    [nested] = found("Reduce(at=layer(2), keep=0.5); edvt()", "Reduce(at=layer(2), keep=1); edvt()")
    assert nested.name == "Reduce(at=layer(2), keep=…); edvt()"


def test_a_grid_of_two_numbers_is_a_curve_over_the_amount_for_each_of_the_other() -> None:
    several = found(*(label(keep, k) for k in (2, 3) for keep in KEEPS))
    assert [one.name for one in several] == ["fastv(k=2, keep=…)", "fastv(k=3, keep=…)"]
    [layers] = found(*(label(0.5, k) for k in (2, 3, 4)))
    assert (layers.by, list(layers.points.values())) == ("k", [2, 3, 4])


def test_a_place_of_the_grid_names_a_number_without_a_name() -> None:
    texts = {f"fastv(2, {keep})": {"keep": keep, "k": 2} for keep in KEEPS}
    [one] = found(*texts, grids=texts)
    assert (one.name, one.by) == ("fastv(2, …)", "keep")
    assert found(*texts) == []
    named = {f"mine {keep}": f"fastv(2, {keep})" for keep in KEEPS}
    [one] = curves(named, {f"mine {keep}": {"keep": keep} for keep in KEEPS})
    assert one.points == {f"mine {keep}": keep for keep in KEEPS}


def mean(table: pd.DataFrame, role: str, keep: float) -> pd.Series:
    at = (table["label"] == label(keep)) | (table["of"] == label(keep)) | (role == "blind")
    return table[at & (table["role"] == role)].groupby("sample")["margin"].mean()


def test_a_curve_and_its_controls_are_those_of_pandas() -> None:
    table = made(samples=40, videos=20)
    made_table, notes = curve_table(table, [curve()], ["margin", "accuracy"], **QUICK)
    assert not notes and set(made_table["score"]) == {"margin", "accuracy"}
    of_margin = made_table[made_table["score"] == "margin"]
    for keep in KEEPS:
        own = mean(table, "ablation", keep)
        rows = of_margin[(of_margin["method"] == curve().name) & (of_margin["point"] == keep)]
        rows = rows.set_index("versus")
        assert rows.loc["", "estimate"] == pytest.approx(own.mean())
        for control in CONTROLS:
            expected = (own - mean(table, control, keep)).mean()
            assert rows.loc[control, "estimate"] == pytest.approx(expected)
            assert rows.loc[control, "low"] < expected < rows.loc[control, "high"]
        drawn = of_margin[(of_margin["method"] == "random") & (of_margin["point"] == keep)]
        assert drawn["seeds"].tolist() == [3]
        assert drawn["estimate"].item() == pytest.approx(mean(table, "random", keep).mean())


def test_holm_is_over_all_curves_against_one_control() -> None:
    table = made(samples=30, videos=15)
    rename = {label(keep): label(keep, 3) for keep in KEEPS}
    second = table[table["role"].isin(["ablation", "random", "uniform frames"])].copy()
    second["margin"] += np.random.default_rng(5).normal(-0.6, 1.2, len(second))
    for name in ("label", "of"):
        second[name] = [rename.get(v, v.replace("k=2", "k=3")) for v in second[name]]
    several = found(*(label(keep, k) for k in (2, 3) for keep in KEEPS))
    result, _ = curve_table(pd.concat([table, second]), several, ["margin"], **QUICK)
    family = result[result["versus"] == "uniform frames"]
    assert len(family) == 6 and family["p"].between(0.01, 0.99).any()
    np.testing.assert_allclose(family["p_holm"], multipletests(family["p"], method="holm")[1])


def test_controls_that_were_not_run_are_named_and_samples_without_a_point_left_out() -> None:
    table = made(samples=30, videos=15)
    table = table[table["role"] != "uniform frames"].reset_index(drop=True)
    gone = (table["label"] == label(0.25)) & (table["sample"] == "s7")
    table.loc[gone, "margin"] = np.nan
    result, notes = curve_table(table, [curve()], ["margin"], **QUICK)
    assert set(result["versus"]) == {"", "blind", "random"}
    assert set(result["n"]) == {29}
    assert any("1 samples lack" in note for note in notes)
    assert any("without uniform frames" in note for note in notes)


def test_a_point_that_a_control_lacks_leaves_the_others_in_the_curve() -> None:
    table = made(samples=20, videos=10)
    gone = (table["role"] == "uniform frames") & (table["of"] == label(0.1))
    table.loc[gone, "margin"] = np.nan
    result, notes = curve_table(table, [curve()], ["margin"], **QUICK)
    own = result[result["method"] == curve().name]
    assert set(own["point"]) == {0.25, 0.5} and set(own["n"]) == {20}
    assert any("left out 0.1, at which uniform frames could not be run" in note for note in notes)
    summary = summary_of("s", table, NAMES, **QUICK)  # beside its other controls all the same
    of_margin = summary.versus[summary.versus["score"] == "margin"]
    assert set(of_margin["label"]) == {label(0.1)}
    assert set(of_margin["control"]) == {"blind", "random"}


def test_all_right_has_an_interval_in_a_curve_too() -> None:
    table = made(samples=20, videos=20).assign(accuracy=1.0)
    result, _ = curve_table(table, [curve()], ["accuracy"], **QUICK)
    means = result[result["versus"] == ""]
    assert (means["low"] < 0.9).all() and (means["high"] > 0.999).all()


def test_one_ablation_stands_against_its_own_controls() -> None:
    table = made(samples=40, videos=20)
    swap = table[table["label"] == label(0.25)].assign(
        role="swap", label=f"{label(0.25)} | score=Uniform()", of=label(0.25)
    )
    swap["margin"] -= 0.3
    table = pd.concat([table, swap])
    result = versus(table, ["margin"], **QUICK)
    assert len(result) == 3 * len(CONTROLS) + 1
    for _, row in result.iterrows():
        keep = next(keep for keep in KEEPS if label(keep) == row["label"])
        if row["control"] == "score=Uniform()":
            assert row["difference"] == pytest.approx(0.3)
        else:
            own, other = mean(table, "ablation", keep), mean(table, row["control"], keep)
            assert row["difference"] == pytest.approx((own - other).mean())
    family = result[result["control"] == "random"]
    np.testing.assert_allclose(family["p_holm"], multipletests(family["p"], method="holm")[1])
    in_curve = {("m", "margin", label(keep)) for keep in KEEPS}
    only = versus(table, ["margin"], in_curve, **QUICK)
    assert only["control"].tolist() == ["score=Uniform()"]  # the others are drawn with the curve
