"""Scores and readings from the vision tower: CLS, received attention, pooling head, keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall
    from probe.engine.vision_parts import Tower

STANDS_FOR_CLS = "stands for the attention of a CLS token"


@dataclass(frozen=True)
class EncoderReading(Score):
    """Base: one value, or a row of values, per patch of one layer of the vision tower.

    Attributes:
        layer: of the tower, 0-based; negative ones count from its last layer.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"encoder"})
    wants: ClassVar[str] = ""  # statistic of `VisionHooks.wanted`
    proxy: ClassVar[str] = ""  # what it stands for, where it stands for something else

    layer: int = -1

    def check(self, session: Session) -> None:
        """Refuse a tower that does not have what is read.

        Raises:
            ProbeError: no tower, no such layer.
        """
        self.number(_tower(session, self.kind))

    def number(self, tower: Tower) -> int:
        """The layer it reads, as the tower numbers it."""
        count = len(tower.layers)
        if not isinstance(self.layer, int) or not -count <= self.layer < count:
            raise ProbeError(
                f"{self.kind}: layer={self.layer}; the vision tower has layers 0 to {count - 1}"
            )
        return self.layer % count

    def patches(self, call: VisionCall) -> Tensor | None:
        """[block, key] or [block, key, channel] of a call; None where this call has it not."""
        raise NotImplementedError(f"{self.kind} has no patches()")

    def score(self, c: Candidates) -> Tensor:
        return c.readings[self].double()


@dataclass(frozen=True)
class CLS(EncoderReading):
    """Attention from CLS to the patch, mean over heads.

    In the layer before the last, as in FasterVLM (Zhang et al. 2024, arXiv 2412.01818), VisionZip
    (Yang et al. 2024, arXiv 2412.04467) and LLaVA-PruMerge (Shang et al. 2024, arXiv 2403.15388).
    Before patches are put together to tokens, a frame's scores sum to 1 minus CLS's attention to
    itself.
    """

    wants: ClassVar[str] = "cls"

    layer: int = -2

    def check(self, session: Session) -> None:
        """Refuse a tower without a CLS token, naming what there is instead."""
        super().check(session)
        tower = _tower(session, self.kind)
        if not has_cls(tower):
            instead = "PoolHead() or EncoderReceived()" if tower.pooling else "EncoderReceived()"
            raise ProbeError(
                f"{self.kind}: the vision tower of {session.model.name} has no CLS token; "
                f"{instead} can stand for it"
            )

    def patches(self, call: VisionCall) -> Tensor | None:
        if call.pooling:
            return None
        found = call.statistics().cls
        return None if found is None else found.mean(1)


@dataclass(frozen=True)
class EncoderReceived(EncoderReading):
    """Attention that the patch receives in a layer of the vision tower, mean over heads and over
    the patches it shares attention with (its frame, or its window).

    Stands for the attention of a CLS token where there is none, as in HoliTom (Shao et al. 2025,
    arXiv 2505.21334) and VisionZip for SigLIP.
    """

    wants: ClassVar[str] = "received"
    proxy: ClassVar[str] = STANDS_FOR_CLS

    def patches(self, call: VisionCall) -> Tensor | None:
        if call.pooling:
            return None
        found = call.statistics().received
        assert found is not None
        return found.mean(1)


@dataclass(frozen=True)
class PoolHead(EncoderReading):
    """Attention of the tower's pooling head from its learned query, mean over heads.

    SigLIP has such a head; FastVID (Shen et al. 2025, arXiv 2503.11187) takes it for the
    attention of a CLS token.
    """

    proxy: ClassVar[str] = STANDS_FOR_CLS

    def check(self, session: Session) -> None:
        """Refuse a tower without a pooling head."""
        if not _tower(session, self.kind).pooling:
            raise ProbeError(
                f"{self.kind}: the vision tower of {session.model.name} has no pooling head "
                "(checkpoints often leave SigLIP's out); EncoderReceived() can stand for it"
            )

    def number(self, tower: Tower) -> int:
        return len(tower.layers)

    def patches(self, call: VisionCall) -> Tensor | None:
        return call.first_row().mean(1) if call.pooling else None


@dataclass(frozen=True)
class Keys(EncoderReading):
    """Not a score: the keys of a layer of the vision tower, for what compares tokens by them, as
    `readings["encoder_key"]` of the candidates.

    Keys are as the attention function gets them (rotated, in towers that rotate); tokens that
    stand for several patches have the mean of their keys.

    Attributes:
        heads: "all" sets the heads side by side; "mean" averages over them, as ToMe (Bolya et al.
            2022, arXiv 2210.09461) and VisionZip do.
    """

    heads: str = "all"

    def check(self, session: Session) -> None:
        """Also refuse another word for heads."""
        super().check(session)
        if self.heads not in ("all", "mean"):
            raise ProbeError(f'{self.kind}: heads="{self.heads}"; there are all and mean')

    def patches(self, call: VisionCall) -> Tensor | None:
        if call.pooling:
            return None
        key = call.key.float()
        return key.mean(1) if self.heads == "mean" else key.transpose(1, 2).flatten(2)

    def score(self, c: Candidates) -> Tensor:
        raise ProbeError(f"{self.kind}: keys are no score; give Norm(), CLS() or another")


def has_cls(tower: Tower) -> bool:
    """Whether the tower has a CLS token: a parameter for its embedding."""
    names = ("class_embedding", "cls_token", "cls_embedding", "cls_embed")
    return any(name.rpartition(".")[2] in names for name, _ in tower.module.named_parameters())


def _tower(session: Session, owner: str) -> Tower:
    from probe.engine.vision_parts import vision_tower

    if session.vision is not None:
        return session.vision.tower
    if not session.layout.visuals:
        raise ProbeError(f"{owner}: this prompt has no clip and no image, so there is no tower")
    return vision_tower(session.model)


def blocks_to_tokens(values: Tensor, tokens: np.ndarray, into: np.ndarray) -> None:
    """Write [block, key, ...] of some tokens into [token, ...]."""
    kept = values.detach().float().cpu().numpy()
    into[tokens.reshape(-1)] = kept.reshape(-1, *kept.shape[2:])
