"""Packages of the `interop` extra, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from probe.errors import ProbeError


def need(package: str, title: str) -> Any:
    """Import an optional package.

    Raises:
        ProbeError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ProbeError(
            f"{title} is not installed; pip install 'probe-video[interop]' brings it"
        ) from None
