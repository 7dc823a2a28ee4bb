"""What the tests of readers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def samples() -> Path:
    """The folder of real RGB-D files; it is not part of the repository."""
    folder = os.environ.get("DEPTH_SAMPLES")
    if not folder:
        pytest.skip("set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
    return Path(folder)
