"""Multiply-accumulates and bytes of a model on sequences of given lengths; one FLOP count a name.

Conventions. They differ by factors that decide comparisons, so no number mixes two of them:

- `true`: what is computed: queries and output projection, grouped keys and values, gate, up and
  down of the MLP, the experts that a token uses and the choice of them.
- `fastv`: 4nd² + 2n²d + 2ndm (FastV, HoliTom, DyCoke, EarlyTom's language model).
- `3ndm`: 4nd² + 2n²d + 3ndm (SparseVLM).
- `with vision`: `true`, and the layers of the vision tower by the same count.

In all of them causal attention is counted in full, n x n, and only layers are counted: no
embedding, projector or unembedding. One multiply-accumulate is two floating point operations; the
papers write FLOPs and mean these.
"""

from __future__ import annotations

from collections.abc import Sequence

from probe.engine.cost_shape import Shape, TowerShape
from probe.errors import ProbeError

CONVENTIONS = ("true", "fastv", "3ndm", "with vision")
Patches = Sequence[tuple[int, int, int]]


def layer_macs(
    n: int,
    width: int,
    mlp: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    keys: int | None = None,
    experts: int = 0,
    thin: int | None = None,
) -> int:
    """True multiply-accumulates of one decoder layer over n rows.

    Args:
        n: rows.
        width, mlp, heads, kv_heads, head_dim: of the layer.
        keys: that each row attends to; n by default.
        experts: to choose from, in a mixture of experts.
        thin: rows that go through the MLP; n by default.
    """
    seen, through = n if keys is None else keys, n if thin is None else thin
    projections = n * width * head_dim * (2 * heads + 2 * kv_heads)
    attention = projections + 2 * n * seen * heads * head_dim
    return attention + through * width * (3 * mlp + experts)


def layer_macs_fastv(n: int, width: int, mlp: int, thin: int | None = None) -> int:
    """The convention of FastV and HoliTom: 4nd^2 + 2n^2d + 2ndm."""
    through = n if thin is None else thin
    return 4 * n * width**2 + 2 * n**2 * width + 2 * through * width * mlp


def layer_macs_3ndm(n: int, width: int, mlp: int, thin: int | None = None) -> int:
    """The convention of SparseVLM: 4nd^2 + 2n^2d + 3ndm."""
    through = n if thin is None else thin
    return 4 * n * width**2 + 2 * n**2 * width + 3 * through * width * mlp


def prefill_macs(
    shape: Shape,
    rows: Sequence[int],
    convention: str = "true",
    patches: Patches | None = None,
    thin: Sequence[int] | None = None,
) -> int:
    """Multiply-accumulates of the prompt.

    Args:
        shape: of the model.
        rows: per layer.
        convention: one of `CONVENTIONS`.
        patches: grids of the vision tower, needed by "with vision".
        thin: per layer, the rows that go through its MLP, where they are fewer.

    Raises:
        ProbeError: an unknown convention, or "with vision" where the tower is not known.
    """
    if convention not in CONVENTIONS:
        raise ProbeError(f'convention="{convention}"; there are {", ".join(CONVENTIONS)}')
    through = rows if thin is None else thin
    if convention in ("fastv", "3ndm"):
        count = layer_macs_fastv if convention == "fastv" else layer_macs_3ndm
        each = zip(rows, shape.mlp, through, strict=True)
        return sum(count(n, shape.width, m, t) for n, m, t in each)
    decoder = _true(shape, rows, rows, through)
    if convention == "true":
        return decoder
    if shape.tower is None or patches is None:
        raise ProbeError("with vision: the shape of the vision tower or its patches are not known")
    return decoder + tower_macs(shape.tower, patches)


def decode_macs(shape: Shape, keys: Sequence[int], rows: int = 1) -> int:
    """True multiply-accumulates of one step of decoding.

    Args:
        shape: of the model.
        keys: per layer, the keys that the new token attends to, itself among them.
        rows: tokens of the step.
    """
    every = [rows] * shape.layers
    return _true(shape, every, keys, every)


def generation_macs(shape: Shape, kv: Sequence[int], steps: int) -> int:
    """The same for several steps, each of which leaves one more key in every layer.

    Args:
        shape: of the model.
        kv: per layer, the cache after the prompt.
        steps: forwards after the prompt; one less than the tokens generated.
    """
    return sum(decode_macs(shape, [n + step for n in kv]) for step in range(1, steps + 1))


def kv_bytes(shape: Shape, kv: Sequence[int], itemsize: int) -> int:
    """Bytes of the keys and values of a cache with these lengths per layer."""
    return 2 * shape.kv_heads * shape.head_dim * itemsize * sum(kv)


def unembedding_macs(shape: Shape, rows: int) -> int:
    """Multiply-accumulates of the logits of some rows."""
    return rows * shape.width * shape.vocabulary


def tower_macs(tower: TowerShape, patches: Patches) -> int:
    """True multiply-accumulates of a vision tower's layers.

    Args:
        tower: its shape.
        patches: grids that it works on, each (frames, rows, columns); frames do not see another.
    """
    total = 0
    for frames, rows, cols in patches:
        tokens = rows * cols + tower.prefix
        windows = _windows(rows, tower.window) if tower.window else []
        across = _windows(cols, tower.window) if tower.window else []
        limited = sum((high * wide) ** 2 for high in windows for wide in across)
        for layer in range(tower.layers):
            whole = not tower.window or layer in tower.whole
            total += tower_layer_macs(tower, frames, tokens, None if whole else limited)
    return total


def tower_layer_macs(tower: TowerShape, frames: int, tokens: int, pairs: int | None = None) -> int:
    """True multiply-accumulates of one layer of a vision tower.

    Args:
        tower: its shape.
        frames: that do not see another.
        tokens: of each frame.
        pairs: queries and keys that meet in a frame; all by default.
    """
    linear = 4 * tower.width**2 + (3 if tower.gated else 2) * tower.width * tower.mlp
    met = tokens**2 if pairs is None else pairs
    return frames * (tokens * linear + 2 * met * tower.width)


def _true(shape: Shape, rows: Sequence[int], keys: Sequence[int], thin: Sequence[int]) -> int:
    heads = (shape.heads, shape.kv_heads, shape.head_dim)
    experts = shape.experts or (0,) * shape.layers
    each = zip(rows, keys, thin, shape.mlp, experts, strict=True)
    return sum(
        layer_macs(n, shape.width, m, *heads, keys=k, experts=e, thin=t) for n, k, t, m, e in each
    )


def _windows(side: int, window: int) -> list[int]:
    """Sizes of the windows along one side; the last may be smaller."""
    return [min(window, side - start) for start in range(0, side, window)]
