"""Running a study: only what is missing, nothing mixed, failures recorded and gone past."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import probe.study.measure
from probe import ProbeError
from probe.models.video_model import VideoModel
from probe.study import fingerprint
from probe.study.progress import Progress, duration, shown
from probe.study.runner import run_study
from probe.study.store import Store
from tests.study import small

LABELS = ["untouched", "fastv", "edges", "mass"]
Run = Callable[..., Progress]


@pytest.fixture(scope="module")
def done(tiny: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, in the folder "results" of that of its spec."""
    folder = tmp_path_factory.mktemp("study")
    run_study(small.study(folder), folder / "results", loaded={"tiny": tiny}, features=False)
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(done, tmp_path / "study")


@pytest.fixture
def run(tiny: VideoModel) -> Run:
    """Run the small study in a folder, changed."""

    def run(folder: Path, out: str = "results", **changed: Any) -> Progress:
        names = ("retry", "progress", "features")
        how = {name: changed.pop(name) for name in names if name in changed}
        study = small.study(folder, **changed)
        return run_study(study, folder / out, loaded={"tiny": tiny}, **({"features": False} | how))

    return run


def cells(folder: Path) -> list[tuple[str, str]]:
    """(sample, label) of everything that was ever computed."""
    return [
        (record["sample"], cell["label"])
        for record in Store(folder / "results").records()
        for cell in record["cells"]
    ]


def table(folder: Path, out: str = "results") -> pd.DataFrame:
    return small.table(folder / out)


# -- what is computed ----------------------------------------------------------------------


def test_the_numbers_are_those_of_the_model(tiny: VideoModel, done: Path) -> None:
    from probe.ablate import fastv

    found = table(done).set_index(["sample", "label"])
    for sample in small.study(done).load()[::3]:
        x = tiny.encode(sample.video, sample.question, options=sample.options, frames=4)
        for label, ablations in (("untouched", []), ("fastv", [fastv(1, 0.5)])):
            row = tiny.run(x, ablate=ablations).logits[0].astype(float)
            a, b = (row[tiny.tokenizer(letter)["input_ids"][-1]] for letter in "AB")
            assert found.margin[sample.id, label] == pytest.approx(a - b, abs=1e-4)
    mass = Store(done / "results").arrays("mass")["mass"]
    assert "head" not in mass.dims and mass.sizes["sample"] == small.SAMPLES


def test_what_is_there_is_not_computed_again(run: Run, folder: Path, done: Path) -> None:
    before = cells(folder)
    assert len(before) == small.SAMPLES * 4
    last = run(folder)
    assert (last.done, last.total, last.failed) == (small.SAMPLES, small.SAMPLES, 0)
    assert cells(folder) == before
    pd.testing.assert_frame_equal(table(folder), table(done))


def test_a_new_ablation_is_all_that_a_longer_spec_computes(run: Run, folder: Path) -> None:
    before, old = cells(folder), table(folder)
    ablations = small.spec(folder)["ablations"] | {"more": "fastv(2, 0.5)"}
    run(folder, ablations=ablations)
    assert sorted(set(cells(folder)) - set(before)) == [
        (f"q{n}", "more") for n in range(small.SAMPLES)
    ]
    assert len(cells(folder)) == len(before) + small.SAMPLES
    found = table(folder)
    pd.testing.assert_frame_equal(
        found[found.label != "more"].reset_index(drop=True)[old.columns], old
    )
    run(folder)  # the shorter spec again
    pd.testing.assert_frame_equal(table(folder), old)


def test_a_changed_spec_and_the_old_one_do_not_mix(run: Run, folder: Path) -> None:
    old = table(folder)
    run(folder, frames=2)
    assert len(cells(folder)) == 2 * len(old)
    assert not set(table(folder).key) & set(old.key)
    run(folder)
    assert len(cells(folder)) == 2 * len(old)
    pd.testing.assert_frame_equal(table(folder), old)


def test_changed_weights_make_new_results(run: Run, folder: Path, tiny: VideoModel) -> None:
    old = table(folder)
    weight = tiny.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(0.25)
    try:
        run(folder)
        new = table(folder)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert not set(new.key) & set(old.key)
    assert np.abs(new.margin.dropna() - old.margin.dropna()).min() > 0
    run(folder)
    pd.testing.assert_frame_equal(table(folder), old)


def test_changed_code_makes_new_results(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = table(folder)
    monkeypatch.setattr(fingerprint, "code", lambda: "another")
    run(folder)
    new = table(folder)
    assert not set(new.key) & set(old.key)
    pd.testing.assert_frame_equal(new.drop(columns="key"), old.drop(columns="key"))


def test_features_change_nothing(run: Run, folder: Path, tiny: VideoModel) -> None:
    run(folder, "cached", features=True)
    assert tiny.feature_cache is None  # the caller's model is as it was
    pd.testing.assert_frame_equal(table(folder, "cached"), table(folder))
    assert len(list((folder / "cached" / "features").glob("*.safetensors"))) == 2  # two clips


# -- failures ------------------------------------------------------------------------------


def test_a_clip_that_cannot_be_read(run: Run, folder: Path) -> None:
    (folder / "1.mp4").write_bytes(b"no clip" * 99)
    last = run(folder)
    assert (last.done, last.failed) == (8, 16)
    found = table(folder).set_index("sample")
    assert found.error["q0"].isna().all() and found.error["q4"].str.contains("1.mp4").all()
    assert not found.error["q4"].str.contains("\n").any()
    assert len(cells(folder)) == 32 + 16  # the four samples of the other clip are as they were
    run(folder)
    assert len(cells(folder)) == 32 + 16  # a failure is a result
    run(folder, retry=True)
    assert len(cells(folder)) == 32 + 32  # on request they are tried again, once


def test_one_bad_ablation_costs_the_others_nothing(run: Run, folder: Path) -> None:
    old = table(folder)
    ablations = small.spec(folder)["ablations"] | {"bad": "fastv(99, 0.5)"}
    assert run(folder, "fresh", ablations=ablations).failed == small.SAMPLES
    found = table(folder, "fresh")
    assert found[found.label == "bad"].error.str.contains("layers 0 to 3|layer").all()
    good = found[found.label != "bad"].reset_index(drop=True)
    np.testing.assert_allclose(good.margin, old.margin, atol=1e-5)


def limited(cells_at_once: int, never: str, calls: list[int]) -> Callable:
    """`measure` on a machine with little memory."""
    real = probe.study.measure.measure

    def measure(study: Any, sample: Any, case: Any, cells: Sequence[Any]) -> list:
        calls.append(len(cells))
        if len(cells) > cells_at_once or cells[0].label == never:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2 GiB")
        return real(study, sample, case, cells)

    return measure


def test_out_of_memory(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = small.spec(folder)["samples"] | {"n": 2}
    run(folder, samples=few)
    old, calls = table(folder), []
    monkeypatch.setattr(probe.study.measure, "measure", limited(1, "edges", calls))
    last = run(folder, "little", samples=few)
    assert (last.done, last.failed) == (2, 2) and calls == [4, 1, 1, 1, 1] * 2
    found = table(folder, "little")
    failed = found.label == "edges"
    assert found.error[failed].str.startswith("OutOfMemoryError: CUDA out of memory.").all()
    np.testing.assert_allclose(found.margin[~failed], old.margin[~failed], atol=1e-5)
    monkeypatch.undo()
    assert run(folder, "little", samples=few).failed == 2
    assert run(folder, "little", samples=few, retry=True).failed == 0
    np.testing.assert_allclose(table(folder, "little").margin, old.margin, atol=1e-5)


def test_an_interrupt_passes(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, real = table(folder), probe.study.measure.measure

    def measure(study: Any, sample: Any, case: Any, cells: Sequence[Any]) -> list:
        if sample.id == "q3":
            raise KeyboardInterrupt
        return real(study, sample, case, cells)

    monkeypatch.setattr(probe.study.measure, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        run(folder, "stopped")
    assert len(table(folder, "stopped")) == 3 * 4
    assert not os.listdir(folder / "stopped" / "claims")
    monkeypatch.undo()
    run(folder, "stopped")
    pd.testing.assert_frame_equal(table(folder, "stopped"), old)


def test_wrong_arguments(tiny: VideoModel, folder: Path) -> None:
    study = small.study(folder)
    with pytest.raises(ProbeError, match="workers=0"):
        run_study(study, folder / "results", workers=0)
    with pytest.raises(ProbeError, match="workers=1"):
        run_study(study, folder / "results", workers=2, loaded={"tiny": tiny})
    with pytest.raises(ProbeError, match="tiny"):
        run_study(study, folder / "other")  # no such model


# -- progress ------------------------------------------------------------------------------


def test_progress(run: Run, folder: Path) -> None:
    (folder / "1.mp4").write_bytes(b"no clip")
    told: list[Progress] = []
    run(folder, "told", progress=told.append)
    counts = [now.done for now in told]  # not after every sample, where counting takes long
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (0, small.SAMPLES)
    assert told[0].remaining is None and told[-1].remaining == 0
    assert [now.failed for now in told][-1] == 16
    now = told[1]
    assert now.per_second == pytest.approx(now.done / now.seconds)
    assert now.remaining == pytest.approx((small.SAMPLES - now.done) / now.per_second)
    assert f"{now.done} of 8 samples" in str(now) and str(told[-1]).endswith("16 failures")
    again: list[Progress] = []
    run(folder, "told", progress=again.append)
    assert [now.done for now in again] == [8, 8] and again[-1].per_second == 0


def test_progress_is_shown(capsys: pytest.CaptureFixture) -> None:
    with shown() as tell:
        tell(Progress(1, 8, 0, 2.0, 0.5, 14.0))
        tell(Progress(8, 8, 2, 16.0, 0.5, 0.0))
    assert capsys.readouterr().err.splitlines() == ["8 of 8 samples, 0.50/s, 0 s left, 2 failures"]
    assert [duration(s) for s in (5.2, 75, 7300)] == ["5 s", "1 min 15 s", "2 h 1 min"]
