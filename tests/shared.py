"""Finds data for tests: the numbers of the 2021 system, and data sets that are not part of the project."""

from pathlib import Path

import pytest


GOLDEN = Path(__file__).resolve().parent / "golden"  # described in its README.md
SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_path(name: str) -> Path:
    """Returns the file or folder `name` beside the checkout. Skips the test if it does not exist."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return path
