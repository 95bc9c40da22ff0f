"""Streams that cannot be written: closed, full, or without a reader. Neither work nor exit code depends on them.

Of the ways in which training is tried, a full disk and closed streams are in `make test`, a lost reader in `make soak`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import some

GPTPLAN = [sys.executable, "-m", "gptplan"]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
BROKEN = ["{} >/dev/full 2>/dev/full", "{} >&- 2>&-", "{} 2>&- | head -c 0"]
HARMLESS = [["--help"], ["--version"], ["run", "--help"], ["estimate", "--help"]]


def shell(command: str, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command with its streams broken, run by a shell; the exit code is that of `gptplan`, not of `head`."""
    spelled = " ".join(["set -o pipefail;", command.format(" ".join(f"'{word}'" for word in (*GPTPLAN, *words)))])
    return subprocess.run(["bash", "-c", spelled], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


@FULL
@pytest.mark.parametrize("streams", BROKEN)
def test_fault_40_help_and_version_end_as_ever(streams: str, tmp_path: Path) -> None:
    for words in HARMLESS:
        done = shell(streams, words, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), words


@FULL
def test_fault_40_a_mistake_is_2_whoever_listens(tmp_path: Path) -> None:
    for streams in BROKEN:
        assert shell(streams, ["estimate", "--params", "nonsense"], tmp_path).returncode == 2


@FULL
def test_a_result_that_nobody_got_is_an_error(tmp_path: Path) -> None:
    words = ["estimate", "--params", "125M", "--tokens", "10B"]
    full = shell("{} >/dev/full", words, tmp_path)
    assert full.returncode == 2 and "cannot be written to stdout" in full.stderr and "Traceback" not in full.stderr
    assert shell("{} | head -c 1", words, tmp_path).returncode == 0


@FULL
@pytest.mark.parametrize("streams", some(BROKEN, lambda streams: "head" not in streams))
def test_fault_40_training_goes_on(
    streams: str, tmp_path: Path, machine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages, the comparison and the error of another run: none can be written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine_cache))
    (tmp_path / "text.txt").write_text("the quick brown fox " * 40)
    shape = ["--layers", "1", "--hidden", "16", "--heads", "1", "--vocab", "256", "--seq", "16", "--steps", "3"]
    plan = ["plan", *shape, "--micro-batch", "1", "--accumulation", "1", "--gpu", "cpu", "--peak-lr", "1e-3"]
    planned = shell("{}", [*plan, "-o", "run.toml"], tmp_path)
    assert planned.returncode == 0, planned.stderr
    done = shell(streams, ["run", "run.toml", "--out", "run", "--data", "text.txt", "--device", "cpu"], tmp_path)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert events[-1] == "finished" and (tmp_path / "run" / "report.md").exists()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]  # and no message among them: descriptor 2 was free
