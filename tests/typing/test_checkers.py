"""mypy --strict and pyright strict agree with what the two files say."""

from __future__ import annotations

import pytest
from checkers import FOLDER

CHECKERS = ("mypy", "pyright")
LINES = (FOLDER / "wrong.py").read_text().splitlines()
MARKED = {number for number, line in enumerate(LINES, start=1) if "# WRONG" in line}


@pytest.mark.parametrize("checker", CHECKERS)
def test_correct_use_is_accepted(findings, checker):
    assert findings[checker]["correct.py"] == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_wrong_line_is_rejected_on_its_own_line(findings, checker):
    rejected = set(findings[checker]["wrong.py"])
    assert {number: LINES[number - 1] for number in MARKED ^ rejected} == {}


def test_there_are_at_least_60_wrong_lines():
    assert len(MARKED) >= 60
