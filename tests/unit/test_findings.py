"""The table of findings and their tests in docs/design/one-mind.md: each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "design" / "one-mind.md"


def test_every_test_that_the_table_names_exists() -> None:
    rows = [line.split("|") for line in TABLE.read_text().splitlines() if re.search(r"\| `?test_|\| `[^|]*test_", line)]
    assert len(rows) > 30
    for row in rows:
        files = [TESTS / name for name in re.findall(r"`([\w/]+\.py)`", row[-2])]
        text = "".join(file.read_text() for file in files)
        for name in re.findall(r"`(test_\w+)`", row[-3]):
            assert f"def {name}(" in text, f"{name} is not in {row[-2]}"
