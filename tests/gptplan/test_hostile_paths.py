"""Paths and texts that no person types on purpose: one message each, exit code 2, nothing left behind."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import gptplan
from gptplan.app import application
from gptplan.output import log_line
from planner.errors import FileError, InputError
from planner.files import read_text
from planner.inputs.detect import machine_gpu
from planner.paths import exists, is_file, is_folder, is_link
from planner.runs.directory import log_lines
from reference_trainer.sampling import Sampling, refuse_invalid, sample
from tests.gptplan.calling import BASE, Call
from tests.soak import one_in

LONG_NAME, LONG_PATH = "n" * 300, "d/" * 3000 + "x"
NOT_UTF8 = "bad-\udcff-name"  # as Python shows bytes of a name that are not UTF-8

# where a path is read, and where one is written: the command with "PATH" in the path's place
READS = {
    "estimate --config": ("estimate", "--config", "PATH"),
    "estimate --hf-config": ("estimate", "--hf-config", "PATH", "--tokens", "1B", "--gpu", "a100-80gb"),
    "explain": ("explain", "memory.peak_requested_bytes", "--config", "PATH"),
    "flops": ("flops", "--config", "PATH"),
    "batch": ("batch", "--config", "PATH"),
    "schedule": ("schedule", "--config", "PATH"),
    "groups": ("groups", "PATH"),
    "data SOURCE": ("data", "PATH", "-o", "out"),
    "data tokens": ("data", "PATH"),
    "data --tokenizer": ("data", "text.txt", "--tokenizer", "PATH", "-o", "out"),
    "trace": ("trace", "PATH"),
    "preflight": ("preflight", "PATH"),
    "preflight --data": ("preflight", "run.toml", "--data", "PATH"),
    "lr-find": ("lr-find", "PATH"),
    "run": ("run", "PATH", "--out", "out"),
    "run --resume": ("run", "--resume", "PATH"),
    "run --data": ("run", "run.toml", "--out", "out", "--data", "PATH"),
    "run --tokenizer": ("run", "run.toml", "--out", "out", "--data", "text.txt", "--tokenizer", "PATH"),
    "sample": ("sample", "PATH"),
    "compare": ("compare", "PATH"),
    "compare --log": ("compare", "--log", "PATH", "--config", "run.toml"),
    "compare --profile": ("compare", "--profile", "PATH", "--config", "run.toml"),
    "compare --config": ("compare", "--log", "text.txt", "--config", "PATH"),
    "postmortem": ("postmortem", "PATH"),
    "export": ("export", "PATH", "-o", "out"),
    "import": ("import", "PATH"),
    "export --to": ("export", "PATH", "--to", "nanogpt", "-o", "out"),
    "tui": ("tui", "PATH"),
}
CURVE = ("schedule", "--kind", "cosine", "--peak-lr", "1e-3", "--steps", "100", "--warmup-steps", "10")
WRITES = {
    "plan -o": ("plan", *BASE, "-o", "PATH"),
    "plan --force": ("plan", *BASE, "-o", "PATH", "--force"),
    "schedule --csv --force": (*CURVE, "--csv", "PATH", "--force"),
    "data -o": ("data", "text.txt", "-o", "PATH"),
    "run --out": ("run", "run.toml", "--out", "PATH", "--data", "text.txt", "--device", "cpu"),
    "demo --out": ("demo", "--out", "PATH"),
    "import -o": ("import", "train.py", "-o", "PATH"),
    "export -o": ("export", "run", "-o", "PATH"),
}


TINY = (
    "--layers",
    "1",
    "--hidden",
    "16",
    "--heads",
    "1",
    "--vocab",
    "256",
    "--seq",
    "16",
    "--steps",
    "3",
    "--gpu",
    "cpu",
)


@pytest.fixture
def hostile(call: Call, run_toml: Path, tmp_path: Path) -> Path:
    """A folder with everything that is hostile in it, a good run.toml and a text."""
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 100)
    (tmp_path / "train.py").write_text("batch_size = 8\ngradient_accumulation_steps = 4\n")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


HOSTILE = {
    "name too long": LONG_NAME,
    "path too long": LONG_PATH,
    "below a name too long": f"{LONG_NAME}/run.toml",
    "loop": "loop",
    "below a loop": "loop/run.toml",
    "below a file": "text.txt/run.toml",
    "not UTF-8": NOT_UTF8,
}


# every command with some kinds, every kind with some commands: one function reads them all
PAIRS = one_in(7, [(words, kind) for words in READS for kind in HOSTILE])


@pytest.mark.parametrize(("command", "kind"), PAIRS)
def test_fault_48_a_path_that_cannot_be_read(call: Call, hostile: Path, command: str, kind: str) -> None:
    words = READS[command]
    if words[:2] == ("preflight", "run.toml") and kind != "loop":
        pytest.skip("builds a whole model each time, and reads the path as run --data does")
    if words[:2] == ("preflight", "run.toml"):
        assert call("plan", *TINY, "-o", "run.toml", "--force").code == 0
    path = HOSTILE[kind]
    before = sorted(os.listdir(hostile))
    said = call(*(path if word == "PATH" else word for word in words))
    if words[:2] == ("preflight", "run.toml"):  # a report with a check that failed
        assert said.code == 1 and "FAIL" in said.out.upper(), said
        return
    assert said.code == 2 and said.err.count("error: ") == 1 and "Traceback" not in said.err, said
    assert (len(said.err) < 4000 and said.err.replace("\n", "").isprintable()) or "\ufffd" in said.err, said.err
    assert sorted(os.listdir(hostile)) == before


NOT_WRITTEN = {kind: path for kind, path in HOSTILE.items() if kind != "not UTF-8"}  # a good name, to the system
NOT_WRITTEN |= {"pipe": "pipe", "below a pipe": "pipe/x", "below a device": "/dev/null/x"}


@pytest.mark.parametrize("words", WRITES.values(), ids=WRITES)
def test_fault_48_a_path_that_cannot_be_written(
    call: Call, hostile: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work: neither is this machine measured nor a model built."""
    monkeypatch.setattr("reference_trainer.demo.sized_config", None)
    monkeypatch.setattr("reference_trainer.execute.adapt_to_device", None)
    before = sorted(os.listdir(hostile))
    for kind, path in NOT_WRITTEN.items():
        if not (kind == "loop" and "--force" in words):  # the link itself is replaced, as asked
            call(*(path if word == "PATH" else word for word in words)).refused()
    assert sorted(os.listdir(hostile)) == before and (hostile / "pipe").is_fifo()


def test_fault_48_every_path_that_is_written_is_refused_with_a_sign_of_the_shell_in_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--out=~/x` and `"~/x"` are not expanded by a shell: a folder called ~ is a trap."""
    monkeypatch.setenv("HOME", "/home/somebody")
    for path in ("~", "~/run.toml"):
        call("plan", *BASE, "-o", path).refused("the shell", "/home/somebody")
    assert call("plan", *BASE, "-o", "~nobody-of-this-name").code == 0
    written = {
        (name, option)
        for name, command in typer.main.get_command(application()).commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in {"--out", "--output", "--csv", "--plot"} & set(parameter.opts)
    }
    assert len(written) == 14
    for command, option in written:
        call(command, option, "~/x").refused("the shell", "/home/somebody/x")


def test_fault_48_a_long_name_that_the_system_takes(call: Call, tmp_path: Path) -> None:
    for name in ("n" * 250 + ".toml", "ü" * 125 + ".toml"):
        assert call("plan", *BASE, "-o", name).code == 0 and (tmp_path / name).is_file()


def test_fault_48_a_name_that_is_not_utf_8(call: Call, hostile: Path) -> None:
    os.rename(hostile / "run.toml", hostile / NOT_UTF8)
    said = call("estimate", "--config", NOT_UTF8)
    assert (said.code == 0 and said.out.isascii()) or said.out.encode()
    assert call("plan", *BASE, "-o", NOT_UTF8 + "2").code == 0 and (hostile / (NOT_UTF8 + "2")).is_file()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ELOOP])
def test_fault_48_a_file_that_the_system_refuses(
    call: Call, run_toml: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Root may read everything: the refusal is made up; the next test has a real one."""
    real = os.open

    def refused(file: Any, *args: Any, **named: Any) -> Any:
        if str(file).endswith("run.toml"):
            raise OSError(number, os.strerror(number), str(file))
        return real(file, *args, **named)

    monkeypatch.setattr(os, "open", refused)
    call("estimate", "--config", "run.toml").refused(os.strerror(number))


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping the rights of root needs them")
def test_fault_48_a_folder_without_permission(run_toml: Path, tmp_path: Path) -> None:
    """As nobody, in a child: neither found nor opened, and no traceback."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(run_toml, closed / "run.toml")
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            found = [
                exists(closed / "run.toml"),
                is_file(closed / "run.toml"),
                is_folder(closed),
                is_link(closed / "a"),
            ]
            try:
                read_text(closed / "run.toml")
            except FileError as error:
                code = 0 if found == [False, False, True, False] and "Permission denied" in error.why else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_fault_48_what_is_there_is_asked_without_an_exception(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name in (*HOSTILE.values(), "a\0b"):
        path = tmp_path / name
        assert not (exists(path) or is_file(path) or is_folder(path))
        assert is_link(path) == (name == "loop")
    assert exists(tmp_path / "file") and is_file(tmp_path / "file") and is_folder(tmp_path)
    with pytest.raises(FileError, match="cannot be read"):
        read_text(Path("a\0b"))


def test_fault_48_nobody_asks_pathlib() -> None:
    """`path.exists()` raises for a name that is too long; planner/paths.py does not. `entry` is an os.DirEntry."""
    root = Path(gptplan.__file__).parent.parent
    found = []
    for package in ("planner", "gptplan", "reference_trainer", "tui"):
        for source in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)) or node.args:
                    continue
                asked = node.func.attr in {"exists", "is_file", "is_dir", "is_symlink"}
                if asked and getattr(node.func.value, "id", "") != "entry":
                    found.append(f"{source.name}:{node.lineno}")
    assert not found


# --- text -------------------------------------------------------------------------------------------------------------

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def no_control(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


def test_fault_48_no_control_character_reaches_the_terminal(call: Call, run_toml: Path, tmp_path: Path) -> None:
    config = run_toml.read_text()
    quoted = json.dumps(f"evil{ESCAPE}")
    run_toml.write_text(re.sub(r"(?m)^name = .*$", lambda _: f"name = {quoted}", config, count=1))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": f"gpt{ESCAPE}2", "architectures": [ESCAPE]}))
    (tmp_path / "bad.toml").write_text(f'[model]\nname = "x"\n"{"key"}\\u001b[2J" = 1\n')
    (tmp_path / f"x{ESCAPE}.toml").write_text("no = toml = file")
    for words in (
        ("estimate", "--config", "run.toml"),
        ("flops", "--config", "run.toml"),
        ("estimate", "--hf-config", "config.json", "--tokens", "1B", "--gpu", "a100-80gb"),
        ("estimate", "--config", "bad.toml"),
        ("estimate", "--config", f"x{ESCAPE}.toml"),
        ("estimate", "--model", f"gpt{ESCAPE}", "--tokens", "1B"),
        ("compare", f"x{ESCAPE}"),
    ):
        said = call(*words)
        assert no_control(said.out) and no_control(said.err) and said.out + said.err, words
    log_line(f"a line of a log{ESCAPE}")
    (tmp_path / "run.log").write_text(f"$ gptplan run\nstep 1 {ESCAPE}\n")
    assert all(no_control(line) for line in log_lines(tmp_path / "run.log"))


def test_fault_48_a_driver_that_answers_in_another_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf 'NVIDIA \\377\\033[2J\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    with pytest.raises(InputError, match="is in no preset") as caught:
        machine_gpu()
    assert no_control(caught.value.message())


def test_fault_48_seeds_beyond_64_bits(call: Call) -> None:
    for seed in (2**63, 2**64, 10**40):
        call("estimate", *BASE, "--seed", str(seed)).refused("seed")
        with pytest.raises(InputError, match="is out of range"):
            refuse_invalid(Sampling(seed=seed))
    with pytest.raises(InputError, match="is out of range"):
        refuse_invalid(Sampling(seed=2**63 - 2, samples=3))
    refuse_invalid(Sampling(seed=2**63 - 3, samples=3))


def test_fault_48_a_prompt_that_is_not_utf_8(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not text"):
        sample(tmp_path, "to be \udcff", Sampling(), torch.device("cpu"), print)
