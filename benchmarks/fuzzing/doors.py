"""What is done with an input, and what may come of it: an answer or one message; no traceback, no hang, no flood."""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.fuzzing import command_lines, directories, files
from benchmarks.fuzzing.given import Given
from planner.errors import PlanError

CPU_SECONDS = 20  # of one input: far above what any needs, so that a busy machine is no failure
LONGEST = 200_000  # characters of an answer
MEMORY = 3 << 30  # bytes of data of a process that tries inputs
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202e]")


@dataclass(frozen=True)
class Door:
    """A way in. draw: makes an input; enter: tries it in its folder, and returns "answered" or "refused"."""

    draw: Callable[[random.Random], Given]
    enter: Callable[[Given, Path], str]
    share: float  # of all inputs


class TooLongError(BaseException):
    """The input took more than CPU_SECONDS; no `except Exception` of the program catches it."""


class Broken(Exception):
    """What came of an input is neither an answer nor one message."""


def outcome(given: Given, folder: Path) -> tuple[str, str]:
    """What came of an input in an empty folder: "answered", "refused" or "failed", and then how, else nothing."""
    try:
        with _limited():
            return DOORS[given.part].enter(given, given.written(folder)), ""
    except PlanError as error:
        wrong = _wrong_message(error.message())
        return ("failed", wrong) if wrong else ("refused", "")
    except Broken as error:
        return "failed", str(error)
    except (Exception, TooLongError) as error:
        return "failed", signature(error)


def signature(error: BaseException) -> str:
    """An exception's kind and the innermost place in our code: equal for equal faults."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    ours = [f for f in frames if re.search(r"/(planner|gptplan|reference_trainer|tui)/", f.filename)]
    places = [
        f"{re.sub(r'.*/(?=planner/|gptplan/|reference_trainer/|tui/)', '', f.filename)}:{f.name}" for f in ours[-2:]
    ]
    return f"{type(error).__name__} in {' > '.join(places) or 'the test'}: {str(error)[:100]}"


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError(f"more than {CPU_SECONDS} CPU seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory() -> None:
    """Give this process no more than MEMORY; what wants more fails as MemoryError."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _wrong_message(text: str) -> str:
    """Why a message is none for people; empty if it is."""
    if CONTROLS.search(text):
        return f"a control character in a message: {CONTROLS.search(text)!r}"
    return f"a message of {len(text)} characters" if len(text) > 20_000 else ""


# --- the doors --------------------------------------------------------------------------------------------------------


def by_command(given: Given, folder: Path) -> str:
    """The command with these words, in this process."""
    from tests.gptplan.calling import called

    said = called(given.words, folder, folder / "cache")
    if said.code not in (0, 1, 2) or "Traceback" in said.out + said.err:
        raise Broken(f"exit code {said.code}: {said.err[-200:]}")
    wrong = _wrong_message(said.err) or ("" if len(said.out) < LONGEST else f"an answer of {len(said.out)} characters")
    if wrong:
        raise Broken(wrong)
    if said.code == 2:
        message = re.findall(r"^(?:error: |Usage: |╭─ Error)", said.err, re.MULTILINE)
        if said.out or not message or message.count("error: ") > 1:
            raise Broken(f"no message alone: {said.out[:100]!r}, {said.err[:200]!r}")
        return "refused"
    if "--json" in given.words and said.out.startswith("{"):
        json.loads(said.out, parse_constant=_refuse_constant)
    return "answered"


def draft_options(given: Given, folder: Path) -> str:
    """The config of options as text, and its plan: what the command does, without Typer and without text."""
    from planner.inputs.draft import draft
    from planner.inputs.flags import Flags
    from planner.plan import estimate

    typed = dict(word.split("=", 1) for word in given.words)
    estimate(draft(Flags(**typed), as_of="2026-11-27", version="0"))
    return "answered"


def _refuse_constant(word: str) -> None:
    raise Broken(f"{word} in JSON")


def read_hf_config(given: Given, folder: Path) -> str:
    """The model of a config.json, and its parameters."""
    if given.words:
        return by_command(given, folder)
    from planner.counts.parameters import parameters_of
    from planner.inputs.huggingface import hf_model

    parameters_of(hf_model(folder / "config.json").model)
    return "answered"


def read_run_toml(given: Given, folder: Path) -> str:
    """The config of a run.toml, and its plan."""
    if given.words:
        return by_command(given, folder)
    from planner.inputs.run_toml import load_config
    from planner.plan import estimate

    estimate(load_config(folder / "run.toml"))
    return "answered"


def read_training_data(given: Given, folder: Path) -> str:
    """The tokens of a folder and of each of its files, by the trainer's own reader."""
    from reference_trainer.data.samples import open_data

    open_data(folder / "data", 256, 8)
    return "answered"


def read_safetensors(given: Given, folder: Path) -> str:
    """The tensors of a file, or of those that an index names."""
    from planner.inputs.safetensors import stored_tensors

    index = folder / "model.safetensors.index.json"
    sum(tensor.elements for tensor in stored_tensors(index if index.exists() else folder / "m.safetensors"))
    return "answered"


def read_profile(given: Given, folder: Path) -> str:
    """A machine profile, and the time of a step by it."""
    from planner.inputs.profile_cache import load_profile
    from planner.plan import estimate
    from tests.planner.step_time.test_profile import config

    profile = load_profile(folder / "profile-cpu.json")
    if profile is None:
        return "refused"
    estimate(config().model_copy(update={"profile": profile}))
    return "answered"


def read_run_directory(given: Given, folder: Path) -> str:
    """A run directory by the command that shows it, or by what the terminal planner reads; `resume` loads its state."""
    reader, *more = given.words
    run = folder / "run"
    if reader == "record":
        from planner.runs.progress import Record, run_figures

        record = Record(run)
        while record.read_on():
            pass
        run_figures(record)
        return "answered"
    if reader == "resume":
        from planner.inputs.run_toml import load_config
        from reference_trainer.checkpoint.atomic import newest_valid
        from reference_trainer.step.rollbacks import load_rollbacks

        load_rollbacks(run / "rollbacks.json")
        newest_valid(run / "checkpoints", lambda line: None)
        load_config(run / "config.toml")
        return "answered"
    words = (reader, "run", *more, *(("-o", "out") if reader == "export" else ()))
    return by_command(Given(given.part, words), folder)


# the shares follow from the seconds of one input, a command line's 150 ms or a header's 1 ms, but for command lines:
# whatever is mended in the others is asked for by one of them
DOORS = {
    "commands": Door(command_lines.command_line, by_command, 0.05),
    "options": Door(command_lines.options, draft_options, 0.06),
    "hf configs": Door(files.hf_config, read_hf_config, 0.14),
    "run.toml": Door(files.run_toml, read_run_toml, 0.08),
    "data": Door(files.training_data, read_training_data, 0.18),
    "safetensors": Door(files.safetensors_file, read_safetensors, 0.456),
    "profiles": Door(files.profile, read_profile, 0.014),
    "run directories": Door(directories.run_directory, read_run_directory, 0.02),
}
