"""Which frame, row and column each token of a tower is, from what the tower itself passes on.

A tower that takes frames as a batch flattens the grid of its patch convolution. One that takes
all frames as a sequence gives its rotary module the row and column of every token, in the order
of the processor (2 x 2 blocks that merge later); where it re-orders them by windows, it re-orders
the rotary tables in the same way before the first layer, so the tables the layer gets say which
token is where. Nothing here depends on a window size or a merge size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.engine.vision_parts import Tower
from probe.engine.vision_tokens import VisionTokens, batch, merged, packed
from probe.errors import ProbeError


class Order:
    """Watches one forward of a tower up to its first layer."""

    def __init__(self, tower: Tower) -> None:
        self.tower = tower
        self.forget()

    @property
    def sequence(self) -> bool:
        """Whether the tower takes all frames as one sequence."""
        return self._grid_thw is not None

    def forget(self) -> None:
        """Let go of the tensors of a forward."""
        self._grid_thw: np.ndarray | None = None
        self._grid: tuple[int, int] | None = None
        self._cells: np.ndarray | None = None
        self._tables: Tensor | None = None

    def hooks(self) -> list[Any]:
        """Handles of hooks on the tower, its patch convolution and its rotary module."""
        tower = self.tower
        handles: list[Any] = [tower.module.register_forward_pre_hook(self._begin, with_kwargs=True)]
        if tower.convolution is not None:
            handles.append(tower.convolution.register_forward_hook(self._convolved))
        for part in tower.module.modules():
            if "Rotary" in type(part).__name__:
                handles.append(part.register_forward_hook(self._rotated, with_kwargs=True))
        return handles

    def tokens(self, x: Tensor, kwargs: Mapping[str, Any]) -> VisionTokens:
        """The tokens of this forward, from the input of its first layer.

        Raises:
            ProbeError: a sequence whose rows and columns the tower does not tell.
        """
        if self._grid_thw is None:
            frames, count = x.shape[0], x.shape[1]
            return batch(frames, count, self._grid or self._square(count))
        if self._cells is None:
            raise ProbeError(
                f"vision tower {type(self.tower.module).__name__}: it takes all frames as one "
                "sequence and has no rotary module that gets the row and column of each token, "
                "so its tokens cannot be told apart"
            )
        row, col = self._cells[self._shuffled(kwargs)].T
        return packed(self._grid_thw, row, col)

    def merged(
        self, tokens: VisionTokens, count: int, cells: Collection[tuple[int, int]]
    ) -> VisionTokens:
        """The tokens on one side of the projector (`vision_tokens.merged`)."""
        return merged(tokens, count, self._grid_thw is not None, cells)

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.forget()
        for value in (*args, *kwargs.values()):
            whole = isinstance(value, Tensor) and not value.is_floating_point()
            if whole and value.dim() == 2 and value.shape[1] == 3:
                self._grid_thw = value.cpu().numpy()

    def _convolved(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._grid = (output.shape[-2], output.shape[-1])

    def _rotated(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        for value in (*args, *kwargs.values()):
            whole = isinstance(value, Tensor) and not value.is_floating_point()
            if whole and value.dim() == 2 and value.shape[1] in (2, 3):
                self._cells = value[:, -2:].cpu().numpy()
                self._tables = _table(output)

    def _shuffled(self, kwargs: Mapping[str, Any]) -> np.ndarray:
        """A token of the rotary module's order with the same cell, for each of the layers'."""
        before, cells = self._tables, self._cells
        assert before is not None and cells is not None
        given = kwargs.get("position_embeddings")
        after = before if given is None else _table(given).to(before.device)
        if after is before or (after.shape == before.shape and torch.equal(after, before)):
            return np.arange(len(cells))
        examples = np.unique(cells, axis=0, return_index=True)[1]
        rows = before[torch.as_tensor(examples, device=before.device)].float().cpu().numpy()
        number = {row.tobytes(): int(n) for row, n in zip(rows, examples, strict=True)}
        given_rows = after.float().cpu().numpy()
        found = np.array([number.get(row.tobytes(), -1) for row in given_rows])
        if (found < 0).any():
            raise ProbeError(
                f"vision tower {type(self.tower.module).__name__}: its layers get rotary tables "
                "that its rotary module did not make, so the order of its tokens is not known"
            )
        return found

    def _square(self, count: int) -> tuple[int, int] | None:
        """The grid where the tower's config gives the sizes of frame and patch."""
        config = getattr(self.tower.module, "config", None)
        image, patch = (getattr(config, name, None) for name in ("image_size", "patch_size"))
        if image is None or patch is None:
            return None
        high, wide = (s if isinstance(s, list | tuple) else (s, s) for s in (image, patch))
        grid = (high[0] // wide[0], high[1] // wide[1])
        return grid if grid[0] * grid[1] == count else None


def _table(tables: Any) -> Tensor:
    """Cosines and sines side by side, [token, channel]."""
    parts = tables if isinstance(tables, tuple) else (tables,)
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts], dim=-1)
