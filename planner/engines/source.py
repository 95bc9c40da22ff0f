"""What a reader of an engine's files is given, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.errors import FileError, InputError
from planner.files import read_text
from planner.json_input import json_of
from planner.paths import is_file

MOST_SOURCE = 1 << 20  # characters of a file of settings


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A file of an engine, and the GPUs of the run if somebody said them, or launch.sh beside it does."""

    path: Path
    text: str
    gpus: int | None

    def beside(self, name: str) -> str | None:
        """The text of another file in its folder; None if it is not there. Raises FileError if it cannot be read."""
        other = self.path.parent / name
        return read_text(other, MOST_SOURCE) if is_file(other) else None

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file of its folder. Raises FileError if it is not there, or holds no object."""
        text = self.beside(name)
        if text is None:
            why = "the run is described by both"
            raise FileError(f"{self.path} has no {name} beside it", why=why, remedy=f"put {name} into its folder")
        value = json_of(text.encode(), self.path.parent / name)
        if not isinstance(value, dict):
            raise FileError(f"{self.path.parent / name} holds no settings", why="it is no object", remedy="check it")
        return value


@dataclass(slots=True)
class FileReading:
    """Keys of run.toml with their values, and what was not understood. model: a whole section, if a reader has one."""

    source: EngineFile
    values: dict[str, Any] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    model: dict[str, Any] | None = None

    def leave(self, name: str, value: object, why: str = "") -> None:
        """Note a setting that has no key."""
        text = f"{name} = {str(value)[:80]}"
        self.unread.append(f"{text}: {why}" if why else text)

    def leave_all(self, given: Mapping[str, object], known: set[str]) -> None:
        """Note the settings that are not known."""
        for name, value in given.items():
            if name not in known:
                self.leave(name, value)


class Settings:
    """Settings by name, over an engine's defaults; each is checked for its kind as it is read."""

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
        self.given, self.defaults, self.path = given, defaults, path
        self.asked: set[str] = set()

    def value(self, name: str) -> Any:
        """As it stands there, or the default; None without either."""
        self.asked.add(name)
        return self.given.get(name, self.defaults.get(name))

    def count(self, name: str, least: int = 1) -> int:
        """A whole number. Raises InputError for anything else, and below `least`."""
        value = self.value(name)
        if isinstance(value, float) and value.is_integer():  # neither NaN nor infinity is
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**18:
            raise self._wrong(name, value, f"a whole number from {least}")
        return value

    def number(self, name: str) -> float:
        """A finite number. Raises InputError for anything else."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise self._wrong(name, value, "a number")
        return float(value)

    def truth(self, name: str) -> bool:
        """True or false; absent is false. Raises InputError for anything else."""
        value = self.value(name)
        if value not in (None, True, False):
            raise self._wrong(name, value, "true or false")
        return bool(value)

    def choice(self, name: str, known: Mapping[str, Any]) -> Any:
        """What a word stands for. Raises InputError for a word that is not known."""
        value = self.value(name)
        if not isinstance(value, str) or value not in known:
            raise self._wrong(name, value, " or ".join(known))
        return known[value]

    def _wrong(self, name: str, value: object, what: str) -> InputError:
        said = "is missing" if value is None else f"= {str(value)[:80]}"
        return InputError(f"{self.path}: {name} {said}", why=f"it must be {what}", remedy="mend it there")


def per_gpu(whole: int, each: int, gpus: int, what: str) -> int:
    """Micro-batches of a GPU, where the file says those of the whole run. Raises InputError if they do not divide."""
    if whole % (each * gpus):
        raise InputError(
            f"{what}: {whole} is not divisible by {each} on each of {gpus} replicas",
            why="every replica has as many micro-batches",
            remedy="say with --gpus on how many GPUs the run is",
        )
    return whole // (each * gpus)
