"""200 random configurations give the same answers: a changed number must be intended.

`make test` compares every third of them, always the same; `make soak` the others.
After a decision: `python -m tests.stability.drawing`, and the reason in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.soak import some
from tests.stability.answers import COMMANDS, answer, digest

HERE = Path(__file__).parent
LINES = json.loads((HERE / "commands.json").read_text("utf-8"))
EXPECTED = json.loads((HERE / "expected.json").read_text("utf-8"))


@pytest.mark.parametrize("number", some(range(len(LINES)), lambda number: number % 3 == 2))
def test_numbers_stay(number: int) -> None:
    words = LINES[number].split()
    asked = COMMANDS if number % 4 == 0 else COMMANDS[:1]  # a plan holds what the others answer
    for name, (exact, real) in zip(asked, EXPECTED[number], strict=False):
        now = digest(answer(name, words))
        assert now[0] == exact, (name, LINES[number])
        assert now[1] == pytest.approx(real, abs=1e-9), (name, LINES[number])
