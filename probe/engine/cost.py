"""What a run cost: lengths, cache, multiply-accumulates, memory and time, beside the run without
ablations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from probe.engine.cost_counts import (
    decode_macs,
    generation_macs,
    kv_bytes,
    layer_macs,
    layer_macs_fastv,
    prefill_macs,
    tower_layer_macs,
    tower_macs,
)
from probe.engine.cost_lengths import lengths_of, patches_of
from probe.engine.cost_shape import Shape, mlp_width

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

__all__ = ["Cost", "cost", "layer_macs", "layer_macs_fastv", "mlp_width"]


@dataclass(frozen=True)
class Cost:
    """Cost of one run. What ends in `_full` is counted for the same example without ablations.

    Multiply-accumulates are those of layers, causal attention counted in full as n x n; the names
    of the ways to count are in `probe.cost.CONVENTIONS`. None is what is not known: of a run that
    an older version saved, of a tower whose config does not say its shape, or where there was
    nothing to measure. Captures take part of the time and memory that is measured.

    Attributes:
        length: rows of the prompt's forward pass per layer.
        kv_length: cached positions per layer at the end.
        macs: of the decoder over the prompt, by the true count (gated MLP, the experts that a
            token uses, grouped keys and values).
        macs_fastv: the same by the published convention 4nd^2 + 2n^2d + 2ndm per layer.
        macs_3ndm: by SparseVLM's convention 4nd^2 + 2n^2d + 3ndm.
        macs_vision: of the vision tower's layers, by the true count.
        macs_decode: of the decoder after the prompt, by the true count; 0 in `run`.
        kv_bytes: of keys and values at the end, as they are cached in generation.
        seconds: wall time of the forward pass or of the whole generation.
        before_decoder_seconds: of that, what passed before the decoder began (the vision tower).
        first_token_seconds: in `generate`, until the first token was known; needs two tokens.
        decode_tokens_per_second: in `generate`, of the tokens after the first.
        peak_memory, memory: bytes in use at most and at the start: allocated by torch on CUDA,
            resident memory of the whole process on the CPU.
    """

    length: tuple[int, ...]
    kv_length: tuple[int, ...]
    macs: int
    macs_fastv: int
    macs_full: int
    macs_fastv_full: int
    seconds: float
    macs_3ndm: int | None = None
    macs_3ndm_full: int | None = None
    macs_vision: int | None = None
    macs_vision_full: int | None = None
    macs_decode: int | None = None
    macs_decode_full: int | None = None
    kv_bytes: int | None = None
    kv_bytes_full: int | None = None
    before_decoder_seconds: float | None = None
    first_token_seconds: float | None = None
    decode_tokens_per_second: float | None = None
    peak_memory: int | None = None
    memory: int | None = None

    @property
    def macs_with_vision(self) -> int | None:
        """Prompt and vision tower together, by the true count."""
        return None if self.macs_vision is None else self.macs + self.macs_vision

    @property
    def macs_with_vision_full(self) -> int | None:
        """The same without ablations."""
        return None if self.macs_vision_full is None else self.macs_full + self.macs_vision_full

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cost:
        """From `to_json`, of this or an older version; entries that are not known are left out."""
        known = {f.name for f in fields(cls)} & set(data)
        values: dict[str, Any] = {name: data[name] for name in known}
        for name in ("length", "kv_length"):
            values[name] = tuple(values[name])
        return cls(**values)


def cost(model: VideoModel, x: Example, session: Session) -> Cost:
    """The cost of the run that a session has just finished.

    Args:
        model: what ran.
        x: the example that ran, as ablations prepared it.
        session: with its meter, and the example as it was given.
    """
    shape, meter = Shape.of(model.hf.config), session.meter
    full, tower = lengths_of(session.given, shape), shape.tower
    # Rows of a layer are its keys after the prompt: nothing has been evicted yet.
    keys = [*meter.keys, [len(present) for present in session.present]]
    thin = [meter.middles.get(layer, n) for layer, n in enumerate(keys[0])]
    steps, itemsize = len(keys) - 1, model.hf.dtype.itemsize
    macs = {
        name: prefill_macs(shape, lengths, convention, thin=through)
        for lengths, through, end in ((keys[0], thin, ""), (full.rows, full.rows, "_full"))
        for name, convention in (
            (f"macs{end}", "true"),
            (f"macs_fastv{end}", "fastv"),
            (f"macs_3ndm{end}", "3ndm"),
        )
    }
    vision = [
        None if tower is None or patches is None else tower_macs(tower, patches)
        for patches in (patches_of(x.inputs, tower), full.patches)
    ]
    shapes = getattr(session.edits, "shapes", ())  # of a tower that lost tokens on its way
    if shapes and tower is not None:
        vision[0] = sum(tower_layer_macs(tower, frames, count) for frames, count in shapes)
    return Cost(
        length=tuple(keys[0]),
        kv_length=tuple(keys[-1]),
        **macs,
        macs_vision=vision[0],
        macs_vision_full=vision[1],
        macs_decode=sum(decode_macs(shape, there) for there in keys[1:]),
        macs_decode_full=generation_macs(shape, full.rows, steps),
        kv_bytes=kv_bytes(shape, keys[-1], itemsize),
        kv_bytes_full=kv_bytes(shape, [n + steps for n in full.rows], itemsize),
        seconds=meter.seconds,
        before_decoder_seconds=meter.before_decoder,
        first_token_seconds=meter.first_token,
        decode_tokens_per_second=meter.tokens_per_second,
        peak_memory=meter.peak,
        memory=meter.memory,
    )
