"""The result of calling the program in this process; the fixture `call` of conftest.py makes it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from gptplan.app import main

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


def called(words: Sequence[str], cwd: Path, cache: Path) -> Said:
    """`gptplan` with these words in that directory, in this process; `cache` is where a machine's profile lies."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    environment = mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(cache)})
    argv = mock.patch.object(sys, "argv", ["gptplan", *words])
    with chdir(cwd), environment, argv, redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


Call = Callable[..., Said]
