"""Plotly figures hold the given numbers and one picture a frame."""

from __future__ import annotations

import numpy as np
import pytest

from probe.plot import interactive
from probe.report.findings import Findings
from tests.report import example


@pytest.fixture(scope="module")
def found() -> Findings:
    return example.findings()


def test_attention_map(found: Findings) -> None:
    mass = found.data.attention_mass
    figure = interactive.attention_map(mass, "question")
    frames = [f"frame {n}" for n in range(16)]
    expected = mass.sel(query_group="question", key_group=frames).mean("head")
    np.testing.assert_allclose(figure.data[0].z, expected.values)
    assert figure.layout.xaxis.title.text == "frame"


@pytest.mark.parametrize("name", ["attention_received", "contributions_position"])
def test_frame_player(name: str, found: Findings) -> None:
    values = found.data[name]
    if "head" in values.dims:
        values = values.sel(query_group="last").mean("head")
    figure = interactive.frame_player(found.clip, found.layout, values, layer=3)
    assert len(figure.frames) == len(figure.layout.sliders[0].steps) == 16
    assert len({frame.data[0].source for frame in figure.frames}) == 16
    five = values.sel(layer=3).values[found.layout.select("frame 5")]
    assert figure.data[1].z[3][5] == pytest.approx(np.nansum(five))
    mark = figure.frames[5].layout.shapes[0]
    assert (mark.x0, mark.y0) == (4.5, 2.5)
    assert (figure.data[1].zmin < 0) == (name == "contributions_position")


def test_contributions(found: Findings) -> None:
    figure = interactive.contributions(found.data, "red − blue")
    bars = [trace.y for trace in figure.data[:3]]
    np.testing.assert_allclose(bars, found.data.contributions.values.T)
    assert "6.40" in figure.layout.title.text


def test_curves(found: Findings) -> None:
    kept, drop = found.redundancy["kept"], found.redundancy["drop_from_layer"]
    figure = interactive.kept_tokens(kept, 6.4, 0.7)
    assert [trace.name for trace in figure.data] == ["attention", "norm", "uniform", "random"]
    rows = kept[kept["score"] == "norm"].sort_values("tokens")
    np.testing.assert_array_equal(figure.data[1].y, rows["margin"])
    assert [line.y0 for line in figure.layout.shapes] == [6.4, 0.7]
    low, high = figure.layout.yaxis.range
    assert low < 0.7 and high > 6.4
    figure = interactive.drop_from_layer(drop, 6.4, 0.7)
    np.testing.assert_array_equal(figure.data[0].y, drop["margin"])
    assert figure.layout.xaxis.ticktext[-1] == "none"


def test_generated_tokens(found: Findings) -> None:
    figure = interactive.generated_tokens(found.tokens)
    np.testing.assert_array_equal(figure.data[0].y, found.tokens["influence"])
    assert figure.layout.xaxis.ticktext[1] == "red"
