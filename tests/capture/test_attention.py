"""Every attention statistic against the dense map that transformers itself returns."""

from __future__ import annotations

import numpy as np
import pytest

from probe.capture import (
    AttentionEntropy,
    AttentionMass,
    AttentionReceived,
    AttentionRows,
    captures,
)
from probe.capture import entropy as entropy_module
from probe.capture import mass as mass_module
from probe.capture import received as received_module
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.spec import parse
from tests.capture.maps import close, entropy, mass, received
from tests.tiny import dense, example

QUERIES = [
    "text",
    "tokens",
    "roles",
    "frames",
    "readout",
    ["all"],
    ["frame 1", "question", "video - frame 0 + last"],
]
KEYS = ["frames", "roles", "tokens", ["video", "text - last", "box 0,0,9,9 + newline"]]
LONG = "What moves? " * 25  # some 300 rows of text: past the limit for dense rows

Pair = tuple[VideoModel, VideoModel]


def check_all(model: VideoModel, x: Example, weights: np.ndarray) -> None:
    for queries in QUERIES:
        captures = [AttentionMass(queries, keys) for keys in KEYS]
        captures += [AttentionEntropy(queries), AttentionReceived(queries)]
        data = model.run(x, captures).data
        axis = "position" if queries == "tokens" else "query_group"
        for number, keys in enumerate(KEYS, 1):
            name = "attention_mass" if number == 1 else f"attention_mass_{number}"
            labels = list(x.layout.partition(keys))
            found = data[name].sel(key_group=labels)
            assert found.dims == ("layer", "head", axis, "key_group")
            close(found, mass(weights, x.layout, queries, keys))
        close(data.attention_entropy, entropy(weights, x.layout, queries))
        assert data.attention_received.dims == ("layer", "head", "query_group", "position")
        close(data.attention_received, received(weights, x.layout, queries))


def test_every_statistic_for_a_run(pair: Pair) -> None:
    model, eager = pair
    x = example(model, answer="red")
    check_all(model, x, dense(eager, x))


def test_every_statistic_by_tiles(pair: Pair, monkeypatch) -> None:
    for module in (mass_module, entropy_module, received_module):
        monkeypatch.setattr(module, "MANY", 0)
    model, eager = pair
    x = example(model, answer="red")
    check_all(model, x, dense(eager, x))


def test_every_statistic_of_a_prompt_longer_than_a_tile(pair: Pair) -> None:
    model, eager = pair
    x = example(model, 20, LONG)
    assert len(x.layout) > 256 + 128 and len(x.layout) % 64
    check_all(model, x, dense(eager, x))


def test_eager_models_are_read_the_same(pair: Pair, monkeypatch) -> None:
    """With eager attention transformers passes an explicit mask: the general path of the tiles."""
    _, eager = pair
    x = example(eager, answer="red")
    check_all(eager, x, dense(eager, x))
    monkeypatch.setattr(mass_module, "MANY", 0)
    monkeypatch.setattr(entropy_module, "MANY", 0)
    monkeypatch.setattr(received_module, "MANY", 0)
    check_all(eager, x, dense(eager, x))


def test_dense_rows(pair: Pair) -> None:
    model, eager = pair
    x = example(model)
    weights = dense(eager, x)
    for queries in ("all", "last", "frame 2 + question", [3, 1]):
        chosen = x.layout.select(queries)
        rows = model.run(x, [AttentionRows(queries)]).data.attention_rows
        assert rows["query"].values.tolist() == chosen.tolist()
        close(rows, weights[:, :, chosen])
    some = model.run(x, [AttentionRows(layers=[2, 0])]).data.attention_rows
    assert some.layer.values.tolist() == [0, 2]
    close(some, weights[[0, 2]][:, :, [x.layout.last]])


def test_masses_over_a_partition_sum_to_one(pair: Pair) -> None:
    model, _ = pair
    data = model.run(example(model), [AttentionMass("tokens", "frames"), AttentionRows("all")]).data
    np.testing.assert_allclose(data.attention_mass.sum("key_group"), 1, atol=1e-6)
    np.testing.assert_allclose(data.attention_rows.sum("position"), 1, atol=1e-6)


def test_labels_select_themselves(tiny: VideoModel) -> None:
    x = example(tiny, options=["red", "blue"])
    data = tiny.run(x, [AttentionMass("text", "frames")]).data
    for label in (*data.query_group.values, *data.key_group.values):
        assert len(x.layout.select(str(label)))
    assert data.query_group.values.tolist() == [
        "template",
        "question",
        "option 1",
        "option 2",
        "last",
    ]
    assert data.attention_mass.attrs["units"] == "1"
    assert parse(data.attention_mass.attrs["capture"], captures()) == [AttentionMass()]


@pytest.mark.parametrize("layers", [1, [0, 2], "1-2"])
def test_layers(tiny: VideoModel, layers) -> None:
    x = example(tiny)
    every = [AttentionMass(), AttentionEntropy(), AttentionReceived()]
    some = [
        AttentionMass(layers=layers),
        AttentionEntropy(layers=layers),
        AttentionReceived(layers=layers),
    ]
    whole, part = tiny.run(x, every).data, tiny.run(x, some).data
    for name in whole:
        np.testing.assert_array_equal(whole[name].sel(layer=part.layer), part[name])
