"""The shape of a model as far as its cost goes, from its config alone: no weights are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError

# Tokens that a tower puts before those of its patches, by `model_type` of its config.
PREFIX = {
    "clip_vision_model": 1,
    "internvl_vision": 1,
    "instructblipvideo_vision_model": 1,
    "timm_wrapper": 1,
}
GATED = ("qwen2_5_vl_vision", "glm4v_vision")  # towers whose MLP has a gate beside up and down


@dataclass(frozen=True)
class TowerShape:
    """Shape of a vision tower.

    Attributes:
        layers, width, heads: of its transformer.
        mlp: hidden width of its MLP.
        gated: the MLP has three matrices and not two.
        patch: side of a patch in pixels, (height, width).
        image: side of an image in pixels, (height, width), where it is fixed; else None.
        prefix: tokens before those of the patches, as CLS.
        window: side, in patches, of the windows that attention is limited to; 0 without.
        whole: layers that attend to the whole frame all the same.
    """

    layers: int
    width: int
    heads: int
    mlp: int
    gated: bool = False
    patch: tuple[int, int] = (14, 14)
    image: tuple[int, int] | None = None
    prefix: int = 0
    window: int = 0
    whole: tuple[int, ...] = ()

    @property
    def cells(self) -> tuple[int, int] | None:
        """Rows and columns of patches of an image, where they are fixed."""
        if self.image is None:
            return None
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]


@dataclass(frozen=True)
class Shape:
    """Shape of a video multimodal LLM: what its cost depends on.

    Attributes:
        layers, width, heads, kv_heads, head_dim: of the text decoder.
        mlp: hidden width of each layer's MLP; in a mixture of experts, of those that one token
            goes through together.
        experts: of each layer that has a mixture, how many there are to choose from; else 0.
        vocabulary: words.
        tower: the vision tower; None where the config does not say.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: tuple[int, ...]
    experts: tuple[int, ...] = ()
    vocabulary: int = 0
    tower: TowerShape | None = None

    @classmethod
    def plain(
        cls,
        layers: int,
        width: int,
        mlp: int,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        tower: TowerShape | None = None,
        vocabulary: int = 0,
    ) -> Shape:
        """With the same MLP in every layer."""
        size = head_dim or width // heads
        mlps = (mlp,) * layers
        return cls(layers, width, heads, kv_heads or heads, size, mlps, (), vocabulary, tower)

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a transformers config, for instance of `AutoConfig.from_pretrained`.

        Args:
            config: of the whole model, or of a text decoder alone.

        Raises:
            ProbeError: a config without the numbers of a decoder.
        """
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        try:
            layers, width, words = text.num_hidden_layers, text.hidden_size, text.vocab_size
            heads = text.num_attention_heads
            kv_heads = getattr(text, "num_key_value_heads", None) or heads
            mlps = tuple(mlp_width(text, layer) for layer in range(layers))
        except AttributeError as error:
            raise ProbeError(
                f"Shape: {type(config).__name__} has no {error.name}; write "
                "Shape.plain(layers=..., width=..., mlp=..., heads=...)"
            ) from None
        size = getattr(text, "head_dim", None) or width // heads
        experts = tuple(0 if _dense(text, n) else _experts(text) for n in range(layers))
        vision = getattr(config, "vision_config", None)
        return cls(
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=size,
            mlp=mlps,
            experts=experts if any(experts) else (),
            vocabulary=words,
            tower=None if vision is None else tower_shape(vision),
        )


def mlp_width(config: Any, layer: int) -> int:
    """Hidden width of a layer's MLP; of the experts that one token uses, in a mixture of them."""
    if _dense(config, layer):
        return config.intermediate_size
    shared = getattr(config, "shared_expert_intermediate_size", None) or 0
    return config.num_experts_per_tok * config.moe_intermediate_size + shared


def tower_shape(config: Any) -> TowerShape | None:
    """From the config of a vision tower; None where it does not say."""
    named = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    named = named | (named.get("model_args") or {})
    kind = named.get("model_type", "")
    layers = _first(named, "num_hidden_layers", "depth")
    width = _first(named, "embed_dim", "hidden_size")
    heads = _first(named, "num_attention_heads", "num_heads")
    if not (layers and width and heads):
        return None
    # GLM-4V's MLP is as wide as the features that leave the tower.
    names = ("out_hidden_size",) if kind == "glm4v_vision" else ("intermediate_size",)
    mlp = _first(named, *names) or round(width * named.get("mlp_ratio", 4))
    image = _pair(_first(named, "img_size", "image_size"))
    patch = _pair(named.get("patch_size"))
    if patch is None and image and named.get("ref_feat_shape"):
        rows, cols = named["ref_feat_shape"]
        patch = image[0] // rows, image[1] // cols
    if patch is None:
        return None
    window = (named.get("window_size") or 0) // patch[0] if kind in GATED else 0
    return TowerShape(
        layers=layers,
        width=width,
        heads=heads,
        mlp=mlp,
        gated=kind in GATED,
        patch=patch,
        image=image,
        prefix=PREFIX.get(kind, 0),
        window=window,
        whole=tuple(named.get("fullatt_block_indexes") or ()) if window else (),
    )


def _experts(config: Any) -> int:
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    return next((n for name in names if (n := getattr(config, name, None))), 0)


def _dense(config: Any, layer: int) -> bool:
    """Whether a layer has one MLP and no mixture of experts."""
    if not getattr(config, "num_experts_per_tok", None):
        return True
    if not hasattr(config, "moe_intermediate_size"):
        return True
    step = getattr(config, "decoder_sparse_step", 1) or 1
    only = getattr(config, "mlp_only_layers", None) or []
    return layer in only or bool((layer + 1) % step)


def _first(named: dict[str, Any], *names: str) -> Any:
    return next((named[name] for name in names if named.get(name)), None)


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
