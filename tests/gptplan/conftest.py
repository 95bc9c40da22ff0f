"""The program, called in this process: exit code and output, without starting a new Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gptplan.app import main
from tests.gptplan.calling import BASE, Call, Said


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Calls `gptplan` with these words, in an empty directory, on a machine without GPU and without profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["gptplan", *words])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def run_toml(call: Call, tmp_path: Path) -> Path:
    """A good run.toml."""
    assert call("plan", *BASE, "-o", "run.toml").code == 0
    return tmp_path / "run.toml"
