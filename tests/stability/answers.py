"""The program's answer to a command line, and a short digest of it that ignores texts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

REASONS = ("fits_unknown",)  # keys that say a verdict again in words: left out like sentences
# keys with a value of their own that came after the answers were drawn: at these values they are left out like a null
SINCE: dict[str, Any] = {
    **dict.fromkeys((f".config.parallel.{name}" for name in ("tp", "pp", "interleave", "cp", "ep")), 1),
    **{".config.parallel.zero": 0, ".config.parallel.sp": False, ".config.parallel.pp_schedule": "1f1b"},
    ".memory.ranks#": 0,
}
COMMANDS = ("estimate", "schedule", "batch", "flops")
NOT_OF = {"schedule": ("--as-of",), "batch": ("--as-of",)}  # flags that a command does not have


def answer(name: str, words: list[str]) -> Any | None:
    """The parsed JSON of `gptplan NAME WORDS --json`; None where the program refuses the words."""
    from gptplan.app import main

    kept, skip = [], False
    for word in words:
        if skip or word in NOT_OF.get(name, ()):
            skip = not skip
            continue
        kept.append(word)
    out = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as cache,
        patch.dict(os.environ, PATH="", XDG_CACHE_HOME=cache),
        patch.object(sys, "argv", ["gptplan", name, *kept, "--json"]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            main()
        except SystemExit as end:
            if end.code:
                return None
    return json.loads(out.getvalue())


def digest(value: Any | None) -> list[Any]:
    """[hash of keys, whole numbers and single words; sum of the logarithms of all real numbers].

    A null is left out with its key, so that a new option that nobody chose moves nothing; so is a later key at its
    default. Sentences are left out: they may be said better. The sum moves by 1e-9 when one number moves by a part in
    10^9, while the last bit of a number, which differs between mathematics libraries, moves it by 1e-16.
    """
    exact, real = hashlib.sha256(), []
    for path, leaf in _leaves(value, ""):
        if leaf is None or (path in SINCE and leaf == SINCE[path]):
            continue
        if isinstance(leaf, float):
            real.append(math.log(abs(leaf)) if leaf else 0.0)
            leaf = math.copysign(1.0, leaf) if leaf else 0.0
        elif isinstance(leaf, str) and " " in leaf:
            leaf = "a sentence"
        exact.update(f"{path}={leaf!r}\n".encode())
    return [exact.hexdigest()[:16], math.fsum(real)]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key in REASONS:
                continue
            yield from _leaves(each, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}#", len(value)
        for number, each in enumerate(value):
            yield from _leaves(each, f"{path}[{number}]")
    else:
        yield path, value
