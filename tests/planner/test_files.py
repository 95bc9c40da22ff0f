"""Reading and writing files: the system's reason stands in the message, or the error's own words where it has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from planner.errors import FileError
from planner.files import read_text, write_atomically

ERRORS = [(OSError(5, "Input/output error", "x"), "Input/output error"), (OSError("it is gone"), "it is gone")]


@pytest.mark.parametrize("error, why", ERRORS)
def test_a_file_that_cannot_be_read_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError, why: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "x").write_text("text")
    for function in ("read_text", "read_bytes", "open"):
        monkeypatch.setattr(Path, function, fail)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(FileError, match="cannot be read") as caught:
        read_text(tmp_path / "x")
    assert caught.value.why == why


@pytest.mark.parametrize("error, why", ERRORS)
def test_a_file_that_cannot_be_written_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError, why: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(FileError, match="cannot be written") as caught:
            write_atomically(tmp_path / "x", "text")
    assert caught.value.why == why and not list(tmp_path.iterdir())
