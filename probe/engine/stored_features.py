"""Vision features of earlier runs in place of the vision tower.

What enters the decoder at the positions of clips and images, and what some families add to the
stream later (deepstack), depends on the pixels and on the weights before the decoder, and on no
text. A run keeps it; a later one with the same pixels is called without them, and gets it put in
place as the decoder begins. Bits stay as they are, so logits do too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from probe.engine.hashing import Hashes, of, tensors

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

# Inputs that are no part of what a clip looks like.
TEXT = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")
DEEPSTACK = "deepstack_visual_embeds", "visual_pos_masks"


@runtime_checkable
class Features(Protocol):
    """Where features are kept: tensors by name under a key.

    Attributes:
        hashes: of pixels and weights, which keys are made of.
    """

    hashes: Hashes

    def get(self, key: str) -> dict[str, Tensor] | None: ...

    def put(self, key: str, tensors: dict[str, Tensor]) -> None: ...


class StoredFeatures:
    """The features of one session's example, from a store or for it.

    Args:
        session: of which no part reads or edits the vision tower.
        store: where features are kept.
    """

    def __init__(self, session: Session, store: Features) -> None:
        self.session, self.store = session, store
        self._key = ""
        self._found: dict[str, Tensor] | None = None
        self._due = False

    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with next: without pixels where their features are known."""
        x, self._due = self.session.example, True
        self._key = _key(self.session.model, x, self.store.hashes)
        self._found = self.store.get(self._key)
        if self._found is None or self._rows(self._found["ids"]) is None:
            self._found = None
            return dict(x.inputs)
        return {k: v for k, v in x.inputs.items() if not k.startswith("pixel_values")}

    def begin(self, kwargs: dict) -> dict:
        """The decoder begins: features are put in place, or taken down."""
        if not self._due:
            return kwargs
        self._due = False
        x = kwargs["inputs_embeds"]
        if self._found is not None:
            return kwargs | self._put(x, self._found)
        self._take(x, *(kwargs.get(name) for name in DEEPSTACK))
        return kwargs

    def _rows(self, ids: Tensor) -> Tensor | None:
        """Positions of the placeholders that these are the ids of; None where others are there."""
        given = self.session.example.inputs["input_ids"][0].cpu()
        rows = torch.isin(given, ids).nonzero()[:, 0]
        return rows if torch.equal(given[rows], ids) else None

    def _put(self, x: Tensor, found: dict[str, Tensor]) -> dict:
        rows = self._rows(found["ids"])
        assert rows is not None
        x, rows = x.clone(), rows.to(x.device)
        x[0, rows] = found["features"].to(x)
        stacked = sorted(name for name in found if name.startswith("deepstack"))
        if not stacked:
            return {"inputs_embeds": x}
        mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        mask[0, rows] = True
        added = [found[name].to(x.device) for name in stacked]
        return {"inputs_embeds": x} | dict(zip(DEEPSTACK, (added, mask), strict=True))

    def _take(self, x: Tensor, added: Any, mask: Tensor | None) -> None:
        """Keep what differs from the words' embeddings: the placeholders, all of them."""
        ids = self.session.example.inputs["input_ids"]
        with torch.no_grad():
            words = self.session.model.hf.get_input_embeddings()(ids)[0]
        differs = (x[0] != words.to(x)).any(-1).cpu()
        shown = ids[0].cpu()[torch.isin(ids[0].cpu(), ids[0].cpu()[differs].unique())]
        rows = self._rows(shown)
        if rows is None or not len(rows):
            return
        found = {"features": x[0, rows.to(x.device)], "ids": shown}
        if added is not None and mask is not None:
            if not torch.equal(mask[0].nonzero()[:, 0].cpu(), rows):
                return
            found |= {f"deepstack{number:03d}": one for number, one in enumerate(added)}
        kept = {name: one.detach().cpu().contiguous() for name, one in found.items()}
        self.store.put(self._key, kept)


def stored_features(session: Session) -> StoredFeatures | None:
    """For a session that may use them: something is shown, nobody reads or edits the tower, and
    what it makes of the pixels depends on nothing else.
    """
    store = session.model.feature_cache
    x = session.example
    if store is None or not x.layout.visuals or session.vision or session.edits:
        return None
    asks = any(name.startswith("qformer") for name in x.inputs)  # the tower reads the question
    if asks or not any(name.startswith("pixel_values") for name in x.inputs):
        return None
    return None if _hooked(session.model) else StoredFeatures(session, store)


def _hooked(model: VideoModel) -> bool:
    """Somebody hears or changes what happens before the decoder."""
    hooks = (
        hook
        for _, module in _before(model)
        for kind in (module._forward_hooks, module._forward_pre_hooks)
        for hook in kind.values()
    )
    return any(
        not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks
    )


def _key(model: VideoModel, x: Example, hashes: Hashes) -> str:
    """Of the weights before the decoder and of everything the model is shown."""
    digest = hashlib.sha256(_weights_of(model, hashes).encode())
    for name, value in sorted(x.inputs.items()):
        if name not in TEXT:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
            digest.update(hashes.tensor(value))
    return digest.hexdigest()


def _weights_of(model: VideoModel, hashes: Hashes) -> str:
    """Hash of the weights before the decoder and of how they are run."""
    import transformers

    hf, config = model.hf, model.hf.config
    parts = [
        (f"{path}.{name}", tensor)
        for path, module in _before(model)
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]
    found = hashes.weights(hf, [tensor for _, tensor in parts], lambda: tensors(parts))
    about = [type(hf).__name__, str(hf.dtype), transformers.__version__, torch.__version__]
    about += [hf.device.type, str(config._attn_implementation), str(hf.training)]
    return of(about, config.to_json_string(use_diff=False), found)


def _before(model: VideoModel) -> Iterator[tuple[str, nn.Module]]:
    """All modules but the decoder's layers and last norm, and the head."""
    behind = {id(m) for part in (model.layers, model.decoder.norm) for m in part.modules()}
    behind |= {id(model.decoder), id(model.hf.get_output_embeddings())}
    for path, module in model.hf.named_modules():
        if id(module) not in behind:
            yield path, module
