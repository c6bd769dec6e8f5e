"""Deletion and insertion on a model that needs one known token, and by scores and maps alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import auc

from probe import ProbeError
from probe.ablate import Norm
from probe.diagnose import Case, Deletion, MaskingNull, RandomMap, token_order
from probe.diagnose.importance.base import ImportanceMap
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.decoder import decode, embeddings
from tests.diagnose import few

PLACE = [(2, 1)]


@dataclass(frozen=True)
class Told(ImportanceMap):
    """A map that names some tokens."""

    best: tuple[int, ...] = ()

    def scores(self, case: Case) -> np.ndarray:
        return np.isin(np.arange(len(case.video_tokens)), self.best).astype(float)


@dataclass(frozen=True)
class Norms(ImportanceMap):
    """Lengths of the merged embeddings, read without any capture."""

    def scores(self, case: Case) -> np.ndarray:
        return embeddings(case.model, case.x)[case.video_tokens].norm(dim=-1).numpy()


def plain(case: Case, kept: np.ndarray) -> float:
    """Probability of the right answer by the plain decoder."""
    present = np.ones((case.model.n_layers, len(case.x.layout)), bool)
    present[:, np.delete(case.video_tokens, kept)] = False
    row = decode(case.model, case.x, present=present)[case.x.layout.last]
    return float(np.exp(row[case.first("red")]) / np.exp(row).sum())


def test_the_one_token_that_matters_leaves_first_or_comes_first() -> None:
    case = few.planted(PLACE, 1)
    best = int(few.numbers(case, PLACE)[0])
    worst = Told(tuple(n for n in range(24) if n != best))
    found = Deletion(by=[Told((best,)), worst], removed=[0.25, 0.5]).measure(case)
    curves = found["curves"]
    assert curves.removed.values.tolist() == [0, 0.25, 0.5, 1]
    told, other = (curves.sel(by=str(by)) for by in (Told((best,)), worst))
    # With the token its share rises as others leave; without it nothing is left of the answer.
    assert (told.sel(way="insertion").values[:3] > told.sel(way="deletion").values[1:].max()).all()
    assert found[f"deletion {Told((best,))}"] < found[f"deletion {worst}"]
    np.testing.assert_allclose(other.sel(way="insertion")[1:3], told.sel(way="deletion")[1:3])
    for name, way in ((Told((best,)), "insertion"), (worst, "deletion")):
        curve = curves.sel(by=str(name), way=way)
        assert found[f"{way} {name}"] == pytest.approx(auc(curve.removed, curve))


def test_curves_are_the_plain_decoders_and_scores_are_maps(tiny: VideoModel) -> None:
    x = tiny_models.example(tiny, 3)
    case = Case(tiny, x, "red", ("red", "blue", "green"))
    found = Deletion(by=[Norm(), Norms(), RandomMap(1)], removed=[0.5]).measure(case)["curves"]
    np.testing.assert_allclose(found.sel(by="Norm()"), found.sel(by="Norms()"), rtol=1e-4)
    order = np.argsort(-Norms().scores(case))
    for way, kept in (("insertion", order[:6]), ("deletion", order[6:])):
        middle = float(found.sel(by="Norm()", way=way)[1])
        assert middle == pytest.approx(plain(case, np.sort(kept)), rel=1e-3)
    ends = found.sel(by="RandomMap(seed=1)", way="deletion")
    assert float(ends[0]) == pytest.approx(plain(case, np.arange(12)), rel=1e-3)
    assert float(ends[-1]) == pytest.approx(plain(case, np.zeros(0, int)), rel=1e-3)
    with pytest.raises(ProbeError, match="shares lie between 0 and 1"):
        Deletion(removed=[1.0]).measure(case)


def test_the_null_curve_is_right_as_often_as_the_token_is_drawn() -> None:
    case = few.planted(PLACE, 1)
    best = few.numbers(case, PLACE)[0]
    found = MaskingNull(keep=[0.75, 0.25], draws=6).measure(case)
    assert found["null_full"] > 0 > found["null_none"]
    draw = token_order.rng(case)
    for share, count in ((0.75, 18), (0.25, 6)):
        drawn = [best in draw.permutation(24)[:count] for _ in range(6)]
        assert found[f"null_right_{share:g}"] == pytest.approx(np.mean(drawn))
        row = found["null"].sel(kept=share)
        assert ((row.values > 0) == drawn).all()
        assert found[f"null_{share:g}"] == pytest.approx(row.values.mean())
    with pytest.raises(ProbeError, match="above 0 and at most 1"):
        MaskingNull(keep=[1.5]).measure(case)
