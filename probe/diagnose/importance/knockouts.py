"""Many knockouts "video tokens -> text" of one example at once.

Only rows of text change, and they are few. Their copies, one for each knockout, follow each other
in one sequence behind the keys of a clean run; a mask lets each copy see the clean keys that its
knockout leaves, and itself. The numbers are those of `model.sweep` with `Knockout((tokens,
"text"))`, to rounding, for a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.ablate.knockout import Knockout
from probe.engine.reuse import Clean
from probe.engine.sweep import runs, untouched

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

ROWS = 512


def knocked_out(
    model: VideoModel, x: Example, sets: Sequence[np.ndarray]
) -> Float[np.ndarray, "run vocab"]:
    """Logits of the last prompt position, untouched and with each set of video tokens cut off from
    all rows of text, in every layer.

    Args:
        model, x: what runs on what.
        sets: positions of video tokens, one knockout each.

    Returns:
        The untouched run first, then one row per set.
    """
    text = x.layout.select("text")
    rows = text[text > x.layout.select("video")[0]]
    clean = untouched(model, x, {0}, suffix=True)
    first = int(rows[0])
    # Visual tokens among the copies would need what their family adds to them.
    plain = bool((x.layout.visual[first:] < 0).all())
    if clean is None or clean.keys is None or first < clean.horizon or not plain:
        lists = [[], *([Knockout((positions, "text"))] for positions in sets)]
        return np.stack([found.logits[0] for _, found, _ in runs(model, x, lists)])
    assert clean.logits is not None
    found = [clean.logits[:1].float().cpu()]
    count = max(1, min(ROWS, first) // (len(x.layout) - first))
    with torch.no_grad():
        for start in range(0, len(sets), count):
            copies = Copies(model, x, clean, rows, sets[start : start + count])
            found.append(copies.logits().float().cpu())
    return torch.cat(found).numpy()


class Copies:
    """Copies of the rows after the clip, and what each of them sees.

    Args:
        model, x: what runs on what.
        clean: the untouched run, with keys, values and the stream entering layer 0.
        rows: positions of text rows, all at or after the first copied one.
        sets: what is cut off in each copy.
    """

    def __init__(
        self,
        model: VideoModel,
        x: Example,
        clean: Clean,
        rows: np.ndarray,
        sets: Sequence[np.ndarray],
    ) -> None:
        self.model, self.clean, self.count = model, clean, len(sets)
        self.first, self.length = int(rows[0]), len(x.layout)
        self.last = x.layout.last - self.first
        stream = clean.entering[0][0, self.first :]
        self.size, self.stream = len(stream), stream.repeat(self.count, 1)[None]
        self.before = torch.zeros(self.count, self.size, self.first, dtype=torch.bool)
        for number, positions in enumerate(sets):
            mine = torch.as_tensor(rows - self.first)[:, None], torch.as_tensor(positions)[None]
            self.before[number][mine] = True
        self.before = self.before.flatten(0, 1).to(stream.device)
        eye = torch.eye(self.count, dtype=torch.bool, device=stream.device)
        ones = torch.ones(self.size, self.size, dtype=torch.bool, device=stream.device)
        self.others = ~torch.kron(eye, ones)

    def logits(self) -> Tensor:
        """[copy, vocab] at the last prompt position."""
        stream = self.stream
        for layer in range(self.model.n_layers):
            out = self.model.layers[layer](stream, **self._arguments(layer), past_key_values=self)
            stream = out[0] if isinstance(out, tuple) else out
        own = stream[0].unflatten(0, (self.count, self.size))[:, self.last]
        return self.model.head(self.model.decoder.norm(own))

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """What a layer's attention calls: those of the copies in, all out."""
        assert self.clean.keys is not None and self.clean.values is not None
        kept = self.clean.keys[layer], self.clean.values[layer]
        key, value = (part[:, :, : self.first] for part in kept)
        return torch.cat([key, keys], 2), torch.cat([value, values], 2)

    def _arguments(self, layer: int) -> dict:
        """A layer's arguments for the copies over all keys."""
        kwargs = dict(self.clean.arguments[layer])
        tables = kwargs.get("position_embeddings")
        if tables is not None:
            kwargs["position_embeddings"] = tuple(self._repeated(t, -2) for t in tables)
        if isinstance(kwargs.get("position_ids"), Tensor):
            kwargs["position_ids"] = self._repeated(kwargs["position_ids"], -1)
        kwargs["attention_mask"] = self._mask(kwargs.get("attention_mask"))
        return kwargs

    def _repeated(self, table: Tensor, dim: int) -> Tensor:
        """A table over positions, of the copied ones, once a copy."""
        own = table.narrow(dim, self.first, self.size)
        return torch.cat([own] * self.count, dim)

    def _mask(self, mask: Any) -> Tensor:
        """[1, 1, row, key], of the kind that the layer was called with."""
        device = self.before.device
        if isinstance(mask, Tensor) and mask.dim() == 4:
            own = mask[0, 0, self.first : self.length, : self.length]
        else:
            own = torch.ones(self.length, self.length, dtype=torch.bool, device=device).tril()
            own = own[self.first :]
        before = own[:, : self.first].repeat(self.count, 1)
        after = own[:, self.first :].repeat(self.count, self.count)
        seen, cut = torch.cat([before, after], 1), torch.cat([self.before, self.others], 1)
        if seen.dtype == torch.bool:
            return (seen & ~cut)[None, None]
        return seen.masked_fill(cut, torch.finfo(seen.dtype).min)[None, None]
