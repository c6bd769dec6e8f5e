"""Every selection, rest and pool as data: to JSON and text, and back."""

from __future__ import annotations

import json

import pytest

from probe.ablate.reduction import (
    merge,
    merge_bipartite,
    merge_overlap,
    merge_time,
    pool,
    pool_dct,
    pool_list,
    rest,
    select,
    select_cluster,
    select_diverse,
    select_frames,
    select_grid,
    select_match,
)
from probe.ablate.reduction.budget import Count
from probe.ablate.reduction.merge import Blend, Merge
from probe.ablate.reduction.merge_bipartite import Bipartite
from probe.ablate.reduction.merge_overlap import Gather, Neighbourhood
from probe.ablate.reduction.merge_time import Collapse, PairMerge
from probe.ablate.reduction.parts import Part
from probe.ablate.reduction.pool import Pool
from probe.ablate.reduction.pool_dct import PoolDCT
from probe.ablate.reduction.pool_list import FrameMean, Pool1D, SizedPool
from probe.ablate.reduction.rest import Drop, Recycle, Summary
from probe.ablate.reduction.select import Prefix, Protect, Threshold, TopK
from probe.ablate.reduction.select_cluster import DPCKNN
from probe.ablate.reduction.select_diverse import Cover, MaxMin
from probe.ablate.reduction.select_frames import Anchors, EachFrame
from probe.ablate.reduction.select_grid import FinerGrid, Grid, Lattice, LocalTop
from probe.ablate.reduction.select_match import Alike, EvenOdd, Pivots
from probe.ablate.scores import Norm
from probe.ablate.scores_encoder import Keys
from probe.spec import Spec, from_json, parse, snake

MODULES = [merge, merge_bipartite, merge_overlap, merge_time, pool, pool_dct, pool_list, rest]
MODULES += [select, select_cluster, select_diverse, select_frames, select_grid, select_match]
NAMES = {
    name: value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__.startswith("probe.ablate.reduction")
} | {"Norm": Norm, "Count": Count}

PARTS = [
    TopK(),
    Threshold(0.5, least=2),
    Prefix(),
    TopK().then(EvenOdd(8, order="published"), 0.5),
    TopK() | Lattice(time=4, row=2, col=2),
    Protect(TopK(), Norm(), 47),
    Grid(count=2880),
    FinerGrid(),
    LocalTop(window=9),
    EachFrame(TopK()).then(Anchors(DPCKNN(4)), 12),
    MaxMin("key"),
    Cover(0.2, "key"),
    Pivots(),
    Alike(0.8),
    DPCKNN(None, capped=True, metric="cos"),
    Drop(),
    Summary("sum", rest=Gather()),
    Recycle(rest=Merge("cos")),
    Merge("key", "add"),
    Merge("cos", Blend(0.6, counted=True, own=True), per="frame"),
    Neighbourhood(0.2),
    Collapse("first"),
    PairMerge("paper"),
    Bipartite((1280, 640), heads=16),
    Bipartite(to=64),
    Pool(out=(None, 12, 12)),
    Pool(out=(16, 8, 8), how="weighted", score=Norm()),
    Pool(kernel=(1, 2, 2), anchor="first"),
    PoolDCT((None, 12, 12), gain="legacy"),
    Pool1D(3),
    FrameMean(keep=True),
    SizedPool(Count(100), Norm()),
]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_to_data_and_back(part: Part) -> None:
    assert parse(str(part), NAMES) == [part]
    assert from_json(json.loads(json.dumps(part.to_json())), NAMES) == part
    assert hash(part) == hash(parse(str(part), NAMES)[0])


def test_every_part_is_in_the_list() -> None:
    here = {module.__name__ for module in MODULES}
    text = " ".join(json.dumps(part.to_json()) for part in PARTS)

    own = [v for v in NAMES.values() if v.__module__ in here and issubclass(v, Spec)]
    assert len(own) == 33
    assert [value for value in own if f'"{snake(value.__name__)}"' not in text] == []


def test_what_has_to_be_read_is_found_inside() -> None:
    select = EachFrame(TopK()).then(Anchors(DPCKNN(of="key")), 12) | Protect(MaxMin(), Norm(), 3)

    assert set(select.leaves()) == {Keys(), Norm()}
    assert Summary(rest=Merge("key")).leaves() == (Keys(),)
    assert Recycle(select=DPCKNN(of="key")).leaves() == (Keys(),)
    assert SizedPool(Count(3), Norm()).leaves() == (Norm(),)
    assert Bipartite(of="key").leaves() == (Keys(),)
    assert [str(leaf) for leaf in Pivots(text=2).leaves()] == ["TextPivots(count=2)"]
    assert TopK().leaves() == Merge().leaves() == Pool1D(2).leaves() == Pivots(text=0).leaves()
