"""Hallucination on one clip: does the answer follow from the video, or from language alone?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from probe.ablate.knockout import Knockout
from probe.capture.mass import AttentionMass
from probe.diagnose.margin import Margin, log_softmax, margin
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel
    from probe.video import Clip

CLIPS = ("as is", "reversed", "shuffled", "frozen", "noise", "blank", "none")


def counterfactuals(
    model: VideoModel,
    x: Example,
    against: Margin | None = None,
    *,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """The same question over other clips: clip, margin, probability, answer.

    The clips: as is, frames reversed, shuffled, all replaced by the middle one, by noise, by mean
    grey, and (where the family can do without) no clip at all. An answer whose margin survives
    the last three does not come from the video.
    """
    import pandas as pd

    from probe.video import perturb

    if x.clip is None or x.answer is not None:
        raise ProbeError("hallucination: encode a clip and a question, without an answer")
    full = model.run(x)
    follow = against or margin(model, x, full)
    clips: dict[str, Clip | None] = {
        "as is": x.clip,
        "reversed": perturb.reverse(x.clip),
        "shuffled": perturb.shuffle(x.clip, seed),
        "frozen": perturb.freeze(x.clip, len(x.clip) // 2),
        "noise": perturb.noise(x.clip, seed),
        "blank": perturb.blank(x.clip),
    }
    if not model.family.needs_clip:
        clips["none"] = None
    rows = []
    for name, clip in clips.items():
        other = model.encode(clip, x.question, options=x.options or None, frames=None)
        run = full if name == "as is" else model.run(other)
        rows.append((name, follow.of(run), follow.probability(run), run.tokens[0]))
        progress()
    return pd.DataFrame(rows, columns=["clip", "margin", "probability", "answer"])


def influence(model: VideoModel, x: Example, generated: Run) -> pd.DataFrame:
    """How much each generated token depends on the video.

    Teacher-forced on the generated text, once as is and once with the video cut off from every
    other token in every layer (also from newlines and timestamps, through which text could read
    it): the influence is KL(as is || cut) of the next-token distributions, in nats.

    Returns:
        step, token, influence, entropy (nats, as is), probability (of the token, as is),
        probability_cut, video_mass (attention to the video, mean over layers and heads).
    """
    import pandas as pd

    ids = _generated_ids(generated)
    forced = model.force(x, ids)
    labels = [f"token {position}" for position in forced.layout.readout]
    plain = model.run(forced, [AttentionMass(queries=labels, keys=["video"])])
    cut = model.run(forced, ablate=[Knockout("video -> all - video")])
    log_p, log_q = (log_softmax(run.logits) for run in (plain, cut))
    p = np.exp(log_p)
    steps = np.arange(len(ids))
    mass = plain.data.attention_mass.mean(["layer", "head"]).values[:, 0]
    return pd.DataFrame(
        {
            "step": steps,
            "token": generated.tokens,
            "influence": np.maximum((p * (log_p - log_q)).sum(-1), 0),
            "entropy": -(p * log_p).sum(-1),
            "probability": p[steps, ids],
            "probability_cut": np.exp(log_q[steps, ids]),
            "video_mass": mass,
        }
    )


def _generated_ids(run: Run) -> list[int]:
    if run.text is None or "generated" not in run.meta:
        raise ProbeError("influence: needs the run of model.generate on the same example")
    return list(run.meta["generated"])
