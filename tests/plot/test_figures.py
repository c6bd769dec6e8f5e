"""Paper figures: what they show is what was given, and the files are vector."""

from __future__ import annotations

import copy
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from probe.plot import tables
from probe.plot.answer import generated_tokens, logit_lens
from probe.plot.attention import attention_map, head_grid, layer_profile
from probe.plot.contributions import contributions_by_frame, contributions_by_layer
from probe.plot.curves import counterfactual_clips, drop_from_layer, kept_tokens
from probe.plot.frames import frame_strip, span, tint
from probe.plot.gallery import figures, overview
from probe.plot.style import DOUBLE, SINGLE, heat, save, signed
from probe.report.findings import Findings
from tests.report import example


@pytest.fixture(scope="module")
def found() -> Findings:
    return example.findings()


def lines(figure: Figure) -> dict[str, np.ndarray]:
    """Labelled lines of the first axes: [point, 2]."""
    return {str(line.get_label()): line.get_xydata() for line in figure.axes[0].get_lines()}


def test_kept_tokens_draws_each_score_and_both_levels(found: Findings) -> None:
    table = found.redundancy["kept"]
    figure = kept_tokens(table, 6.4, 0.7, "red − blue")
    drawn = lines(figure)
    for score in tables.SCORES:
        rows = table[table["score"] == score].sort_values("tokens")
        np.testing.assert_array_equal(drawn[score], rows[["tokens", "margin"]])
    levels = [line.get_ydata()[0] for line in figure.axes[0].get_lines() if "_" in line.get_label()]
    assert levels == [6.4, 0.7]
    ax = figure.axes[0]
    assert ax.get_xlabel() == "visual tokens kept"
    assert "red − blue" in ax.get_ylabel() and "logits" in ax.get_ylabel()
    band = ax.collections[0].get_paths()[0].vertices
    random = table[table["score"] == "random"]
    assert band[:, 1].min() == random["margin_low"].min()
    assert band[:, 1].max() == random["margin_high"].max()


def test_the_band_belongs_to_random_alone(found: Findings) -> None:
    table = found.redundancy["kept"]
    none = table[table["score"] != "random"]
    assert len(kept_tokens(table, 6.4, 0.7).axes[0].collections) == 1
    assert not kept_tokens(none, 6.4, 0.7).axes[0].collections


def test_drop_from_layer_ends_with_everything_kept(found: Findings) -> None:
    table = found.redundancy["drop_from_layer"]
    ax = drop_from_layer(table, 6.4, 0.7).axes[0]
    np.testing.assert_array_equal(ax.get_lines()[-1].get_xydata(), table[["layer", "margin"]])
    assert ax.get_xticklabels()[-1].get_text() == "kept"


def test_attention_map_is_the_mean_over_heads(found: Findings) -> None:
    mass = found.data.attention_mass
    figure = attention_map(mass, "last", seconds=found.clip.seconds)
    frames = [f"frame {n}" for n in range(16)]
    expected = mass.sel(query_group="last", key_group=frames).mean("head").values
    drawn = figure.axes[0].collections[0].get_array()
    np.testing.assert_allclose(drawn.reshape(expected.shape), expected)
    assert figure.axes[0].get_xlabel() == "frame (0.00 to 1.88 s)"
    assert figure.axes[0].get_ylabel() == "layer"
    assert figure.axes[1].get_ylabel() == "attention from last"


def test_head_grid_sums_over_the_frames(found: Findings) -> None:
    mass = found.data.attention_mass
    drawn = head_grid(mass, "question").axes[0].collections[0].get_array()
    video = [key for key in mass.key_group.values if key.startswith("frame")]
    expected = mass.sel(query_group="question", key_group=video).sum("key_group").values
    np.testing.assert_allclose(drawn.reshape(expected.shape), expected)


def test_contribution_bars_and_their_sum(found: Findings) -> None:
    parts = found.data.contributions
    ax = contributions_by_layer(parts, "red − blue").axes[0]
    heights = np.array([[bar.get_height() for bar in group] for group in ax.containers])
    np.testing.assert_allclose(heights, parts.values.T)
    running = next(line for line in ax.get_lines() if line.get_label() == "running sum")
    assert running.get_ydata()[-1] == pytest.approx(float(parts.sum()))
    assert any("6.40" in text.get_text() for text in ax.texts)


def test_contributions_by_frame_show_frames_then_text(found: Findings) -> None:
    heads = found.data.contributions_attention
    ax = contributions_by_frame(heads).axes[0]
    heights = [bar.get_height() for group in ax.containers for bar in group]
    total = heads.sum(["layer", "head"])
    order = [f"frame {n}" for n in range(16)] + ["template", "newline", "question"]
    np.testing.assert_allclose(heights, total.sel(source_group=order).values)


def test_other_figures_are_labelled(found: Findings) -> None:
    ax = layer_profile(
        found.redundancy["attention_to_video"], found.redundancy["frame_similarity"]
    ).axes[0]
    assert ax.get_xlabel() == "layer"
    ax = counterfactual_clips(found.hallucination["counterfactuals"], "red − blue").axes[0]
    assert next(tick.get_text() for tick in ax.get_yticklabels()) == "as is"
    assert ax.get_xlabel() == "red − blue (logits)"
    ax = generated_tokens(found.tokens).axes[0]
    assert [bar.get_height() for bar in ax.patches] == found.tokens["influence"].tolist()
    assert "nats" in ax.get_ylabel()
    ax = logit_lens(found.data, "red", "blue").axes[0]
    assert {"red", "blue"} <= {text.get_text() for text in ax.get_legend().get_texts()}


def test_lens_marks_what_it_did_not_keep(found: Findings) -> None:
    table = tables.follow_lens(found.data, "red")
    tokens = found.data.logit_lens_token.isel(readout=0).values
    probability = found.data.logit_lens_probability.isel(readout=0).values
    for row in range(len(table)):
        at = np.flatnonzero(tokens[row] == "red")
        expected = probability[row, at[0]] if at.size else probability[row].min()
        assert table["kept"][row] == bool(at.size)
        assert table["probability"][row] == pytest.approx(expected)


def test_frame_strip_outlines_the_evidence(found: Findings) -> None:
    vector = found.data.attention_received.mean("head").values[2, 1]
    painted = found.layout.paint(vector)
    figure = frame_strip(
        found.clip.frames,
        painted,
        seconds=found.clip.seconds,
        label="attention",
        evidence=found.evidence,
    )
    ax = figure.axes[0]
    assert len(ax.images) == 16 and len(ax.patches) == 2 * len(found.evidence)
    assert ax.texts[3].get_text() == "3 · 0.38 s"
    assert figure.get_size_inches()[0] == pytest.approx(DOUBLE)


def test_tint_is_strongest_where_the_value_is() -> None:
    frame = np.full((2, 2, 3), 128, np.uint8)
    values = np.array([[0.0, 1.0], [np.nan, 0.5]])
    picture = tint(frame, values, 0.0, 1.0, heat())
    base = picture[0, 0]
    np.testing.assert_allclose(picture[1, 0], base)
    assert np.abs(picture[0, 1] - base).sum() > np.abs(picture[1, 1] - base).sum() > 0
    assert span(np.array([-1.0, 3.0, np.nan])) == (-3.0, 3.0)
    assert span(np.array([np.nan])) == (0.0, 1.0)


def test_colours_read_in_grey() -> None:
    grey = heat()(np.linspace(0, 1, 64))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) < 0).all()
    two = signed()(np.linspace(0, 1, 65))[:, :3] @ [0.299, 0.587, 0.114]
    assert two.argmax() == 32


@pytest.mark.parametrize("name", ["kept_tokens", "layers", "contributions_by_layer"])
def test_files_are_vector_with_embedded_fonts(name: str, found: Findings, tmp_path: Path) -> None:
    figure = {
        "kept_tokens": lambda: kept_tokens(found.redundancy["kept"], 6.4, 0.7),
        "layers": lambda: attention_map(found.data.attention_mass),
        "contributions_by_layer": lambda: contributions_by_layer(found.data.contributions),
    }[name]()
    pdf, png = save(figure, tmp_path / f"{name}.v1")
    assert pdf.name == f"{name}.v1.pdf"
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF") and b"/Subtype /Image" not in content
    assert b"/Type3" not in content and b"/FontFile2" in content
    width = float(content.split(b"/MediaBox [")[1].split(b"]")[0].split()[2])
    assert width == pytest.approx(72 * SINGLE, abs=0.1)
    from PIL import Image

    with Image.open(png) as picture:
        assert picture.width == round(300 * SINGLE)


def test_drawing_leaves_matplotlib_as_it_was(found: Findings, tmp_path: Path) -> None:
    before = copy.deepcopy(dict(matplotlib.rcParams))
    save(generated_tokens(found.tokens), tmp_path / "tokens")
    assert dict(matplotlib.rcParams) == before


def test_gallery_has_every_figure(found: Findings) -> None:
    names = [name for name, _ in figures(found)]
    assert len(names) == len(set(names))
    assert {
        "overview",
        "attention_by_frame_last",
        "attention_by_head_question",
        "frames_attention_from_last",
        "frames_contribution",
        "contributions_by_layer",
        "contributions_by_frame",
        "layers",
        "kept_tokens",
        "drop_from_layer",
        "other_clips",
        "generated_tokens",
        "logit_lens",
    } <= set(names)


def test_overview_has_lettered_panels(found: Findings) -> None:
    figure = overview(found)
    letters = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert {"b", "c", "d", "e"} <= set(letters)
    assert figure.get_size_inches()[0] == pytest.approx(DOUBLE)


def test_labels_and_tokens_as_text() -> None:
    assert tables.short("frames 2-3") == "2–3" and tables.short("newline") == "newline"
    assert tables.frame_labels(["template", "frame 0", "frames 1-2"]) == ["frame 0", "frames 1-2"]
    assert tables.printable("\n") == "↵" and tables.printable(" ") == "␣"
    assert tables.printable(" a long token", 6) == "a lon…"
    assert tables.title_of(" red", None) == "red"
