"""One call of a decoder layer's attention: its own function, then edits, then captures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from probe.engine import seam
from probe.engine.call import AttentionCall
from probe.engine.peek import Peeked

if TYPE_CHECKING:
    from probe.engine.session import Session


def attend(
    session: Session,
    layer: int,
    own: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kwargs: dict,
) -> tuple[Tensor, Tensor | None]:
    """What the seam calls for an attention layer of the decoder.

    Args:
        session: the run.
        layer: number of the layer.
        own: name of the attention function that the layer has without probe.
        module, query, key, value, mask, kwargs: as transformers passes them.
    """
    full = mask if isinstance(mask, Tensor) and mask.dim() == 4 else None
    keys = key.shape[2]
    positions = session.positions if session.flow.peeking else session.present
    positions = positions[layer]
    call = AttentionCall(
        layer=layer,
        module=module,
        query=query[0],
        key=key[0],
        value=value[0],
        mask=None if full is None else full[0, 0, :, :keys],
        scaling=kwargs.get("scaling") or query.shape[-1] ** -0.5,
        positions=session.positions[layer],
        # The cache of a layer with a sliding window forgets keys that it has passed.
        key_positions=positions[-keys:],
        causal=bool(getattr(module, "is_causal", True)),
        softcap=kwargs.get("softcap"),
        unrotate=lambda x, positions: session.flow.rotary.remove(layer, module, x, positions),
    )
    for ablation, state in session.ablations:
        ablation.edit(session, state, call)
    if session.flow.peeking:
        raise Peeked(call)
    function = seam.implementation(module, own)
    output, weights = function(module, query, key, value, mask, **kwargs)
    rows = call.index(call.positions) if session.force else call.edited
    if len(rows):
        output = call.redo(output, rows)
    if session.anyone("head_outputs"):
        output = session.change("head_outputs", output[0], call)[None]
    call.output = output[0]
    if session.step == 0:
        for ablation, state in session.ablations:
            ablation.attention(session, state, call)
    session.trace("head", layer, output)
    session.tell("attention", call.detached() if session.gradient else call)
    return output, weights
