"""Bad input through the real command line: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from probe import testbed


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    testbed.write_clip(path, frames)
    return path


def probe(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "probe.cli", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("probe: ")
    for word in words:
        assert word in lines[0], lines[0]


def bad_files(folder: Path, clip: Path) -> dict[str, tuple[Path, str]]:
    made = {
        name: folder / name
        for name in ("folder.mp4", "empty.mp4", "text.mp4", "sound.mp4", "cut.mp4")
    }
    made["folder.mp4"].mkdir()
    made["empty.mp4"].touch()
    made["text.mp4"].write_text("this is not a video\n" * 50)
    _sound(made["sound.mp4"])
    _cut(clip, made["cut.mp4"])
    return {
        "missing": (folder / "nowhere.mp4", "nowhere.mp4"),
        "directory": (made["folder.mp4"], "folder"),
        "empty": (made["empty.mp4"], "empty"),
        "text": (made["text.mp4"], "text.mp4"),
        "sound": (made["sound.mp4"], "sound.mp4"),
        "cut": (made["cut.mp4"], "--allow-partial"),
    }


KINDS = ("missing", "directory", "empty", "text", "sound", "cut")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files(kind: str, clip: Path, tmp_path: Path) -> None:
    path, word = bad_files(tmp_path, clip)[kind]
    out = tmp_path / "out"
    refused(probe("run", path, "--ask", "What moves?", "--out", out, cwd=tmp_path), word)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--frames", 0], "frames"),
        (["--model", "testbed/nothing"], "testbed/nothing"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--ablate", "nonsense(1)"], "nonsense"),
        (["--ablate", "__import__('os').getcwd()"], "cannot read"),
        (["--ablate", "fastv(k=2, keep=1.5)"], "keep"),
        (["--ablate", "fastv(k=99)"], "layer 99"),
        (["--ablate", "Knockout('video -> nobody')"], "nobody"),
        (["--max-new-tokens", 0], "max-new-tokens"),
    ],
)
def test_bad_arguments(arguments: list, word: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = probe("run", clip, "--ask", "What moves?", "--out", out, *arguments, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 2 and word in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("probe: ")]
    assert len(errors) == 1
    assert not out.exists()


def test_empty_question(clip: Path, tmp_path: Path) -> None:
    refused(probe("run", clip, "--ask", "  ", "--out", "out", cwd=tmp_path), "question")


def test_unwritable_folder(clip: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    done = probe("run", clip, "--ask", "What?", "--out", blocked / "out", cwd=tmp_path)
    refused(done, "a-file")
    assert blocked.read_text() == "in the way"


def test_a_folder_that_is_not_ours_is_left_alone(clip: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.txt").write_text("precious")
    refused(probe("run", clip, "--ask", "What?", "--out", mine, cwd=tmp_path), "thesis")
    assert (mine / "chapter.txt").read_text() == "precious"


def test_family_without_layout_and_pickles(clip: Path, tmp_path: Path) -> None:
    other, pickled = tmp_path / "other", tmp_path / "pickled"
    for folder, kind in ((other, "bert"), (pickled, "llava_onevision")):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (other / "model.safetensors").touch()
    (pickled / "pytorch_model.bin").touch()
    ask = ["run", clip, "--ask", "What?", "--out", "out", "--model"]
    refused(probe(*ask, "./other", cwd=tmp_path), "bert")
    refused(probe(*ask, "./pickled", cwd=tmp_path), "safetensors")


def test_lists(tmp_path: Path) -> None:
    for what, word in (
        ("models", "llava_onevision"),
        ("captures", "AttentionMass"),
        ("ablations", "fastv"),
    ):
        done = probe(what, cwd=tmp_path)
        assert done.returncode == 0 and word in done.stdout


def _sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _cut(source: Path, path: Path) -> None:
    """The same clip with its index in front and its last third missing."""
    import av

    whole = path.with_name("whole.mp4")
    with (
        av.open(str(source)) as old,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
