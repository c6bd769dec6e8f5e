"""Hashes of plain data and of tensors, and those of tensors that need not be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 32  # hex digits: 128 bits


def of(*parts: Any) -> str:
    """Hash of plain data (what JSON can write)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of names, types, shapes and bits of tensors, in their order."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(content(tensor))
    return digest.hexdigest()[:LENGTH]


def content(tensor: Tensor) -> Any:
    """The bytes of a tensor, without a copy where it lies in one piece on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""


class Hashes:
    """Hashes of tensors, each made once as long as it lives and is not written to.

    What is written through `.data` in place is not noticed: torch keeps no count of it.
    """

    def __init__(self) -> None:
        self._single: dict[int, tuple[Any, Any, bytes]] = {}
        self._several: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()

    def tensor(self, value: Tensor) -> bytes:
        """Hash of a tensor's content."""
        known = self._single.get(id(value))
        if known is not None and known[0]() is value and known[1] == _state(value):
            return known[2]
        found = hashlib.sha256(content(value)).digest()
        number, held = id(value), self._single
        held[number] = ref(value, lambda _: held.pop(number, None)), _state(value), found
        return found

    def weights(self, owner: Any, parts: Sequence[Tensor], make: Callable[[], str]) -> str:
        """Hash of some tensors of a model.

        Args:
            owner: the module that they belong to.
            parts: the tensors.
            make: computes the hash.
        """
        state = tuple(_state(part) for part in parts)
        known = self._several.get(owner)
        if known is None or known[0] != state:
            known = self._several[owner] = state, make()
        return known[1]


def _state(tensor: Tensor) -> tuple:
    """Changes when a tensor is written to, or replaced by another or by other storage."""
    version = None if tensor.is_inference() else tensor._version
    return id(tensor), tensor.data_ptr(), version
