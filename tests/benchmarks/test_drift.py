"""The drift report: what it writes for the installed PyTorch, and that it sees a change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import drift
from benchmarks.option_cases import Row, rows

ROW = Row("gpt2", "eager", "mixed-bf16", "none")


def test_it_writes_what_it_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drift, "rows", lambda: iter([ROW]))
    monkeypatch.setattr(drift, "long_rows", lambda: iter([ROW]))
    assert drift.main(["--out", str(tmp_path / "drift.json")]) == 0
    found = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))
    assert found["rows"] == found["exact"] == len(found["comparisons"]) >= 10 and found["different"] == []
    for row in found["comparisons"]:
        assert row["difference_bytes"] == row["predicted_bytes"] - row["replayed_bytes"]
    assert "comparisons exact" in capsys.readouterr().out


def test_it_sees_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyTorch that allocated one byte more than a scalar, or in another order."""
    seen = drift.pytorch_allocations
    monkeypatch.setattr(drift, "rows", lambda: iter([ROW]))
    monkeypatch.setattr(drift, "long_rows", lambda: iter([]))
    monkeypatch.setattr(drift, "pytorch_allocations", lambda config: [(s, live + 65) for s, live in seen(config)])
    assert drift.main(["--out", str(tmp_path / "drift.json")]) == 1
    monkeypatch.setattr(drift, "pytorch_allocations", lambda config: seen(config)[::-1])
    assert drift.main(["--out", str(tmp_path / "drift.json")]) == 1


def test_the_committed_report_is_of_these_cases() -> None:
    (path,) = drift.RESULTS.glob("drift-torch-2.13.0.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {row["case"] for row in found["comparisons"] if not row["case"].endswith("5 blocks")} == {
        row.id for row in rows()
    }
    assert found["rows"] == found["exact"] + len(found["different"]) == len(found["comparisons"])
