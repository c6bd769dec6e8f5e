"""Doctor: is what probe reads from this checkpoint true? One check per line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.doctor.check import Check, Report
    from probe.doctor.run import doctor

__all__ = ["Check", "Report", "doctor"]


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'probe.doctor' has no attribute {name!r}")
    from importlib import import_module

    return getattr(
        import_module("probe.doctor.run" if name == "doctor" else "probe.doctor.check"), name
    )
