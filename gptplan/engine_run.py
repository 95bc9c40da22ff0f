"""`gptplan run --engine`: a run.toml exported, checked by the engine itself, started if it is installed, compared."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gptplan.output import log_line
from planner.errors import FileError, InputError, UnknownNameError
from planner.paths import exists, is_folder

if TYPE_CHECKING:
    from planner.config.run import RunConfig

RUNNABLE = ("torchtitan",)
LOG = "train.log"
PATIENCE = 60.0  # seconds that the engine has to end after a signal
# read by the engine's own Python: its words, then the GPUs that it sees
_CHECK = """\
import sys
from torchtitan.config import ConfigManager
ConfigManager().parse_args(sys.argv[1:])
import torch
print("GPUS", torch.cuda.device_count())
"""


def run_engine(
    config: Path | None, out: Path | None, engine: str | None, words: str | None, ours: Mapping[str, object], *,
    as_json: bool,
) -> int:  # fmt: skip
    """The exit code of a run by another engine; its log beside the plan is shown.

    ours: options of our trainer, none of which may be given. Raises PlanError for what cannot be run, nothing written.
    """
    from gptplan.request import request_of
    from gptplan.result_files import write_folder
    from planner.engines.export import engine_export

    if engine is None:
        raise InputError(
            "--engine-args needs --engine", why="our trainer has options of its own", remedy="add --engine"
        )
    if engine not in RUNNABLE:
        raise UnknownNameError(
            "engine to run", engine, RUNNABLE, meant="others: gptplan export --to NAME, bash launch.sh"
        )
    given = [name for name, value in ours.items() if value not in (None, False)]
    if given:
        raise InputError(
            f"{' and '.join(given)} beside --engine",
            why=f"our trainer has it, {engine} has options of its own",
            remedy="leave it out, or say it with --engine-args",
        )
    request = request_of(config, out, None, None)
    _refuse_filled(request.directory)
    done = engine_export(request.config, engine)
    try:
        more = shlex.split(words or "")
    except ValueError as error:
        raise InputError("--engine-args is cut short", why=str(error), remedy="close its quotes") from None
    _check(request.config, done.files, engine, more, str(config))
    write_folder(request.directory, done.files, False)
    for one in done.differences:
        log_line(f"otherwise there: {one}")
    code = _started(request.directory, more)
    _compare(request.config, request.directory / LOG, engine, as_json)
    return code


def _refuse_filled(directory: Path) -> None:
    if exists(directory) and (not is_folder(directory) or any(directory.iterdir())):
        raise FileError(f"{directory} exists already", why="a run begins in a new folder", remedy="give another name")


def _check(config: RunConfig, files: Mapping[str, str], engine: str, words: list[str], source: str) -> None:
    """Raises InputError where the engine is not installed, refuses its files, or has too few GPUs here."""
    from planner.engines.engine import machines_of
    from planner.engines.export import ENGINES
    from planner.engines.torchtitan_module import MODULE

    known, machines = ENGINES[engine], machines_of(config)
    export = f"gptplan export {shlex.quote(source)} --to {engine} -o DIR"
    try:
        found = version(engine)
    except PackageNotFoundError:
        raise InputError(
            f"{engine} is not installed here",
            why=f"this Python would run: {' '.join((*_PYTHON, *known.start(config).words, *words))}",
            remedy=f"{known.install[0]}; or take the files to where it is: {export}",
        ) from None
    if found != known.version:
        log_line(f"{engine} {found} is installed; the files are written for {known.version}")
    missing = [name for name in ("NODE_RANK", "HEAD") if machines.nodes > 1 and name not in os.environ]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} is not set",
            why=f"the run has {machines.nodes} nodes, and this is one of them",
            remedy=f"set them on each node, or use a launcher: {export} --launcher slurm",
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        asked = [*_PYTHON, "-c", _CHECK, "--module", MODULE, "--config", "run", *words]
        done = subprocess.run(
            asked, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False, errors="replace"
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise InputError(f"{engine} refuses the run", why=last[:400], remedy="mend --engine-args, or the run.toml")
    gpus = int(done.stdout.rpartition("GPUS")[2].split()[0])
    if gpus < machines.processes:
        raise InputError(
            f"{machines.processes} GPUs are needed here, {gpus} are seen",
            why="each process has one of its own",
            remedy=f"set hardware.gpus, or take the files to where the GPUs are: {export}",
        )


_PYTHON = (sys.executable,)


def _environment(folder: str) -> dict[str, str]:
    """This environment, where `python` and `torchrun` are those beside this Python, and the module is found."""
    before = os.environ.get("PYTHONPATH")
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": folder if before is None else f"{folder}{os.pathsep}{before}",
        "PYTHONUNBUFFERED": "1",
    }


def _started(directory: Path, words: list[str]) -> int:
    """The exit code of launch.sh; what it prints goes to stderr and to train.log. It is ended when we are."""
    command = [shutil.which("bash") or "/bin/bash", str(directory.resolve() / "launch.sh"), *words]
    environment = _environment(str(directory.resolve()))
    with (
        open(directory / LOG, "xb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as child,
    ):
        assert child.stdout is not None
        try:
            _copied(child.stdout, log)
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    child.kill()
    return code if code >= 0 else 128 - code


def _copied(source: IO[bytes], log: IO[bytes]) -> None:
    while chunk := source.read1(1 << 16):  # type: ignore[attr-defined]
        log.write(chunk)
        log.flush()
        sys.stderr.write(chunk.decode(errors="replace"))
        sys.stderr.flush()


def _compare(config: RunConfig, log: Path, engine: str, as_json: bool) -> None:
    """Show the log beside the plan, if it has steps."""
    from dataclasses import asdict

    from gptplan.output import json_text, show_if_possible
    from planner.plan import estimate
    from planner.report.comparison import comparison_lines
    from planner.runs.logs.compare import compare_log
    from planner.runs.logs.read import read_log

    try:
        read = read_log(log, engine)
    except FileError as error:
        log_line(error.message())
        return
    comparison = compare_log(estimate(config, replay=True), read)
    show_if_possible(json_text(asdict(comparison)) if as_json else comparison_lines(comparison))
    log_line(f"log: {log}")
