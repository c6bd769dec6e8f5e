"""Training that can be stopped and resumed: every step's randomness follows its number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Checkpoint:
    """Parts of a training run in one file, replaced whole each time it is saved."""

    def __init__(self, path: Path, **parts: Any) -> None:
        self.path, self.parts = path, parts

    def load(self) -> int:
        """Load every part; the number of steps already done, 0 where there is no file."""
        import torch

        if not self.path.is_file():
            return 0
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["done"]

    def save(self, done: int) -> None:
        """Save every part after `done` steps."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save(state | {"done": done}, partial)
        os.replace(partial, self.path)
