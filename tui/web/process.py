"""One planner's process behind a page: Textual's web driver speaks packets on its stdin and stdout.

A packet is a letter, four bytes of length, the payload: D for what a terminal reads or shows, M for JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

SIZES = (500, 200)  # columns and rows of the largest terminal: a larger one takes memory without end
_READY = b"__GANGLION__\n"  # Textual's driver has started
_PRELUDE = 10  # lines before it, at most
_LARGEST = 16 << 20  # bytes of a packet: a whole screen has less than one
_TIDY_SECONDS = 5.0  # s for the planner to end by itself


def bounded(width: object, height: object) -> tuple[int, int] | None:
    """A size between 1 × 1 and the largest terminal; None where the numbers are none."""
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (width, height)):
        return None
    assert isinstance(width, int) and isinstance(height, int)
    return min(max(1, width), SIZES[0]), min(max(1, height), SIZES[1])


class PlannerProcess:
    """The process of a command, started without a shell. show: gets what its terminal shows."""

    def __init__(self, words: Sequence[str], show: Callable[[bytes], Awaitable[None]]) -> None:
        self.words, self.show = tuple(words), show
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, width: int, height: int) -> None:
        """Start it in a terminal of this size. Raises OSError."""
        own = {
            "TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver",
            "TEXTUAL_COLOR_SYSTEM": "truecolor",
            "TERM_PROGRAM": "textual",
            "COLUMNS": str(width),
            "ROWS": str(height),
        }
        self._process = await asyncio.create_subprocess_exec(
            *self.words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=sys.stderr if sys.stderr is not None else asyncio.subprocess.DEVNULL,
            env={**os.environ, **own},
        )

    async def run(self) -> None:
        """Show what it shows, until it ends."""
        assert self._process is not None and self._process.stdout is not None
        read = self._process.stdout
        try:
            for _ in range(_PRELUDE):
                if await read.readline() == _READY:
                    break
            else:
                return
            while True:
                kind, size = await read.readexactly(1), int.from_bytes(await read.readexactly(4), "big")
                if size > _LARGEST:
                    return
                payload = await read.readexactly(size)
                if kind == b"D":
                    await self.show(payload)
                elif kind == b"M" and json.loads(payload).get("type") == "exit":
                    return  # it opens no other page and delivers no file
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return

    async def type(self, text: str) -> None:
        """What the browser's keyboard or clipboard gives."""
        await self._send(b"D", text.encode(errors="replace"))

    async def tell(self, **message: object) -> None:
        """A message to Textual's driver: a size, the focus, the end."""
        await self._send(b"M", json.dumps(message).encode())

    async def _send(self, kind: bytes, payload: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(kind + len(payload).to_bytes(4, "big") + payload)
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            pass  # it has ended

    async def stop(self) -> None:
        """End it: asked, then terminated, then killed."""
        process = self._process
        if process is None:
            return
        for act in (lambda: self.tell(type="quit"), process.terminate, process.kill):
            if process.returncode is not None:
                return
            try:
                done = act()
                if done is not None:
                    await asyncio.wait_for(done, _TIDY_SECONDS)
                await asyncio.wait_for(process.wait(), _TIDY_SECONDS)
            except (TimeoutError, ProcessLookupError):
                continue
