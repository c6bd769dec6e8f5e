"""A name, a folder or a Hugging Face model becomes a VideoModel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.models.family import family_of

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel


def load(
    model: Any = "testbed/onevision",
    processor: Any = None,
    *,
    processor_kwargs: dict[str, Any] | None = None,
    **hf_kwargs: Any,
) -> VideoModel:
    """Load a checkpoint.

    Args:
        model: a built-in name ("testbed/onevision"), a Hugging Face id, a local folder, or a
            transformers model, or (model, processor). Built-in names win; a leading "./" or "/"
            means a folder and "hf:" the hub. A PEFT model counts with its adapters.
        processor: the processor, where `model` is a transformers model.
        processor_kwargs: passed to the processor's `from_pretrained` (min_pixels, max_pixels, ...).
        hf_kwargs: passed to `from_pretrained` (dtype, device_map, quantization_config, revision,
            attn_implementation, trust_remote_code, ...). dtype is float32 on the CPU by default
            and the checkpoint's own on a GPU.

    Raises:
        ProbeError: an unknown name, a family without a layout, weights that are not safetensors.
    """
    if isinstance(model, tuple):
        model, processor = model
    if not isinstance(model, str | Path):
        return _wrap(model, processor, type(model).__name__)
    name = str(model)
    return _from_pretrained(name, str(resolve(name)), processor, processor_kwargs or {}, hf_kwargs)


def resolve(name: str) -> str | Path:
    """Where a model's name points: a built-in folder, a local folder or a hub id.

    Raises:
        ProbeError: a folder that is not there, or an unknown built-in name.
    """
    from probe import testbed

    if name.startswith("hf:"):
        hub_id = name.removeprefix("hf:")
        if Path(hub_id).is_dir():  # transformers would take it instead of the hub's
            raise ProbeError(f"{name}: {hub_id} is a folder here; run from another directory")
        return hub_id
    if name.startswith("testbed/"):
        short = name.removeprefix("testbed/")
        if short in testbed.names():
            return testbed.checkpoint(short)
        there = ", ".join(f"testbed/{known}" for known in testbed.names())
        raise ProbeError(f"{name}: no such built-in checkpoint; there is {there}")
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ProbeError(
            f"{name}: not a folder, a built-in checkpoint or a Hugging Face id (owner/name); "
            "`probe models` lists what there is"
        )
    return name


def _from_pretrained(
    name: str, path: str, processor: Any, processor_kwargs: dict, hf_kwargs: dict
) -> VideoModel:
    import torch
    import transformers
    from safetensors import SafetensorError

    _check_folder(name, path)
    shared = {key: hf_kwargs[key] for key in ("revision", "trust_remote_code") if key in hf_kwargs}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **shared)
    except (OSError, ValueError) as error:
        raise ProbeError(f"{name}: cannot be loaded: {_first_line(error)}") from error
    family = family_of(config.model_type, name)
    on_gpu = torch.cuda.is_available() and hf_kwargs.get("device_map") != "cpu"
    hf_kwargs = {"dtype": "auto" if on_gpu else torch.float32} | hf_kwargs
    device = hf_kwargs.get("device_map", "cuda" if on_gpu else "cpu")
    whole = "quantization_config" not in hf_kwargs and str(device).startswith(
        ("cpu", "cuda", "mps")
    )
    if whole:  # a device map, even of one device, would need accelerate
        hf_kwargs.pop("device_map", None)
    model_class: Any = family.model_class
    if isinstance(model_class, str):
        if not hasattr(transformers, model_class):
            raise ProbeError(
                f"{name}: transformers {transformers.__version__} has no {model_class}; "
                "install a newer one"
            )
        model_class = getattr(transformers, model_class)
    try:
        hf, info = model_class.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, **hf_kwargs
        )
        hf = hf.to(device) if whole else hf
        if processor is None:
            kind = getattr(transformers, family.processor_class)
            processor = kind.from_pretrained(path, **shared, **processor_kwargs)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ProbeError(f"{name}: cannot be loaded: {_first_line(error)}") from error
    if info["missing_keys"]:  # transformers fills them with random numbers and a warning
        raise ProbeError(
            f"{name}: {len(info['missing_keys'])} weights are missing from the checkpoint, for "
            f"example {sorted(info['missing_keys'])[0]}; download it again"
        )
    return _wrap(hf.eval(), processor, name)


def _check_folder(name: str, path: str) -> None:
    folder = Path(path)
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise ProbeError(f"{name}: the folder has no config.json; give a checkpoint's folder")
    try:
        model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    except (ValueError, AttributeError):
        raise ProbeError(
            f"{name}: config.json is not JSON; download the checkpoint again"
        ) from None
    family_of(str(model_type), name)
    if not list(folder.glob("*.safetensors")):
        pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        found = f"only pickle weights ({pickles[0].name})" if pickles else "no weights"
        raise ProbeError(
            f"{name}: the folder has {found}; convert them to safetensors "
            "(save_pretrained writes it), probe does not run pickles"
        )


def _wrap(hf: Any, processor: Any, name: str) -> VideoModel:
    from probe.models.video_model import VideoModel

    base = getattr(hf, "get_base_model", None)
    if base is not None:  # a PEFT wrapper: the model inside it carries the adapters
        hf = base()
    if not hasattr(getattr(hf, "config", None), "model_type"):
        raise ProbeError(f"{name}: not a transformers model; give (model, processor)")
    if processor is None:
        raise ProbeError(f"{name}: a model needs its processor; give load((model, processor))")
    return VideoModel(hf, processor, family_of(hf.config.model_type, name), name)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
