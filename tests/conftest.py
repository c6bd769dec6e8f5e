"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.models.video_model import VideoModel
from tests import table
from tests import tiny as tiny_models


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", metavar="FILE", help="write the matrix of families to a file")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    path = config.getoption("--table")
    if path:
        Path(path).write_text(table.matrix(terminalreporter.stats), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny() -> VideoModel:
    """4 layers, 4 heads over 2, 4 x 4 patches pooled to 2 x 2 tokens a frame."""
    return tiny_models.build(tiny_models.EVEN, seed=2)


@pytest.fixture(scope="session")
def tiny_eager(tiny: VideoModel) -> VideoModel:
    """The weights of `tiny` with eager attention, which returns dense maps."""
    return tiny_models.twin(tiny)


@pytest.fixture(scope="session")
def other() -> VideoModel:
    """3 layers, 6 heads over 3, 5 x 5 patches pooled to 3 x 3 tokens, tied embeddings."""
    return tiny_models.build(tiny_models.ODD, seed=3)


@pytest.fixture(scope="session")
def other_eager(other: VideoModel) -> VideoModel:
    """The weights of `other` with eager attention."""
    return tiny_models.twin(other)


@pytest.fixture(scope="session")
def videos() -> Path:
    """The folder of real clips beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "videos"
    if not folder.is_dir():
        pytest.skip(f"no real clips: {folder} is not there")
    return folder


@pytest.fixture(params=["tiny", "other"])
def pair(request: pytest.FixtureRequest) -> tuple[VideoModel, VideoModel]:
    """Each of the two models, and its eager twin."""
    name: str = request.param
    return request.getfixturevalue(name), request.getfixturevalue(f"{name}_eager")
