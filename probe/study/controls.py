"""Controls that every curve of a study carries: no clip, a random choice, uniform frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.ablate.base import Ablation
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class NoClip(Ablation):
    """The question without clips and images: what the model says blind."""

    place: ClassVar[str] = "frames"

    def prepare(self, model: VideoModel, x: Example) -> Example:
        if not x.layout.visuals:
            return x
        if model.family.needs_clip:
            raise ProbeError(f"blind: {model.family.title} cannot do without a clip")
        system = next((str(turn.parts[0]) for turn in x.turns if turn.role == "system"), None)
        options = x.options or None
        blind = model.encode(None, x.question, options=options, system=system)
        ids = x.inputs["input_ids"][0, x.layout.last + 1 :].tolist()
        return model.force(blind, ids) if ids else blind


@dataclass(frozen=True)
class UniformFrames(Ablation):
    """Fewer frames, evenly over the clip, that cost as many visual tokens as other ablations leave.

    The number of frames is the one whose tokens come nearest to the mean over layers of the
    visual tokens that the others leave: the same attention cost where they cut inside the language
    model, and the same tokens where they cut before it. At least one frame (or one group of frames
    that a tower merges) is shown.

    Attributes:
        of: the ablations whose count it matches.
    """

    place: ClassVar[str] = "frames"

    of: tuple[Ablation, ...]

    def prepare(self, model: VideoModel, x: Example) -> Example:
        from probe.ablate.frames import Frames

        if not x.clips:
            return x
        frames = self.count(model, x)
        if frames >= len(x.clips[0]):
            return x
        return Frames("resample", count=frames).prepare(model, x)

    def count(self, model: VideoModel, x: Example) -> int:
        """How many frames of the first clip are shown.

        Raises:
            ProbeError: several clips, or the others cannot be run.
        """
        if len(x.clips) != 1:
            raise ProbeError(f"uniform frames: one clip, not {len(x.clips)}")
        clip = x.layout.clips[0]
        sizes = [len(frames) for frames in clip.grid.frames] if clip.grid else [1]
        group = max(sizes)
        share = tokens_left(model, x, self.of) / len(x.layout.select("video"))
        groups = max(1, round(share * len(x.clips[0]) / group))
        return min(len(x.clips[0]), groups * group)


def tokens_left(model: VideoModel, x: Example, ablations: Sequence[Ablation]) -> float:
    """Visual tokens per layer that ablations leave, on average over layers: counted beforehand
    where that is possible, else in a run.
    """
    from probe.cost import predict

    try:
        return predict(model, x, list(ablations)).lengths.mean_visual
    except ProbeError:
        return visual_tokens(model.run(x, ablate=list(ablations)))


def visual_tokens(run: Any) -> float:
    """Visual tokens per layer in a run, on average over layers."""
    shown = np.isin(run.layout.role, ("video", "image"))
    return float(run.kept.values[:, shown].sum(1).mean())


def shortens(ablations: Sequence[Ablation]) -> bool:
    """Whether ablations leave fewer visual tokens, so that there is a count to match."""
    return any(_plan(one) for one in ablations)


def uniform_frames(ablations: Sequence[Ablation]) -> list[Ablation]:
    """What stands in place of reductions: as many tokens, all of a few whole frames."""
    others = [one for one in ablations if not _plan(one)]
    return [UniformFrames(tuple(one for one in ablations if _plan(one))), *others]


def at_random(ablations: Sequence[Ablation], seed: int) -> list[Ablation] | None:
    """The same with everything chosen at random, at the same count; None where nothing is.

    A reduction keeps tokens drawn at random at each of its sites, as many as it has outputs there,
    and drops the rest; a knockout cuts as many edges, drawn among all edges from the same pool.
    """
    drawn = [_drawn(one, seed + number) for number, one in enumerate(ablations)]
    return None if drawn == list(ablations) else drawn


def swaps(ablations: Sequence[Ablation]) -> dict[str, list[Ablation]]:
    """`probe.ablate.controls` of a list; nothing where nothing can be swapped."""
    from probe.ablate import controls

    try:
        return {name: list(one) for name, one in controls(list(ablations)).items()}
    except ProbeError:
        return {}


def _plan(one: Ablation) -> Any:
    """A reduction of tokens, or None."""
    from probe.ablate.plan import Plan

    return one if isinstance(one, Plan) else None


def _drawn(one: Ablation, seed: int) -> Ablation:
    from probe.ablate.knockout import Knockout
    from probe.ablate.reduction.bypass import Bypass
    from probe.ablate.scores import Random

    if isinstance(one, Knockout) and one.random is None:
        return replace(one, random=seed)
    plan = _plan(one)
    if plan is None:
        return one
    kept = {"at", "of", "position", "cache"}
    same = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name in kept}
    rest = {"rest": plan.rest} if isinstance(plan.rest, Bypass) else {}
    return type(plan)(**same, **rest, score=Random(seed), match=plan.match or plan.steps)
