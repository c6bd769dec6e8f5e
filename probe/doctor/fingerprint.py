"""What there is to know about a model, without a copy of it, to compare before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = tuple(name for name in vars(nn.Module()) if "hooks" in name)
_PARTS = ("_parameters", "_buffers", "_modules")
_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """Tensors by identity, version and a sum of their bits; hooks, configs and attributes.

    Objects are compared by identity, so they are held while the fingerprint lives.
    """

    def __init__(self, hf: nn.Module) -> None:
        self._held: list[Any] = []
        self.found: dict[str, Any] = {}
        for name, tensor in (*hf.named_parameters(), *hf.named_buffers()):
            self.found[f"tensor {name}"] = self._tensor(tensor)
        for name, module in hf.named_modules():
            for key, value in vars(module).items():
                self.found[f"{name}.{key}" if name else key] = self._attribute(key, value)

    def changes(self, other: Fingerprint) -> list[str]:
        """Names of what differs."""
        names = self.found.keys() | other.found.keys()
        none = object()
        return sorted(
            name for name in names if self.found.get(name, none) != other.found.get(name, none)
        )

    def _tensor(self, tensor: Tensor) -> tuple:
        self._held.append(tensor)
        version = None if tensor.is_inference() else tensor._version
        return id(tensor), version, tensor.requires_grad, bits(tensor)

    def _attribute(self, key: str, value: Any) -> Any:
        if key in _HOOKS:
            return tuple(value)
        if key in _PARTS:
            return tuple((name, self._id(part)) for name, part in value.items())
        return self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        """Plain values as they are; containers with what they hold; the rest by identity."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if depth < 3 and isinstance(value, Mapping):
            held = tuple((repr(k), self._value(v, depth + 1)) for k, v in value.items())
            return self._id(value), held
        if depth < 3 and isinstance(value, list | tuple):
            return self._id(value), tuple(self._value(v, depth + 1) for v in value)
        if isinstance(value, set | frozenset):
            return self._id(value), len(value)
        if hasattr(value, "to_dict"):  # configs
            return self._id(value), repr(vars(value))
        return self._id(value)

    def _id(self, value: Any) -> int:
        self._held.append(value)
        return id(value)


def bits(tensor: Tensor) -> int | None:
    """Sum of a tensor's bits taken as integers; None where it has none to be read."""
    tensor = tensor.detach()
    if tensor.is_meta or tensor.layout != torch.strided:
        return None
    if tensor.dtype == torch.bool:
        tensor = tensor.to(torch.uint8)
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    try:
        whole = tensor.contiguous().view(_INTEGERS[tensor.dtype.itemsize])
    except (RuntimeError, TypeError):  # tensors of quantisation libraries
        return None
    return int(whole.sum(dtype=torch.int64))
