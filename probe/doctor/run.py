"""All checks in order; one that fails, or raises, never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probe.doctor import ablation_checks as ablation
from probe.doctor import attention_checks as attention
from probe.doctor import contribution_checks as contribution
from probe.doctor import generation_checks as generation
from probe.doctor import input_checks as inputs
from probe.doctor import layout_proof as proof
from probe.doctor import memory, restore
from probe.doctor import position_checks as positions
from probe.doctor import vision_checks as vision
from probe.doctor.check import Check, Report, failed, ok, skipped
from probe.doctor.example import QUESTION, count_for, example, picture
from probe.doctor.fingerprint import Fingerprint
from probe.doctor.limits import limits
from probe.doctor.subject import Subject, entering
from probe.errors import ProbeError
from probe.models.given import visual
from probe.video import Clip

if TYPE_CHECKING:
    from probe.ablate.base import Ablation
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

ENCODES = "encodes a clip"
REPORT = "this is an error in the check or in the adapter: report it with the model's name"


@dataclass(frozen=True)
class Step:
    """One check, or several that share a run.

    Attributes:
        name: what it is called where it cannot run.
        check: what it does.
        needs: checks that must not have failed, for it to mean anything.
    """

    name: str
    check: Callable[[Subject], Check | list[Check]]
    needs: tuple[str, ...] = ()


_RUNS = (inputs.FORWARD,)
_READS = (inputs.FORWARD, attention.REACHED)

STEPS = (
    Step(inputs.FORWARD, inputs.forward_pass),
    Step(inputs.PLACEHOLDERS, inputs.placeholders),
    Step(proof.CLIP, proof.clip_proof, (inputs.PLACEHOLDERS,)),
    Step(proof.IMAGE, proof.image_proof, (inputs.PLACEHOLDERS, proof.CLIP)),
    Step(inputs.TIMESTAMPS, inputs.timestamps),
    Step(positions.REACH, positions.positions_reach, _RUNS),
    Step(positions.OWN, positions.positions_own, _RUNS),
    Step(attention.REACHED, attention.reached, _RUNS),
    Step(vision.REACHED, vision.vision_reached, _RUNS),
    Step(attention.SUMS, attention.sums, _READS),
    Step(attention.BITS, attention.bits, _READS),
    Step(attention.DENSE, attention.against_dense, _READS),
    Step(attention.EAGER, attention.against_eager, _READS),
    Step(contribution.NAME, contribution.contributions, _READS),
    Step("ablations", ablation.each_ablation, _READS),
    Step(ablation.MASKED, ablation.masking, _READS),
    Step(ablation.SWEPT, ablation.sweeping, _READS),
    Step(generation.PLAIN, generation.plain, _RUNS),
    Step(generation.RECOMPUTE, generation.recompute, _RUNS),
    Step(generation.REDUCED, generation.recompute_reduced, _RUNS),
    Step(memory.NAME, memory.memory),
)


def doctor(
    model: VideoModel | Any = "testbed/onevision",
    clip: Any = None,
    frames: int = 4,
    ablate: Sequence[Ablation] = (),
    watch: Callable[[str], None] | None = None,
) -> Report:
    """Test whether what probe reads from a checkpoint is true.

    The layout is always proved on a generated clip; nothing is left on the model.

    Args:
        model: a `VideoModel`, or whatever `probe.load` takes.
        clip: a video (path, array or `Clip`) for the other checks; generated noise with a
            moving square by default.
        frames: number of frames, where the family does not fix it.
        ablate: ablations of your own to be checked too.
        watch: called with the name of each check before it runs.

    Raises:
        ProbeError: a model that cannot be loaded, or a clip that cannot be read.
    """
    import probe
    from probe.models.video_model import VideoModel

    if not isinstance(model, VideoModel):
        model = probe.load(model)
    if frames < 1:
        raise ProbeError(f"doctor: frames={frames}; show it at least 1")
    count = count_for(model.family, frames)
    given = None if clip is None else visual(clip, frames=count)
    if not isinstance(given, Clip | None):
        raise ProbeError("doctor: the clip is an image; give a video")
    try:
        noise, shown = example(model, frames)
        x = shown if given is None else model.encode(given, QUESTION, frames=None)
    except Exception as error:  # whatever a processor raises
        todo = "the family's processor, placeholders or grid do not fit the checkpoint"
        return _report(model, {}, [failed(ENCODES, _said(error), todo)])
    subject = Subject(model, noise, shown, x, limits(model.hf), tuple(ablate))
    size = "x".join(map(str, x.layout.clips[0].size))
    checks = [ok(ENCODES, f"{len(x.layout.seconds)} frames of {size}, {len(x.layout)} tokens")]
    _warm(model, x)
    before = Fingerprint(model.hf)
    for step in STEPS:
        if watch is not None:
            watch(step.name)
        checks += _made(step, subject, checks)
    last = Step(restore.NAME, lambda s: restore.restored(s, before))
    checks += _made(last, subject, checks)
    facts = {"frames": len(x.layout.seconds), "tokens": len(x.layout)}
    return _report(model, facts | {"limits": subject.limits.about}, checks)


def _warm(model: VideoModel, x: Example) -> None:
    """One pass for each kind of input: transformers installs hooks of its own in a tower's first
    forward, and they stay. What a pass raises is told by the checks.
    """
    with suppress(Exception):
        entering(model, x)
    with suppress(Exception):
        entering(model, picture(model)[1])


def _made(step: Step, subject: Subject, checks: Sequence[Check]) -> list[Check]:
    broken = [c.name for c in checks if c.status != "ok" and c.name in step.needs]
    if broken:
        return [skipped(step.name, f"'{broken[0]}' comes first", f"see '{broken[0]}'")]
    try:
        found = step.check(subject)
    except torch.OutOfMemoryError:
        return [skipped(step.name, "not enough memory", "show it fewer frames (--frames)")]
    except Exception as error:  # a check that breaks is a check that failed
        return [failed(step.name, _said(error), REPORT)]
    return found if isinstance(found, list) else [found]


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ProbeError) else f"{type(error).__name__}: {text}"


def _report(model: VideoModel, facts: dict[str, Any], checks: Sequence[Check]) -> Report:
    import transformers

    import probe

    about = {
        "dtype": str(model.hf.dtype).removeprefix("torch."),
        "device": str(model.hf.device),
        "layers": model.n_layers,
        "versions": {
            "probe": probe.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    return Report(model.name, model.family.title, about | facts, tuple(checks))
