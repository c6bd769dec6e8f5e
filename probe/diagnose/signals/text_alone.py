"""The text without the clip's tokens, which nothing of it sees any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array

if TYPE_CHECKING:
    import xarray as xr

    from probe.diagnose.signals.answer import Answer
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class TextEmbeddings(Capture):
    """What enters the decoder at all positions but the clip's tokens.

    Result: text_embeddings [position, channel]; its attribute `causal` says that none of them sees
    a later one.
    """

    def start(self, session: Session) -> dict:
        return {"left": np.flatnonzero(session.layout.role != "video"), "causal": True}

    def embedding(self, session: Session, state: dict, x: Tensor) -> None:
        state["x"] = x[torch.as_tensor(state["left"], device=x.device)].float().cpu().numpy()

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.mask is not None and state["causal"]:
            rows = call.index(state["left"])
            later = torch.as_tensor(call.key_positions, device=rows.device)[None] > rows[:, None]
            state["causal"] = not bool((later & ~call.hidden(rows)).any())

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        coords = {"position": state["left"], "channel": np.arange(state["x"].shape[1])}
        about = "merged embedding of the token"
        found = array(session, state["x"], list(coords), coords, "1", about)
        found.attrs["causal"] = state["causal"]
        return {self.kind: found}

    def memory(self, session: Session) -> int:
        return 4 * session.model.width * int((session.layout.role != "video").sum())


def cut_logits(answer: Answer) -> Float[np.ndarray, "token vocab"]:
    """Logits where the clip's tokens are hidden from all others.

    What the others compute does not depend on the clip's tokens then, so that they run alone, with
    the embeddings and positions that they have beside it. Where some of them see later ones, or
    the decoder does something to its embeddings or logits, the edges are cut in a full run.
    """
    from probe.ablate.knockout import Knockout
    from probe.models.family import NORMS_BEHIND

    model, x = answer.case.model, answer.x
    merged = answer.of(TextEmbeddings())
    config = model.hf.config.get_text_config()
    capped = getattr(config, "final_logit_softcapping", None)
    if capped or config.model_type in NORMS_BEHIND or not merged.attrs["causal"]:
        run = model.run(x, ablate=[Knockout("video -> all - video")])
        return run.logits[answer.scored]
    left, device = np.array(merged.position.values), model.hf.device
    with torch.no_grad():
        out = model.decoder(
            inputs_embeds=torch.tensor(merged.values)[None].to(device, model.hf.dtype),
            position_ids=model.position_ids(x, np.arange(len(x.layout)))[..., left],
            # Without a mask, positions with a gap would be taken for several packed sequences.
            attention_mask=torch.ones(1, len(left), dtype=torch.long, device=device),
            use_cache=False,
        )
        rows = np.searchsorted(left, answer.predictors())
        logits = model.head(out.last_hidden_state[0, rows])
    return logits.float().cpu().numpy()
