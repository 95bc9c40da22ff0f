"""What a call of the program in this process leaves behind; the fixture `call` of conftest.py makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BASE = ("--params", "125M", "--tokens", "10B", "--gpu", "a100-80gb")


@dataclass(frozen=True)
class Said:
    """What a call left behind."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """One message with its mending on stderr, nothing on stdout, exit code 2."""
        assert (self.code, self.out) == (2, ""), self
        assert "Traceback" not in self.err
        assert self.err.startswith("error: ") and self.err.count("error: ") == 1, self.err
        assert "\n  fix: " in self.err, self.err
        for word in words:
            assert word in self.err, self.err


Call = Callable[..., Said]
