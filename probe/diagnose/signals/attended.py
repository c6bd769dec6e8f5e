"""Signals of the attention rows: preliminary tokens, and visual mass with and without sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.diagnose.signals.base import Scores, Signal
from probe.diagnose.signals.rows import AnswerRows
from probe.diagnose.signals.sinks import Outliers, sinks
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.signals.answer import Answer


@dataclass(frozen=True)
class PAS(Signal):
    """Preliminary attention score: attention to the answer's own earlier tokens (2511.11502).

    pas: mass on y_1 .. y_{k-1}, mean over heads and layers. Beside it the other masses, which sum
    to 1 with it: mass_bos (position 0), mass_visual (the clip's tokens), mass_instruction (the
    rest of the prompt), mass_self (the row's own position, with query="self" alone; with
    "predictor" it is within pas from the second token on). pas_share = pas / (pas + mass_visual)
    is ours: many visual tokens shrink pas.

    Which row the paper reads could not be checked in its code, so that both are offered. A
    function of the token index by construction: a uniform row gives (k - 1) / (m + k - 1) for a
    prompt of m tokens, so look at position-matched AUROC.

    Attributes:
        query: "predictor" reads where the token is emitted, "self" where it is the input.
        layers: which layers; the first one in the paper.
    """

    query: str = "predictor"
    layers: Layers = 0

    signs: ClassVar[Mapping[str, str]] = {
        "pas": "H+",
        "pas_share": "H+",
        "mass_bos": "",
        "mass_visual": "H-",
        "mass_instruction": "",
        "mass_self": "",
    }
    source: ClassVar[str] = "arXiv 2511.11502"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """The rows of the answer."""
        return [_rows(answer, self.query, self.layers)]

    def scores(self, answer: Answer) -> Scores:
        """Masses of each row."""
        rows = answer.of(self.reads(answer)[0]).values.mean(0)
        at = answer.predictors(self.query)
        role, prompt = answer.case.x.layout.role, len(answer.case.x.layout)
        position = np.arange(rows.shape[1])
        visual = np.zeros(len(position), bool)
        visual[: len(role)] = role == "video"
        visual[0] = False
        before = (position >= prompt)[None] & (position[None] <= at[:, None])
        own = (position[None] == at[:, None]) & (self.query == "self")
        masses = {
            "pas": (rows * (before & ~own)).sum(1),
            "mass_bos": rows[:, 0],
            "mass_visual": rows[:, visual].sum(1),
            "mass_instruction": rows[:, (position < prompt) & ~visual & (position > 0)].sum(1),
        }
        if self.query == "self":
            masses["mass_self"] = (rows * own).sum(1)
        both = masses["pas"] + masses["mass_visual"]
        share = np.divide(masses["pas"], both, out=np.full(len(at), np.nan), where=both > 0)
        return {"pas": masses.pop("pas"), "pas_share": share, **masses}


@dataclass(frozen=True)
class SVAR(Signal):
    """Summed visual attention ratio: attention to the clip, summed over middle layers (2411.16724).

    svar: sum over the layers of the mean over heads of the mass on the clip's tokens. The paper's
    layers are 5 to 18 of 32; others are the same share of the depth. svar_mean is svar over the
    number of layers, and svar_log_ratio the logarithm of svar_mean over |V| / (row length), which
    many visual tokens do not saturate. Ours: svar_frame_entropy, of the mass by temporal group
    (over its logarithm), and svar_frame, the group with most mass.

    Blind to the order of patches and frames by construction.

    Attributes:
        query: as in the released code "predictor"; or "self".
        layers: None for the paper's, scaled.
    """

    query: str = "predictor"
    layers: Layers | None = None

    signs: ClassVar[Mapping[str, str]] = {
        "svar": "H-",
        "svar_mean": "H-",
        "svar_log_ratio": "H-",
        "svar_frame_entropy": "H+",
        "svar_frame": "",
    }
    source: ClassVar[str] = "arXiv 2411.16724"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """The rows of the answer."""
        return [_rows(answer, self.query, _layers(self, answer))]

    def scores(self, answer: Answer) -> Scores:
        """Mass of each row."""
        frames = self.frames(answer)
        svar = frames.sum(1)
        mean = svar / len(_layers(self, answer))
        uniform = len(answer.video) / (answer.predictors(self.query) + 1)
        return {
            "svar": svar,
            "svar_mean": mean,
            "svar_log_ratio": np.log(mean / uniform),
            "svar_frame_entropy": spread(frames),
            "svar_frame": frames.argmax(1).astype(float),
        }

    def frames(self, answer: Answer) -> Float[np.ndarray, "token group"]:
        """Mass by temporal group, summed over the layers."""
        rows = answer.of(self.reads(answer)[0]).values.sum(0)[:, answer.video]
        return by_group(rows, answer.groups)


@dataclass(frozen=True)
class VisualMassNoSinks(Signal):
    """Visual mass without sinks: SVAR on the clip's tokens that are no sinks.

    Sinks of a layer are positions where, in a dimension of a set D, |x| / RMS(x) > tau (2503.03321,
    whose criterion this is; its use as a detector is ours). svar_nosink: mass on the clip less
    sinks, over 1 - (mass on all sinks and position 0), summed over SVAR's layers. sink_share: the
    part of the clip's mass that is on sinks. sinks_first: share of the clip's sinks in its first
    temporal group; NaN where the clip has none.

    D is read off the model where none is given: dimensions above tau at position 0 in most layers
    from 2 to L - 2. A model that has none gets NaN: it has no sinks of this kind (a stream
    narrower than tau squared can have none).

    Attributes:
        query, layers: as in `SVAR`.
        tau: threshold.
        dims: D; None to find it.
    """

    query: str = "predictor"
    layers: Layers | None = None
    tau: float = 20.0
    dims: Sequence[int] | None = None

    signs: ClassVar[Mapping[str, str]] = {"svar_nosink": "H-", "sink_share": "", "sinks_first": ""}
    source: ClassVar[str] = "sinks: arXiv 2503.03321; ours as a detector"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """The rows of the answer, and outliers of the stream."""
        return [_rows(answer, self.query, _layers(self, answer)), Outliers(self.tau, self.dims)]

    def scores(self, answer: Answer) -> Scores:
        """Mass of each row."""
        rows, outliers = (answer.of(capture) for capture in self.reads(answer))
        found = sinks(outliers, self.dims)
        count = len(answer.scored)
        if found is None:
            return {name: np.full(count, np.nan) for name in self.signs}
        total, share, first, seen = np.zeros((4, count))
        visual = np.zeros(rows.sizes["position"], bool)
        visual[answer.video] = True
        early = np.zeros_like(visual)
        early[answer.video[answer.groups == answer.groups.min()]] = True
        for layer, row in zip(rows.layer.values, rows.values, strict=True):
            sink = found[layer].copy()
            share += row[:, visual & sink].sum(1) / row[:, visual].sum(1)
            first += (early & sink).sum()
            seen += (visual & sink).sum()
            sink[0] = True
            total += row[:, visual & ~sink].sum(1) / (1 - row[:, sink].sum(1))
        none = np.divide(first, seen, out=np.full(count, np.nan), where=seen > 0)
        return {
            "svar_nosink": total,
            "sink_share": share / len(rows),
            "sinks_first": none,
        }


def by_group(
    values: Float[np.ndarray, "token visual"], groups: np.ndarray
) -> Float[np.ndarray, "token group"]:
    """Sums over the clip's tokens of each temporal group; tokens without one are left out."""
    onehot = groups[:, None] == np.unique(groups[groups >= 0])[None]
    return values @ onehot.astype(values.dtype)


def spread(mass: Float[np.ndarray, "token group"]) -> Float[np.ndarray, " token"]:
    """Entropy of each row over its greatest possible one; 0 with one group."""
    p = mass / mass.sum(1, keepdims=True)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1)
    return entropy / np.log(max(2, mass.shape[1]))


def share_of_depth(count: int, first: float, stop: float) -> tuple[int, ...]:
    """Layers from a share of the depth to another, at least one."""
    begin = min(round(first * count), count - 1)
    return tuple(range(begin, max(begin + 1, round(stop * count))))


def _layers(signal: SVAR | VisualMassNoSinks, answer: Answer) -> tuple[int, ...]:
    count = answer.case.model.n_layers
    if signal.layers is None:
        return share_of_depth(count, 5 / 32, 19 / 32)
    return resolve_layers(signal.layers, count, signal.kind)


def _rows(answer: Answer, query: str, layers: Layers) -> AnswerRows:
    return AnswerRows(answer.predictors(query).tolist(), layers)
