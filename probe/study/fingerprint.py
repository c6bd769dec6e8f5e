"""What a result depends on, as short hashes: the code, a model's weights, a clip's file."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.engine.hashing import LENGTH, of, tensors

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel

WHOLE = 4 * 2**20  # bytes: files up to this are read completely
PIECES, PIECE = 16, 64 * 2**10  # of larger ones: so many pieces of so many bytes
# What no number of a study comes from: packages and files.
ASIDE = ("plot", "report", "doctor")
ASIDE_FILES = ("cli.py", "listing.py", "listing_diagnoses.py", "catalogue.py")


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
    aside = path.parts[0] in ASIDE or path.name in ASIDE_FILES
    shows = path.parts[0] == "study" and path.name.startswith(("show", "export", "commands"))
    return not (aside or shows)


def own(made: Any) -> dict[str, str]:
    """Source of the modules outside probe that classes of one's own in a spec come from: module ->
    hash. `code` does not know of them.

    Args:
        made: ablations, a capture or a diagnosis, or plain data of such.
    """
    found: dict[str, str] = {}
    plain = [made]
    while plain:
        one = plain.pop()
        if isinstance(one, list | tuple):
            plain += one
        elif is_dataclass(one) and not isinstance(one, type):
            found |= _source(type(one).__module__)
            plain += [getattr(one, field.name) for field in fields(one)]
    return found


def _source(module: str) -> dict[str, str]:
    path = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] == "probe" or path is None:
        return {}
    return {module: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:LENGTH]}


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
    """Hash of all weights and buffers, of the configs, the processor and the chat template."""
    hf = video_model.hf
    named = sorted([*hf.named_parameters(), *hf.named_buffers()], key=lambda one: one[0])
    return of(tensors(named), _settings(video_model))


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
