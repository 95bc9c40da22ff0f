"""Reading files while another process writes them gives the same rows at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.runs.directory import (
    Place,
    catches,
    follow,
    is_run,
    last_error,
    log_lines,
    new_directory,
    owner_of,
    resident_bytes,
    runs_in,
)
from tests.examples import examples
from tests.processes import child

ROWS = st.lists(
    st.one_of(
        st.builds(lambda step, name: json.dumps({"step": step, "name": name}), st.integers(0, 99), st.text(max_size=9)),
        st.builds(lambda name: json.dumps({"ä": name}, ensure_ascii=False), st.text("äß→x", max_size=9)),
        st.sampled_from(["", "not json", "[1, 2]", "{"]),
    ),
    max_size=12,
)


def objects(lines):
    found = []
    for line in lines:
        try:
            read = json.loads(line)
        except ValueError:
            continue
        found += [read] if isinstance(read, dict) and "step" in read else []
    return found


@examples(50)
@given(lines=ROWS, cuts=st.lists(st.integers(0, 400), max_size=8), most=st.integers(1, 64))
def test_any_split_into_appended_pieces_gives_the_same_rows(tmp_path_factory, lines, cuts, most):
    whole = "".join(line + "\n" for line in lines).encode()
    path = tmp_path_factory.mktemp("f") / "metrics.jsonl"
    ends = sorted({min(c, len(whole)) for c in cuts} | {len(whole)})
    place, rows = Place(), []
    with path.open("ab") as file:
        for start, end in zip([0, *ends], ends, strict=False):
            file.write(whole[start:end])
            file.flush()
            while True:
                found = follow(path, place, most)
                assert not found.anew
                rows += found.rows
                stuck, place = found.place == place, found.place
                if stuck:
                    break
    assert rows == objects(lines)
    assert place.offset == len(whole)


@examples(30)
@given(before=st.integers(1, 30), kept=st.integers(0, 29), after=st.integers(0, 40))
def test_a_rewritten_file_is_read_from_its_beginning(tmp_path_factory, before, kept, after):
    """As --resume does: fewer rows, then others in the place of those that were dropped."""
    path = tmp_path_factory.mktemp("f") / "metrics.jsonl"
    kept = min(kept, before - 1)
    old = [json.dumps({"step": i, "loss": 1.5}) + "\n" for i in range(before)]
    path.write_text("".join(old))
    first = follow(path, Place())
    assert len(first.rows) == before
    new = old[:kept] + [json.dumps({"step": kept + i, "loss": 2.5}) + "\n" for i in range(after)]
    path.write_text("".join(new))
    again = follow(path, first.place)
    assert again.anew
    assert [row["step"] for row in again.rows] == list(range(len(new)))


def test_a_torn_last_line_waits_for_its_end(tmp_path):
    path = tmp_path / "events.jsonl"
    assert follow(path, Place()).rows == ()  # not there yet
    path.write_text('{"step": 1, "event": "a"}\n{"st')
    first = follow(path, Place())
    assert first.rows == ({"step": 1, "event": "a"},) and not first.more
    with path.open("a") as file:
        file.write('ep": 2, "event": "b"}\n')
    second = follow(path, first.place)
    assert second.rows == ({"step": 2, "event": "b"},) and not second.anew
    path.unlink()
    gone = follow(path, second.place)
    assert gone.anew and gone.rows == () and gone.place == Place()


def test_the_owner_is_who_holds_the_lock(tmp_path):
    assert owner_of(tmp_path) is None
    lock = tmp_path / "run.lock"
    lock.write_text(f"{os.getpid()}\n")
    assert owner_of(tmp_path) is None  # lives, and holds nothing: the id was given to another process
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); f.truncate(0); " \
           "import os; f.write(str(os.getpid())); f.flush(); print('held', flush=True); sys.stdin.read()"  # fmt: skip
    with child([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert owner_of(tmp_path) == holder.pid
        assert 1 << 20 < (resident_bytes(holder.pid) or 1 << 21) < 1 << 32
        holder.kill()
    assert owner_of(tmp_path) is None
    for text in ("", "no number", "-5", "999999999999999999999"):
        lock.write_text(text)
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert owner_of(tmp_path) is None


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells")
def test_whether_a_signal_is_caught_is_asked_of_the_kernel():
    assert catches(os.getpid(), signal.SIGUSR1) is False
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert catches(os.getpid(), signal.SIGUSR1) is True
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert catches(2**22 + 1, signal.SIGUSR1) is None


def test_runs_are_found_two_floors_deep_the_latest_first(tmp_path):
    for i, name in enumerate(("old", "runs/new", "runs/deep/er", ".hidden")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.toml").write_text("")
        os.utime(tmp_path / name / "config.toml", (i, i))
    (tmp_path / "empty").mkdir()
    assert [p.relative_to(tmp_path).as_posix() for p in runs_in(tmp_path)] == ["runs/new", "old"]
    assert is_run(tmp_path / "old") and not is_run(tmp_path / "empty") and not is_run(tmp_path / "none")
    assert runs_in(tmp_path / "none") == ()


def test_a_new_directory_has_nothing_beside_it(tmp_path):
    assert new_directory(tmp_path, "a").name == "a-1"
    (tmp_path / "a-1.log").write_text("")
    (tmp_path / "a-2").mkdir()
    assert new_directory(tmp_path, "a").name == "a-3"


def test_the_log_is_that_of_the_last_command(tmp_path):
    path = tmp_path / "run.log"
    assert log_lines(path) == []
    path.write_bytes(b"$ one\nerror: old\n$ two\nbar 1\rbar 2\n\x1b[31mred\x1b[0m\n\xff\n")
    assert log_lines(path) == ["$ two", "bar 2", "red", "�"]


def test_the_last_error_is_its_block_or_the_last_line():
    assert last_error(["$ x", "error: a", "error: b", "  why: c", "  fix: d", "bye"]) == [
        "error: b",
        "  why: c",
        "  fix: d",
    ]
    assert last_error(["$ x", "Traceback", '  File "a"', "ValueError: b"]) == ["ValueError: b"]
    assert last_error(["$ x"]) == []
