"""Packages of the `study` extra, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from probe.errors import ProbeError


def need(module: str) -> Any:
    """Import a module of scikit-learn or statsmodels.

    Raises:
        ProbeError: its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        title = {"sklearn": "scikit-learn"}.get(package, package)
        raise ProbeError(
            f"{title} is not installed; pip install 'probe-video[study]' brings it"
        ) from None
