"""One check for every bad file."""

from __future__ import annotations

import re

import pytest

from probe.errors import ProbeError
from probe.video import read


def refused(source: object, message: str, capfd: pytest.CaptureFixture[str], **how: object) -> None:
    """`read` raises one line that names the source and matches, and prints nothing."""
    with pytest.raises(ProbeError) as caught:
        read(source, **how)
    text = str(caught.value)
    assert str(source) in text
    assert "\n" not in text
    assert re.search(message, text), text
    assert capfd.readouterr() == ("", "")
