"""Every file in benchmarks/results has the same header, made by benchmarks/header.py, and null has a reason."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from benchmarks import header as module
from benchmarks.header import PACKAGES, ROOT, header, write

RESULTS = ROOT / "benchmarks" / "results"
KEYS = {"date", "commit", "command", "cpu", "cores", "memory_bytes", "versions"}


def results() -> list[str]:
    """All results but the headers of text."""
    files = [path for path in sorted(RESULTS.rglob("*")) if path.is_file() and not path.name.endswith("header.json")]
    return [str(path.relative_to(RESULTS)) for path in files]


def header_of(name: str) -> dict[str, Any]:
    path = RESULTS / name
    if path.parent == RESULTS and path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        assert next(iter(found)) == "header", "the header stands first"
        return found["header"]
    beside = path.with_suffix(".header.json") if path.parent == RESULTS else path.parent / "header.json"
    return json.loads(beside.read_text(encoding="utf-8"))


def check(found: dict[str, Any]) -> None:
    """Every key has a value of its type, or is null with a reason."""
    notes = found.get("notes", {})
    assert set(found) - {"notes"} == KEYS
    assert set(found["versions"]) == {"python", *PACKAGES}
    flat = found | {f"versions.{name}": value for name, value in found["versions"].items()}
    assert {key for key, value in flat.items() if value is None} <= set(notes) <= set(flat)
    assert all(isinstance(reason, str) and reason for reason in notes.values())
    assert date(2026, 11, 1) <= date.fromisoformat(found["date"])
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    for key in ("cores", "memory_bytes"):
        assert found[key] is None or (isinstance(found[key], int) and found[key] > 0)
    for key in ("command", "cpu", *(key for key in flat if key.startswith("versions."))):
        assert flat[key] is None or (isinstance(flat[key], str) and flat[key])
    assert str(Path.home()) not in json.dumps(found)


@pytest.mark.parametrize("name", results())
def test_every_result_has_the_header(name: str) -> None:
    found = header_of(name)
    check(found)
    assert found["commit"] is not None and found["versions"]["gptplan"] is not None


def test_no_header_is_without_its_result() -> None:
    for path in RESULTS.glob("*.header.json"):
        name = path.name.removesuffix(".header.json")
        assert [p for p in RESULTS.glob(f"{name}.*") if p != path], path


def test_a_new_result_begins_with_the_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write({"rows": [1]}, tmp_path / "new.json")
    write({"rows": [1]}, None)
    text = (tmp_path / "new.json").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    found = json.loads(text)
    assert list(found) == ["header", "rows"]
    check(found["header"])


def test_what_the_machine_does_not_tell_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cpu", lambda: None)
    monkeypatch.setattr(module, "_version", lambda package: None if package == "torch" else "1")
    found = header(["make", "demo"])
    check(found)
    assert found["command"] == "make demo"
    assert found["notes"] == {"cpu": "this machine does not tell", "versions.torch": "not installed"}
