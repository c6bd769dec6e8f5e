"""What probe must know about a model family: data, and one function for the layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    from torch import nn

    from probe.models.layout import VideoGrid


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    Attributes:
        model_type: `config.model_type` of its checkpoints.
        model_class: name of the transformers class that loads them.
        title: name for people.
        example: a hub id that loads.
        grid: (config, processor inputs, number of frames) -> the grid of the visual tokens, in
            the order the model receives them.
        video_token: name of the config field with the placeholder's token id.
        decoder, vision, head: dotted paths of the text decoder (with `.layers`, `.norm`,
            `.rotary_emb`), the vision tower and the unembedding in the model.
    """

    model_type: str
    model_class: str
    title: str
    example: str
    grid: Callable[[Any, dict[str, Any], int], VideoGrid]
    video_token: str = "video_token_id"
    decoder: str = "model.language_model"
    vision: str = "model.vision_tower"
    head: str = "lm_head"


def module(hf: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path."""
    return hf.get_submodule(path)


def families() -> dict[str, Family]:
    """The families there are, by `model_type`."""
    from probe.models import llava_onevision

    return {family.model_type: family for family in [llava_onevision.FAMILY]}


def family_of(model_type: str, name: str) -> Family:
    """The family of a checkpoint.

    Raises:
        ProbeError: a family without a layout.
    """
    known = families()
    if model_type not in known:
        raise ProbeError(
            f"{name}: there is no token layout for the family '{model_type}' yet; "
            f"families with one: {', '.join(sorted(known))}"
        )
    return known[model_type]
