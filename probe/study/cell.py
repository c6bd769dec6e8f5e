"""Cell: one measurement of a study on one sample, the unit that is there already or is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.ablate.base import Ablation
    from probe.capture.base import Capture
    from probe.diagnose.base import Diagnosis

UNTOUCHED = "untouched"
# Roles whose cells are a list of ablations, scored by the task.
ABLATED = (UNTOUCHED, "ablation", "blind", "random", "uniform frames", "swap")
REDUCTIONS = ("mean", "sum", "max", "min", "std")
ROLES = (*ABLATED, "capture", "diagnosis")


@dataclass(frozen=True, eq=False)
class Cell:
    """One measurement on every sample.

    Attributes:
        label: as it is shown, unique in the study.
        role: one of `ROLES`.
        of: label of the ablation that it is a control of, or "".
        seed: of a random choice; 0 elsewhere.
        spec: plain JSON that identifies what is measured.
        grid: values of the grid that the ablation (or the one it controls) comes from.
        made: the ablations, the capture or the diagnosis itself; of a random control what it is a
            control of.
    """

    label: str
    role: str
    of: str = ""
    seed: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    made: Any = field(default=(), repr=False)

    def key(self, model: str, sample: str, setting: str, code: str) -> str:
        """What names its result: sha256 in hex. Labels do not enter.

        Args:
            model, sample: fingerprints of both.
            setting: `Study.setting`: everything that all cells depend on.
            code: version of the code.
        """
        plain = [self.spec, model, sample, setting, code]
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def ablated(self) -> bool:
        """A list of ablations that the task scores; else a capture or a diagnosis."""
        return self.role in ABLATED

    def ablations(self, sample: str) -> list[Ablation]:
        """What is taken away; nothing in the untouched run.

        Args:
            sample: id of the sample; a random choice is drawn anew for each.
        """
        if self.role != "random":
            return list(self.made)
        from probe.study.controls import at_random

        name = hashlib.sha256(f"{self.seed} {sample}".encode()).digest()
        return at_random(self.made, int.from_bytes(name[:4], "big")) or []

    @property
    def capture(self) -> Capture:
        """What a cell of role "capture" reads."""
        return self.made

    @property
    def diagnosis(self) -> Diagnosis:
        """What a cell of role "diagnosis" measures."""
        return self.made

    def reduced(self, array: xr.DataArray) -> xr.DataArray:
        """A captured array as the study wants it.

        Raises:
            ProbeError: a dim or a label that the array does not have.
        """
        how = self.spec["reduce"]
        try:
            small = array.sel(how.get("sel", {})).isel(how.get("isel", {}))
            for name in REDUCTIONS:
                if how.get(name):
                    small = getattr(small, name)(list(how[name]), keep_attrs=True)
        except (KeyError, ValueError, IndexError) as error:
            reason = str(error.args[0] if error.args else error).splitlines()[0]
            raise ProbeError(
                f"captures: {self.label}: {reason}; the dims are {', '.join(map(str, array.dims))}"
            ) from None
        return small
