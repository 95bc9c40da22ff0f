"""One input: words for the command and files beside it, as one JSON object, so that it can be kept and tried again."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Given:
    """What is tried. part: the door, a key of `doors.DOORS`; files: contents by relative path."""

    part: str
    words: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)

    def written(self, folder: Path) -> Path:
        """The folder, with the files in it."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder


def to_json(given: Given, found: str) -> str:
    """The input as a file of the corpus; found: what came of it."""
    files = {name: _as_text(content) for name, content in given.files.items()}
    values = {"part": given.part, "found": found, "words": given.words, "files": files}
    return json.dumps(values, indent=1, ensure_ascii=True) + "\n"


def from_json(text: str) -> Given:
    """The input of a file of the corpus."""
    values = json.loads(text)
    files = {name: _as_bytes(content) for name, content in values["files"].items()}
    return Given(values["part"], tuple(values["words"]), files)


def _as_text(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}


def _as_bytes(content: dict[str, Any]) -> bytes:
    return content["text"].encode("utf-8") if "text" in content else base64.b64decode(content["base64"])
