"""The file of measured rows: every row of the default file is read, and an unusable file is one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import accuracy, accuracy_setup, memory_rows
from tests.benchmarks.made_rows import GPT2, written

MALFORMED = {
    "cannot read": None,
    "is empty": "",
    "has no column source_group": "id,task\n1,pretrain\n",
    "n_layers is 'twelve'": GPT2 | {"n_layers": "twelve"},
    "micro_batch is '2.5'": GPT2 | {"micro_batch": "2.5"},
    "hidden is 'nan'": GPT2 | {"hidden": "nan"},
    "tied is 'yes'": GPT2 | {"tied": "yes"},
    "peak_gib_per_gpu_min is '-1'": GPT2 | {"peak_gib_per_gpu_min": "-1"},
    "are no range": GPT2 | {"peak_gib_per_gpu_min": "9"},
    "id is blank": GPT2 | {"id": ""},
}


@pytest.mark.parametrize("message", MALFORMED)
def test_a_file_that_cannot_be_used_is_one_message(
    tmp_path: Path, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, path = MALFORMED[message], tmp_path / "rows.csv"
    if isinstance(content, dict):
        path = written(tmp_path, content)
    elif content is not None:
        path.write_text(content, encoding="utf-8")
    assert accuracy.main(["--memory", str(path), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and message in shown.err and shown.err.count("fix:") == 1


def test_bytes_and_ragged_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfe\x00id")
    assert accuracy.main(["--memory", str(path)]) == 2
    path = written(tmp_path, GPT2)
    path.write_text(path.read_text(encoding="utf-8") + "1,2,3\n", encoding="utf-8")
    assert accuracy.main(["--memory", str(path)]) == 2
    assert "line 3: not as many cells" in capsys.readouterr().err


def test_every_row_of_the_default_file_is_read_and_its_card_known() -> None:
    rows = memory_rows.read_rows(accuracy.DEFAULT)
    assert len({r.id for r in rows}) == len(rows) >= 50
    assert all(r.source and r.task == "pretrain" for r in rows)
    assert sum(r.n_gpus == 1 for r in rows) == 56 and sum((r.n_gpus or 0) > 1 for r in rows) >= 140
    assert not [r.id for r in rows if accuracy_setup.gpu_of_row(r) == ""]
