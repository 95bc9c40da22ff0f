"""Every record of a run directory in every bad form: each reader answers, or refuses with one message."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzzing.directories import whole_run
from planner.errors import PlanError
from planner.inputs.run_toml import load_config
from planner.printable import printable
from planner.runs.comparison_file import load_comparison
from planner.runs.execution_file import load_execution
from planner.runs.progress import Record, run_figures
from reference_trainer.checkpoint.atomic import newest_valid, problem_with
from reference_trainer.checkpoint.checkpoint import read_state
from reference_trainer.data.codecs import recorded_data
from reference_trainer.post_mortem import summary_of
from reference_trainer.step.rollbacks import load_rollbacks

Harm = Callable[[Path], object]


def _nested(file: Path) -> None:
    file.write_bytes(b"[" * 200_000)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


HARMS: dict[str, Harm] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "nested": _nested,
    "digits": lambda file: file.write_bytes(b'{"step": ' + b"9" * 100_000 + b"}\n"),
    "not finite": lambda file: file.write_bytes(b'{"step": 1, "loss": NaN}\n'),
    "another kind": lambda file: file.write_bytes(b'["\xed\xa0\x80"]'),
    "twice": lambda file: file.write_bytes(b'{"step": 1, "step": 2}'),
    "zeros": lambda file: file.write_bytes(b"\0" * 5000),
    "folder": _folder,
    "pipe": _pipe,
    "device": _device,
}


def readers(run: Path, checkpoint: Path) -> list[Callable[[], object]]:
    """Whatever reads a run directory, each to be called."""
    return [
        lambda: load_comparison(run),
        lambda: summary_of(run),
        lambda: load_execution(run),
        lambda: recorded_data(run),
        lambda: load_rollbacks(run / "rollbacks.json"),
        lambda: newest_valid(run / "checkpoints", lambda line: None),
        lambda: problem_with(checkpoint),
        lambda: read_state(checkpoint),
        lambda: load_config(run / "config.toml"),
        lambda: watch(run),
    ]


def watch(run: Path) -> None:
    """What the terminal planner reads."""
    record = Record(run)
    while record.read_on():
        pass
    run_figures(record)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name, content in whole_run().items():
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "run"


@pytest.mark.parametrize("harm", HARMS)
def test_fault_49_a_record_is_read_or_refused_with_one_message(run: Path, harm: str) -> None:
    checkpoint = max((run / "checkpoints").iterdir())
    records = [p for p in run.rglob("*") if p.suffix in (".json", ".jsonl", ".toml")]
    assert len(records) >= 8
    kept = {file: file.read_bytes() for file in records}
    refused = 0
    for file in records:
        HARMS[harm](file)
        for read in readers(run, checkpoint):
            try:
                read()
            except PlanError as error:
                refused += 1
                assert printable(error.message()) == error.message() and len(error.message()) < 2000
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()
        file.write_bytes(kept[file])
    assert refused >= 4


def test_fault_49_a_bad_line_of_a_log_is_counted_and_shown(run: Path) -> None:
    before: Any = summary_of(run)
    for name in ("metrics.jsonl", "events.jsonl"):
        with (run / name).open("ab") as file:
            file.write(b'{"step": 10000, "loss": NaN, "event": 1}\nhalf a row')
    after = summary_of(run)
    assert (after.steps, after.last_loss, after.skipped_lines) == (before.steps, before.last_loss, 4)
    record = Record(run)
    record.read_on()
    assert record.skipped_lines == 2  # the last lines may yet be written to their end


def test_fault_49_the_unharmed_run_is_read_by_every_reader(run: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    found = [read() for read in readers(run, checkpoint)]
    assert found[0] == load_comparison(run) and len(load_comparison(run).rows) == 2 and found[6] == ""
