"""Where tests find data that is not part of the project."""

from pathlib import Path

import pytest


SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_path(name: str) -> Path:
    """The file or folder `name` beside the checkout; the test is skipped where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return path
