"""nnsight: traces of the same model on encoded examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probe.interop.extra import need

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel


def to_nnsight(model: VideoModel) -> Any:
    """The Hugging Face model of `model` as `nnsight.NNsight`, for traces on encoded inputs.

    Trace `x.inputs`, which are complete tensors, and index inside the trace with
    `x.layout.select("frame 3")`. One clip a trace; a clean and a corrupted clip go into two
    traces of one session:

        nn = to_nnsight(model)
        rows = clean.layout.select("frame 2")
        with nn.session():
            with nn.trace(**clean.inputs):
                kept = nn.model.language_model.layers[1].output[:, rows].save()
            with nn.trace(**corrupted.inputs):
                nn.model.language_model.layers[1].output[:, rows] = kept
                logits = nn.lm_head.output.save()

    nnsight leaves its controllers on the modules; outside a trace they pass everything through,
    and `model.run` works as before. Wrapping a model twice gives the same controllers.

    Raises:
        ProbeError: nnsight is not installed.
    """
    return need("nnsight", "nnsight").NNsight(model.hf)
