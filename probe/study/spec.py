"""Study: what is measured on which models and samples, as data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study.cell import Cell
from probe.study.spec_check import importable, known, mapping, strings, whole

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel
    from probe.study.sample import Sample


@dataclass(frozen=True, eq=False)
class Study:
    """A study, in Python or as YAML with the same fields.

    What is given in any of the ways below is kept in one: models as a tuple of mappings, `task` as
    a `Task`, the others as mappings with every key.

    Attributes:
        name: of the study.
        models: a name, {"model": name, ...} whose rest goes to `probe.load` (dtype, revision, ...),
            or a list of them.
        samples: where they come from; see `probe.study.read_samples`.
        task: what is asked and how answers are scored: a `Task`, or its fields.
        frames: how many each clip is shown with.
        ablations: texts, label -> text, grids; see `probe.study.grid`.
        controls: blind (bool), random (number of seeds), uniform (bool), swaps (bool).
        captures: label -> text or {"capture": text, "reduce": {"mean": [dim], "sum": [dim],
            "max": [dim], "min": [dim], "std": [dim], "sel": {dim: label}, "isel": {dim: number}}},
            read in the untouched run; selections come before reductions.
        diagnoses: texts.
        seed: of everything random.
        folder: what relative paths start from; not part of what the study is.

    Raises:
        ProbeError: a wrong value, in one line that begins with the field.
    """

    name: Any
    models: Any
    samples: Any
    task: Any = None
    frames: Any = 16
    ablations: Any = None
    controls: Any = None
    captures: Any = None
    diagnoses: Any = ()
    seed: Any = 0
    folder: str = "."

    def __post_init__(self) -> None:
        from probe.study import spec_fields as given
        from probe.study.read_samples import check

        if not isinstance(self.name, str) or not self.name.strip():
            raise ProbeError("name: give the study a name")
        found = {
            "models": given.models(self.models),
            "samples": check(self.samples),
            "task": given.task(self.task, self.samples),
            "frames": whole(self.frames, "frames", 1),
            "ablations": given.ablations(self.ablations),
            "controls": given.controls(self.controls),
            "captures": given.captures(self.captures),
            "diagnoses": strings(self.diagnoses, "diagnoses"),
            "seed": whole(self.seed, "seed", 0),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        with importable(self.folder):
            _ = self._cells  # texts that cannot be read are refused here

    # -- reading and writing ---------------------------------------------------------------

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """A study from a YAML or JSON file, or a Python file that defines `study`.

        Raises:
            ProbeError: one line that names the file, the field and what is wrong with it.
        """
        from probe.study.spec_file import read

        return read(Path(path))

    @classmethod
    def from_mapping(cls, data: Any, folder: str | Path = ".") -> Study:
        """A study from plain data, as YAML or `to_json` gives it.

        Args:
            data: the fields; `model` may stand for `models`.
            folder: what relative paths start from.

        Raises:
            ProbeError: an unknown field or a wrong value.
        """
        data = dict(mapping(data, "study"))
        if "model" in data and "models" not in data:
            data["models"] = data.pop("model")
        known(data, [f.name for f in fields(cls) if f.name != "folder"], "")
        for needed in ("name", "models", "samples"):
            if needed not in data:
                raise ProbeError(f"{needed}: is missing")
        return cls(**data, folder=str(folder))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_mapping` reads back to the same study."""
        task = {name: value for name, value in asdict(self.task).items() if value is not None}
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        return json.loads(json.dumps(plain | {"task": task}, default=_plain))

    # -- what it holds ---------------------------------------------------------------------

    @property
    def setting(self) -> str:
        """What every cell depends on besides the model, the sample and the code: JSON text."""
        plain = {"task": self.task.setting, "frames": self.frames, "seed": self.seed}
        return json.dumps(plain, sort_keys=True, ensure_ascii=False)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the whole spec."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self) -> list[Sample]:
        """The samples, checked.

        Raises:
            ProbeError: one line with the file and the row: a missing video, a repeated id, an
                answer that is no option, a text that is not UTF-8, ...
        """
        from probe.study.read_samples import load

        return load(self.samples, self.task, self.folder, self.seed)

    def model_name(self, entry: Mapping[str, Any]) -> str:
        """How a model of `models` is called: its name, with its arguments where two share it."""
        same = [one for one in self.models if one["model"] == entry["model"]]
        if len(same) == 1:
            return entry["model"]
        shown = [f"{name}={value}" for name, value in entry.items() if name != "model"]
        return " ".join([entry["model"], *shown])

    def load_model(self, entry: Mapping[str, Any]) -> VideoModel:
        """A model of `models`, loaded; a relative folder starts from the study's own.

        Raises:
            ProbeError: as `probe.load`.
        """
        from probe.models.loading import load

        arguments = dict(entry)
        name = arguments.pop("model")
        if name.startswith((".", "~")):
            name = str((Path(self.folder) / Path(name).expanduser()).resolve())
        return load(name, **arguments)

    def cells(self, model: Any = None) -> tuple[Cell, ...]:
        """Everything that is measured on each sample, the untouched run first.

        Args:
            model: not needed: cells are the same for every model; what one lacks is refused when
                it runs.
        """
        return self._cells

    @cached_property
    def _cells(self) -> tuple[Cell, ...]:
        from probe.study.cells import cells

        return cells(self)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
