"""Puts the examples folder on the path, so that the demo's scripts import as the package `demo`."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))


@pytest.fixture(scope="session")
def demo() -> Path:
    return EXAMPLES / "demo"
