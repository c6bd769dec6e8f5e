"""What a result depends on, as short hashes: the code, a model's weights, a clip's file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import Tensor

    from probe.models.video_model import VideoModel

LENGTH = 32  # hex digits: 128 bits
WHOLE = 4 * 2**20  # bytes: files up to this are read completely
PIECES, PIECE = 16, 64 * 2**10  # of larger ones: so many pieces of so many bytes
ASIDE = ("plot", "report", "doctor")  # packages that no number of a study comes from

_models: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()


def of(*parts: Any) -> str:
    """Hash of plain data (what JSON can write)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


@cache
def code() -> str:
    """Version of probe, hash of its source, versions of the libraries that compute.

    Packages that only show results do not count (`ASIDE`); everything else does, as it was when
    this process first asked.
    """
    import torch
    import transformers

    import probe

    root = Path(probe.__file__).parent
    sources = sorted(path for path in root.rglob("*.py") if _counts(path.relative_to(root)))
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    versions = (str(lib.__version__).partition("+")[0] for lib in (torch, transformers))
    return "-".join([probe.__version__, digest.hexdigest()[:12], *versions])


def _counts(path: Path) -> bool:
    aside = path.parts[0] in ASIDE or path.name in ("cli.py", "listing.py", "catalogue.py")
    shows = path.parts[0] == "study" and path.name.startswith(("show", "export", "commands"))
    return not (aside or shows)


def file(path: str | Path) -> str:
    """Hash of a file's content.

    Of files of more than 4 MB the size and 16 pieces are read, the first and the last bytes among
    them. Names and dates do not count, so that a data set may be moved.

    Raises:
        OSError: it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as opened:
        if size <= WHOLE:
            digest.update(opened.read())
        else:
            for number in range(PIECES):
                opened.seek((size - PIECE) * number // (PIECES - 1))
                digest.update(opened.read(PIECE))
    return digest.hexdigest()[:LENGTH]


def model(video_model: VideoModel) -> str:
    """Hash of all weights and buffers, of the configs, the processor and the chat template.

    Tensors are hashed once for each model of this process, again where they were written to.
    """
    hf = video_model.hf
    state = _state(hf)
    known = _models.get(hf)
    if known is None or known[0] != state:
        named = sorted(_tensors(hf))
        known = _models[hf] = state, of(tensors(named), _settings(video_model))
    return known[1]


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


def _tensors(hf: Any) -> list[tuple[str, Tensor]]:
    return [*hf.named_parameters(), *hf.named_buffers()]


def _state(hf: Any) -> tuple:
    """Changes whenever a weight is written to or replaced."""
    return tuple((id(t), None if t.is_inference() else t._version) for _, t in _tensors(hf))


def _settings(video_model: VideoModel) -> list[str]:
    """Everything besides weights that decides what a prompt gives, as text."""
    hf, processor = video_model.hf, video_model.processor
    config = hf.config.to_dict()
    config.pop("_name_or_path", None)
    config["attention"] = hf.config._attn_implementation
    parts = [config]
    for name in ("image_processor", "video_processor"):
        one = getattr(processor, name, None)
        parts.append(one.to_dict() if one is not None else {})
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    parts += [words, getattr(processor, "chat_template", None), tokenizer.chat_template]
    parts += [hf.generation_config.to_dict(), video_model.family.model_type]
    return [json.dumps(part, sort_keys=True, default=str) for part in parts]
