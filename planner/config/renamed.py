"""Keys that had another name or other values before: one table, so that old files still load.

Used where a file is read back: run.toml and a run's config.toml, and the settings that a checkpoint keeps.
A new name needs no new schema version, because files with the old name still load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Renamed:
    """A key, as "section.key", under its old and its new name; `values`: old value to new value, empty where equal."""

    old: str
    new: str
    values: Mapping[Any, Any]

    def value(self, old: object) -> object:
        """The new value of an old one. Raises ValueError for a value that the old key never had."""
        if not self.values:
            return old
        if not isinstance(old, str | bool | int) or old not in self.values:
            known = " or ".join(f'"{value}"' for value in self.values)
            raise ValueError(f"{self.old} = {old!r}: the old key is {known}; its new name is {self.new}")
        return self.values[old]


# schema version of the files: the keys that such a file may hold under an old name
RENAMED: dict[int, tuple[Renamed, ...]] = {
    1: (Renamed("training.document_borders", "training.document_masking", {"across": False, "cut": True}),),
}
OLD_NAMES = {renamed.old: renamed.new for version in RENAMED.values() for renamed in version}


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """A file's sections under today's key names; what is not renamed stays as it is, right or wrong.

    Raises ValueError for both names of one key, or a value that the old key never had.
    """
    found = dict(values)
    for renamed in RENAMED.get(_version(values), ()):
        section, _, old = renamed.old.partition(".")
        keys = found.get(section)
        if isinstance(keys, dict) and old in keys:
            found[section] = _replaced(keys, old, renamed.new.partition(".")[2], renamed)
    return found


def settings_with_new_names(settings: Mapping[str, Any], version: int = 1) -> dict[str, Any]:
    """A checkpoint's settings, by dotted name, under today's names. Raises ValueError as `with_new_names` does."""
    found = dict(settings)
    for renamed in RENAMED.get(version, ()):
        if renamed.old in found:
            found = _replaced(found, renamed.old, renamed.new, renamed)
    return found


def _version(values: Mapping[str, Any]) -> int:
    version = values.get("schema_version", 1)
    return version if isinstance(version, int) else 0


def _replaced(values: Mapping[str, Any], old: str, new: str, renamed: Renamed) -> dict[str, Any]:
    """The same keys in the same order, the old one under its new name and with its new value."""
    if new in values:
        raise ValueError(f"{renamed.old} is the old name of {renamed.new}: the file has both")
    return {new if key == old else key: renamed.value(each) if key == old else each for key, each in values.items()}
