"""What probe must know about a model family: data, and one function for the layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    from torch import nn

    from probe.models.visual import Visual, VisualGrid


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    Attributes:
        model_type: `config.model_type` of its checkpoints.
        model_class: the class that loads them, or its name in transformers.
        title: name for people.
        example: a hub id that loads.
        grid: (config, processor inputs, visual) -> the grid of the tokens of one clip or image,
            in the order the model receives them.
        video_token, image_token: name of the config field with the placeholder's token id; the
            same field where frames go in as images; None for no images.
        placeholder: regular expression of what the processor replaces by a clip's or image's
            tokens, where that is more than the placeholder itself.
        timestamps: seconds that the processor's text gives to each temporal group, from
            (visual, seconds of its frames); None where it writes none.
        timestamp_follows: the time of a frame is written behind it, not in front.
        template: chat template for checkpoints whose processor has none.
        process: (processor, prompt, videos, video_metadata, images) -> the model's inputs, where
            the processor is not called in the usual way.
        processor_class: name of the processor's class in transformers, where a checkpoint's own
            config names another.
        decoder, vision, projector, head: dotted paths in the model of the text decoder (with
            `.layers` and `.norm`), the vision tower (None without attention before the decoder),
            what carries its features over to the decoder, and the unembedding.
        attention, mlp, output: dotted paths in a decoder layer of the attention module, the MLP,
            and the attention's output projection.
        added: dotted paths in a decoder layer of the modules whose outputs are added to the
            residual stream for ("attention", "mlp"); differs from them where a norm follows.
        frames: the number of frames the checkpoints take, where it is fixed.
        needs_clip: there is no prompt without a clip.
        takes_positions: the model's own forward takes `position_ids`.
        adapt: (family, config) -> the family of one checkpoint, where parts depend on its config.
    """

    model_type: str
    model_class: str | type
    title: str
    example: str
    grid: Callable[[Any, dict[str, Any], Visual], VisualGrid]
    video_token: str = "video_token_id"
    image_token: str | None = "image_token_id"
    placeholder: str | None = None
    timestamps: Callable[[Visual, Any], Any] | None = None
    timestamp_follows: bool = False
    template: str | None = None
    process: Callable[..., dict[str, Any]] | None = None
    processor_class: str = "AutoProcessor"
    decoder: str = "model.language_model"
    vision: str | None = "model.vision_tower"
    projector: str | None = "model.multi_modal_projector"
    head: str = "lm_head"
    attention: str = "self_attn"
    mlp: str = "mlp"
    output: str = "self_attn.o_proj"
    added: tuple[str, str] = ("self_attn", "mlp")
    frames: int | None = None
    needs_clip: bool = False
    takes_positions: bool = True
    adapt: Callable[[Family, Any], Family] | None = None


# The one registry; `register` adds a user's own family to it.
_FAMILIES: dict[str, Family] = {}
# Modules beside this one, each with one or several families in `FAMILIES`.
_MODULES = (
    "llava_onevision",
    "llava_next_video",
    "video_llava",
    "qwen2_vl",
    "qwen3_vl",
    "internvl",
    "video_llama_3",
    "smolvlm",
    "perception_lm",
    "glm4v",
    "molmo2",
    "instructblipvideo",
)


# Text decoders with a norm behind attention and MLP, by the `model_type` of their config; any of
# the families that take a choice of decoders may have one.
NORMS_BEHIND = {
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


def of_checkpoint(family: Family, config: Any) -> Family:
    """The family as one checkpoint has it."""
    behind = NORMS_BEHIND.get(config.get_text_config().model_type)
    if behind is not None:
        family = replace(family, added=behind)
    return family if family.adapt is None else family.adapt(family, config)


def module(hf: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path."""
    return hf.get_submodule(path)


def families() -> dict[str, Family]:
    """The families there are, by `model_type`; registered ones come last."""
    from importlib import import_module

    known: dict[str, Family] = {}
    for name in _MODULES:
        for family in import_module(f"probe.models.families.{name}").FAMILIES:
            known[family.model_type] = family
    return known | _FAMILIES


def register(family: Family) -> Family:
    """Add a family: `load` takes checkpoints of its `model_type` from then on."""
    _FAMILIES[family.model_type] = family
    return family


def family_of(model_type: str, name: str) -> Family:
    """The family of a checkpoint.

    Raises:
        ProbeError: a family without a layout.
    """
    known = families()
    if model_type not in known:
        raise ProbeError(
            f"{name}: there is no token layout for the family '{model_type}' yet; "
            f"families with one: {', '.join(sorted(known))}; "
            "probe.models.register(Family(...)) adds one"
        )
    return known[model_type]
