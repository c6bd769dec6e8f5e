"""Attention: the function is reached, rows sum to 1, and statistics are those of dense weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from probe.capture import AttentionEntropy, AttentionMass, AttentionReceived
from probe.capture.base import Capture
from probe.doctor.check import Check, failed, measured, ok
from probe.doctor.dense import ENTROPY, Dense, statistics
from probe.doctor.eager import eager_maps
from probe.doctor.subject import Subject, plain_logits

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

REACHED = "attention reached, decoder"
SUMS = "attention mass sums to 1"
BITS = "capturing changes no logit"
DENSE = "statistics against dense float64"
OUTPUT = "attention output against dense float64"
EAGER = "statistics against eager attention"
READ = [AttentionMass(), AttentionEntropy(), AttentionReceived()]
ASK = (
    "its forward must call transformers' attention interface "
    "(ALL_ATTENTION_FUNCTIONS.get_interface) with its own config; nothing can be read there now"
)


@dataclass(frozen=True)
class Reached(Capture):
    """Which layers' attention reached the seam."""

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Note the layer."""
        state.setdefault("layers", set()).add(call.layer)

    def finish(self, session: Session, state: dict) -> dict[str, Any]:
        """Reached [layer], True where the attention function was called."""
        import xarray as xr

        count = session.model.n_layers
        found = [number in state.get("layers", ()) for number in range(count)]
        return {self.kind: xr.DataArray(found, dims=["layer"], coords={"layer": range(count)})}


def reached(subject: Subject) -> Check:
    """Every decoder layer calls the attention function."""
    found = subject.model.run(subject.x, [Reached()]).data.reached.values
    missing = np.flatnonzero(~found).tolist()
    if not missing:
        return ok(REACHED, f"all {len(found)} layers")
    layer = subject.model.layers[missing[0]].get_submodule(subject.model.family.attention)
    which = ", ".join(map(str, missing))
    what = f"layer {which} ({type(layer).__name__}) never called the attention function"
    return failed(REACHED, what, ASK)


def sums(subject: Subject) -> Check:
    """Masses of a partition of the keys, for every row."""
    mass = subject.model.run(subject.x, [AttentionMass("tokens", "frames")]).data.attention_mass
    error = float(np.abs(mass.sum("key_group", skipna=False).values - 1).max())
    rows = mass.sizes["layer"] * mass.sizes["head"] * mass.sizes["position"]
    return measured(
        SUMS, error, subject.limits.sums, f"{rows} rows", "report it: weights are lost or doubled"
    )


def bits(subject: Subject) -> Check:
    """Logits with captures on are transformers' own, bit by bit."""
    plain = plain_logits(subject.model, subject.x.inputs, subject.x.layout.readout)
    run = subject.model.run(subject.x, READ)
    return measured(
        BITS,
        subject.apart(run.logits, plain),
        subject.identical,
        "logits against transformers' own forward",
        "the seam changes the forward: another attention implementation may be non-deterministic",
    )


def against_dense(subject: Subject) -> list[Check]:
    """Statistics, and the attention output, against dense float64 of the same query and key."""
    data = subject.model.run(subject.x, [*READ, Dense()]).data
    limits = subject.limits
    mass = max(_apart(data, f"dense_{c.kind}", c.kind) for c in (READ[0], READ[2]))
    entropy = _apart(data, f"dense_{ENTROPY}", ENTROPY)
    todo = "report it with the checkpoint and these numbers: the statistics are not exact here"
    return [
        measured(
            DENSE,
            max(mass, entropy * limits.statistics / limits.entropy),
            limits.statistics,
            f"mass and received within {mass:.1g}, entropy within {entropy:.1g} nats",
            todo,
        ),
        measured(
            OUTPUT,
            float(data.dense_output.max()),
            limits.output,
            "weights times values, relative to the largest output",
            "the model's attention is not softmax(q k) v of what its function gets (sinks, biases, "
            "dropout, a window outside the mask?); statistics do not describe it",
        ),
    ]


def against_eager(subject: Subject) -> Check:
    """Statistics against the maps of a whole eager pass of the same weights."""
    model, x, limits = subject.model, subject.x, subject.limits
    dense: dict[int, dict[str, Tensor]] = {}
    eager_maps(model, x, lambda layer, w: dense.update({layer: statistics(w, x.layout)}))
    if sorted(dense) != list(range(model.n_layers)):
        return failed(EAGER, f"eager maps of {len(dense)} of {model.n_layers} layers", ASK)
    data = model.run(x, READ).data
    apart = {
        name: max(
            float(np.abs(data[name].values[layer] - dense[layer][name].numpy()).max())
            for layer in dense
        )
        for name in dense[0]
    }
    entropy = apart.pop(ENTROPY)
    mass = max(apart.values())
    return measured(
        EAGER,
        max(mass, entropy * limits.model_statistics / limits.model_entropy),
        limits.model_statistics,
        f"mass and received within {mass:.1g}, entropy within {entropy:.1g} nats",
        "the model's own attention implementation and eager attention disagree: load it with "
        'attn_implementation="eager" or "sdpa"',
    )


def _apart(data: Any, one: str, two: str) -> float:
    return float(np.abs(data[one].values - data[two].values).max())
