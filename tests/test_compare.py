"""Comparing two runs: differences by label, KL against torch, and the figure of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import probe
from probe import ProbeError
from probe.ablate import Knockout, fastv
from probe.capture import AttentionEntropy, AttentionMass, LogitLens, TokenNorms
from probe.comparison import compare
from probe.models.video_model import VideoModel
from probe.plot.compare import profiles
from probe.plot.style import save
from tests.tiny import example

CUT = [Knockout("video -> text", layers=[1, 2])]
MASS = AttentionMass(keys="frames")


def test_differences_and_divergence(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    a, b = tiny.run(x, [MASS, TokenNorms()]), tiny.run(x, [MASS, TokenNorms()], CUT)
    found = compare(a, b)
    for name in ("attention_mass", "token_norms"):
        xr.testing.assert_equal(found.data[name], b.data[name] - a.data[name])
    np.testing.assert_array_equal(found.data.logits, b.logits - a.logits)
    p, q = (torch.from_numpy(run.logits).double().log_softmax(-1) for run in (a, b))
    kl = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    np.testing.assert_allclose(found.data.kl, kl, rtol=1e-9)
    assert float(found.data.kl.min()) > 1e-3 and found.data.sizes["step"] == 3
    assert found.names == ("as is", 'Knockout(edges="video -> text", layers=[1, 2])')
    assert not found.left_out and not found.data.kept.any()
    own = int(a.logits[0].argmax())
    rival = int(np.argsort(-b.logits[0])[np.argsort(-b.logits[0]) != own][0])
    margins = [run.logits[:, own] - run.logits[:, rival] for run in (a, b)]
    np.testing.assert_array_equal(found.data.margin, margins[1] - margins[0])
    row = found.summary.set_index("quantity").loc["attention_mass"]
    change = (b.data.attention_mass - a.data.attention_mass).values
    assert row.largest == change.ravel()[np.abs(change).argmax()]
    place = dict(part.split(" ", 1) for part in row["at"].split(", "))
    place |= {dim: int(place[dim]) for dim in ("layer", "head")}
    assert float(found.data.attention_mass.sel(place)) == row.largest
    assert row.mean_change == pytest.approx(np.abs(change).mean())
    first = found.tokens[found.tokens.step == 0]
    likely = torch.maximum(p[0], q[0]).exp().topk(len(first))
    assert first.id.tolist() == likely.indices.tolist()
    np.testing.assert_allclose(first.a, p[0, likely.indices].exp())
    np.testing.assert_allclose(first.b, q[0, likely.indices].exp())


def test_a_run_is_itself(tiny: VideoModel, tmp_path: Path) -> None:
    run = tiny.run(example(tiny), [MASS, LogitLens(words=("r",))])
    opened = probe.open(run.save(tmp_path / "run"))
    for other in (run, opened):
        found = compare(run, other)
        assert found.names == ("a", "b")
        assert found.summary.mean_change.max() == 0 and (found.summary["at"] == "").all()
        assert found.left_out == {"logit_lens_token": "text"}
    both = compare(opened, opened)
    assert (both.target, both.versus) == (found.target, found.versus)
    assert both.tokens.equals(found.tokens)


def test_what_is_kept_and_nan_where_one_has_nothing(tiny: VideoModel) -> None:
    x = example(tiny)
    a, b = tiny.run(x, [TokenNorms()]), tiny.run(x, [TokenNorms()], [fastv(2, 0.5)])
    found = compare(a, b)
    gone = a.kept.values & ~b.kept.values
    np.testing.assert_array_equal(found.data.kept, -gone.astype(int))
    np.testing.assert_array_equal(np.isnan(found.data.token_norms).any("vector"), gone)
    row = found.summary.set_index("quantity").loc["kept"]
    assert (row.a, row.b) == (1, pytest.approx(b.kept.values.mean()))


def test_variables_meet_by_what_made_them_and_by_label(tiny: VideoModel) -> None:
    x = example(tiny)
    text, everything = AttentionEntropy(), AttentionEntropy("tokens")
    a = tiny.run(x, [text, everything, TokenNorms(layers=[0, 1, 2])])
    b = tiny.run(x, [everything, text, MASS, TokenNorms(layers=[0, 1, 2])], CUT)
    found = compare(a, b)
    expected = b.data.attention_entropy_2 - a.data.attention_entropy
    xr.testing.assert_equal(
        found.data.attention_entropy, expected.transpose(*a.data.attention_entropy.dims)
    )
    assert found.left_out == {"attention_mass": "only the second run has it"}
    shorter = tiny.run(example(tiny, frames=3), [MASS, TokenNorms(layers=[0, 1, 2]), text])
    other = compare(a, shorter)
    assert other.left_out["token_norms"] == "the prompts have different positions"
    assert other.left_out["attention_mass"] == "only the second run has it"
    assert "kept" not in other.data and "attention_entropy" in other.data
    mass = compare(tiny.run(x, [MASS]), shorter).data.attention_mass
    frames = [label for label in mass.key_group.values.tolist() if label.startswith("frame")]
    assert frames == ["frame 0", "frame 1", "frame 2"]


def test_generations_are_compared_step_by_step(tiny: VideoModel) -> None:
    x = example(tiny)
    a = tiny.generate(x, [MASS], max_new_tokens=4)
    b = tiny.generate(x, [MASS], CUT, max_new_tokens=3)
    found = compare(a, b)
    assert found.data.step.values.tolist() == [0, 1, 2]
    expected = b.data.attention_mass.isel(step=2) - a.data.attention_mass.isel(step=2)
    np.testing.assert_array_equal(found.data.attention_mass.isel(step=2), expected)


def test_the_margin_one_asks_for(tiny: VideoModel) -> None:
    x = example(tiny)
    a, b = tiny.run(x), tiny.run(x, ablate=CUT)
    ids = [tiny.token_id(x, word, "test") for word in "rb"]
    found = compare(a, b, "r", ids[1], names=("clean", "cut"))
    assert (found.target, found.versus, found.names) == ("r", "b", ("clean", "cut"))
    change = (b.logits - a.logits)[0]
    np.testing.assert_allclose(found.data.margin, [change[ids[0]] - change[ids[1]]], rtol=1e-4)
    with pytest.raises(ProbeError, match="'red' is not among the likely tokens; give its id"):
        compare(a, b, "red")
    with pytest.raises(ProbeError, match="no token id 100000"):
        compare(a, b, 100_000)
    cut = replace(b, logits=b.logits[:, :-1])
    with pytest.raises(ProbeError, match="261 and 260 words"):
        compare(a, cut)
    with pytest.raises(ProbeError, match="of a batch, one of its runs"):
        compare(a, tiny.run([x, x]))


def test_the_figure_draws_the_differences(tiny: VideoModel, tmp_path: Path) -> None:
    x = example(tiny, answer="red")
    a, b = tiny.run(x, [MASS]), tiny.run(x, [MASS], CUT)
    found = compare(a, b)
    figure = found.figure()
    tokens, divergence, heat = figure.axes[:3]
    drawn = {line.get_label(): line.get_xdata() for line in tokens.get_lines()}
    first = found.tokens[found.tokens.step == 0]
    np.testing.assert_allclose(drawn["a"], np.maximum(first.a, 1e-5))
    np.testing.assert_allclose(drawn["b"], np.maximum(first.b, 1e-5))
    bars = [bar.get_height() for bar in divergence.patches]
    np.testing.assert_allclose(bars, found.data.kl)
    frames = [f"frame {n}" for n in range(5)]
    change = found.data.attention_mass.sel(query_group="last", key_group=frames).mean("head")
    mesh = heat.collections[0].get_array().reshape(tiny.n_layers, 5)
    np.testing.assert_allclose(mesh, change.transpose("layer", "key_group"), atol=1e-7)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == list(found.names)
    assert {path.suffix for path in save(figure, tmp_path / "compare")} == {".pdf", ".png"}


def test_without_frames_the_figure_draws_profiles(tiny: VideoModel) -> None:
    x = example(tiny)
    found = compare(tiny.run(x, [TokenNorms()]), tiny.run(x, [TokenNorms()], CUT))
    ax = found.figure().axes[1]
    expected = abs(found.data.token_norms).mean(["vector", "position"])
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), expected / expected.max(), rtol=1e-6)
    assert list(profiles(found.data)) == ["token_norms"]
    bare = compare(tiny.run(x), tiny.run(x)).figure()
    assert len(bare.axes) == 1
