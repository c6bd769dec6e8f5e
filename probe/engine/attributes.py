"""Plain attributes that a model writes on itself in a run, put back afterwards."""

from __future__ import annotations

from typing import Any

from torch import nn


class Attributes:
    """What a model and its parts hold beside parameters, buffers and modules.

    transformers keeps state of a run there, such as `rope_deltas`.
    """

    def __init__(self, hf: nn.Module) -> None:
        self._held = [(module, _plain(module)) for module in hf.modules()]

    def restore(self) -> None:
        """Put every value back by identity; what was not there before goes."""
        for module, before in self._held:
            now = _plain(module)
            for name in now.keys() - before.keys():
                delattr(module, name)
            for name, value in before.items():
                if name not in now or now[name] is not value:
                    setattr(module, name, value)


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}
