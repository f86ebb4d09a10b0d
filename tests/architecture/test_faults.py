"""The table of faults names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "faults.md").read_text())


def test_every_test_that_the_table_of_faults_names_is_there():
    assert len(LISTED) > 20
    missing = [f"{path}::{name}" for path, name in LISTED if f"def {name}(" not in (ROOT / path).read_text()]
    assert not missing
