"""Everything there is to know about a model, to compare before and after."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HOOKS = [name for name in vars(nn.Module()) if "hooks" in name]


def snapshot(hf: nn.Module) -> dict[str, Any]:
    """Everything there is to know: tensors by value, configs by identity, hooks, attributes."""
    found: dict[str, Any] = {}
    for name, tensor in (*hf.named_parameters(), *hf.named_buffers()):
        found[f"tensor {name}"] = (id(tensor), tensor.detach().clone(), tensor.requires_grad)
    for name, module in hf.named_modules():
        for key, value in vars(module).items():
            if key in HOOKS:
                value = list(value)
            elif key in ("_parameters", "_buffers", "_modules"):
                value = {part: id(thing) for part, thing in value.items()}
            elif not isinstance(value, bool | int | float | str | tuple | None):
                value = (id(value), repr(value) if key.endswith("config") else None)
            found[f"{name}.{key}"] = value
    return found


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        if key.startswith("tensor "):
            assert value[0] == after[key][0] and value[2] == after[key][2], key
            assert torch.equal(value[1], after[key][1]), key
        else:
            assert value == after[key], key
