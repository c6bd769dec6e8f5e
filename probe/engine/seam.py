"""The seam: one attention function, registered with transformers once, that finds its run.

For the length of a run each attention module concerned carries a shallow copy of its config that
names the function below; restoring is putting the config object back. The function finds the run
in a context variable, so other threads, modules and models never see it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session

NAME = "probe"
current: ContextVar[Session | None] = ContextVar("probe_session", default=None)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What transformers calls in place of sdpa or eager while a run is on."""
    session = current.get()
    if session is None:
        raise ProbeError("this model is in use by a run in another thread; load it once a thread")
    return session.attend(module, query, key, value, attention_mask, kwargs)


def install(module: nn.Module) -> Any:
    """Point one attention module at the seam; returns its own config, to be put back."""
    own: Any = module.config
    if own._attn_implementation == NAME:
        raise ProbeError("this model is in use by another run; load it once a run")
    swapped = copy.copy(own)
    # The public setter would also write to sub-configs, which are shared with the model's own.
    swapped._attn_implementation_internal = NAME
    module.config = swapped
    return own


def implementation(module: nn.Module, name: str) -> Callable:
    """The attention function a module would have used: a registered one, or its file's eager."""
    if name == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS[name]


AttentionInterface.register(NAME, attention)
