"""What a line of each trainer's log says. Each format is that of the version named beside it.

Regular expressions begin at a fixed word and have no nested repetition: a hostile line takes linear time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

MIB, GIB, GB, MILLI = 1 << 20, 1 << 30, 10**9, 1e-3
_N = r"([-+]?(?:\d[\d,]*(?:\.\d*)?(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity))"


@dataclass(frozen=True, slots=True)
class LogLine:
    """What one line says; None: it does not. Seconds of an update or of a micro-batch, tokens/s of the run or a GPU."""

    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    step_seconds: float | None = None
    micro_seconds: float | None = None
    tokens_per_second: float | None = None
    tokens_per_second_per_gpu: float | None = None
    sequences_per_step: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    device_bytes: int | None = None
    run_step_seconds: float | None = None


Reader = Callable[[str], LogLine | None]


@dataclass(frozen=True, slots=True)
class LogFormat:
    """A trainer's log. marks: words of which a line has one, looked for before the expressions are tried."""

    name: str
    title: str
    marks: tuple[str, ...]
    read: Reader


def number(text: str) -> float:
    """The value of a number in a log, with or without commas."""
    return float(text.replace(",", ""))


def _bytes(text: str, unit: int) -> int | None:
    """Bytes of a number of units; None of what no memory holds."""
    found = number(text) * unit
    return int(found) if 0 <= found < 1e18 else None


def _by(*rules: tuple[str, Callable[[re.Match[str]], LogLine]]) -> Reader:
    compiled = [(re.compile(pattern), made) for pattern, made in rules]

    def read(line: str) -> LogLine | None:
        for pattern, made in compiled:
            found = pattern.search(line)
            if found is not None:
                return made(found)
        return None

    return read


# nanoGPT train.py at 3adf61e; iterations count from 0
_nanogpt = _by(
    (
        rf"^iter (\d{{1,12}}): loss {_N}, time {_N}ms, mfu ",
        lambda m: LogLine(step=int(m[1]) + 1, loss=number(m[2]), step_seconds=number(m[3]) * MILLI),
    ),
)
# nanochat scripts/base_train.py at dfc8833 and 92d63d4; steps count from 0
_nanochat = _by(
    (
        rf"^step (\d{{1,12}})/(\d{{1,12}}) \([^)]{{0,12}}\) \| loss: {_N} \|[^|]{{0,40}}\| dt: {_N}ms \| tok/sec: {_N}",
        lambda m: LogLine(
            step=int(m[1]) + 1, steps=int(m[2]), loss=number(m[3]), step_seconds=number(m[4]) * MILLI,
            tokens_per_second=number(m[5]),
        ),
    ),
    (rf"^Peak memory usage: {_N}MiB", lambda m: LogLine(allocated_bytes=_bytes(m[1], MIB))),
)  # fmt: skip
# torchtitan components/metrics.py, 0.3.0 and b5bcd76; tps is of one device, memory is reserved
_torchtitan = _by(
    (
        rf"(?<!validate )step: +(\d{{1,12}}) +loss: +{_N} (?:.{{0,60}}?)memory: +{_N}GiB\([^)]{{0,12}}\) +tps: {_N}",
        lambda m: LogLine(
            step=int(m[1]), loss=number(m[2]), reserved_bytes=_bytes(m[3], GIB),
            tokens_per_second_per_gpu=number(m[4]),
        ),
    ),
)  # fmt: skip
# Megatron-LM megatron/training/training.py at d98e8a6, and its report_memory
_ITERATION = re.compile(r"iteration +(\d{1,12})/ *(\d{1,12}) \|")
_ELAPSED = re.compile(rf"elapsed time per iteration \(ms\): {_N} \|")
_LM_LOSS = re.compile(rf"lm loss: {_N} \|")
_BATCH = re.compile(r"global batch size: +(\d{1,12}) \|")
_MEMORY = re.compile(rf"max allocated: {_N}(?: \| reserved: {_N})?(?: \| max reserved: {_N})?")


def _megatron(line: str) -> LogLine | None:
    elapsed, iteration = _ELAPSED.search(line), _ITERATION.search(line)
    if elapsed is not None and iteration is not None:
        loss, batch = _LM_LOSS.search(line), _BATCH.search(line)
        return LogLine(
            step=int(iteration[1]), steps=int(iteration[2]), step_seconds=number(elapsed[1]) * MILLI,
            loss=None if loss is None else number(loss[1]), sequences_per_step=None if batch is None else int(batch[1]),
        )  # fmt: skip
    memory = _MEMORY.search(line) if "memory (MB)" in line else None
    if memory is None:
        return None
    reserved = None if memory[3] is None else _bytes(memory[3], MIB)
    return LogLine(allocated_bytes=_bytes(memory[1], MIB), reserved_bytes=reserved)


# LitGPT pretrain.py 0.5.13; the time is that of one micro-batch
_litgpt = _by(
    (
        rf"^Epoch \d+ \| iter \d+ step (\d{{1,12}}) \| loss train: {_N}, val: [^|]{{0,20}} \| iter time: {_N} ms",
        lambda m: LogLine(step=int(m[1]), loss=number(m[2]), micro_seconds=number(m[3]) * MILLI),
    ),
    (rf"^\| - Memory Used +: {_N} GB", lambda m: LogLine(allocated_bytes=_bytes(m[1], GB))),
)
# llm.c at f1e2ace: train_gpt2.cu, and train_gpt2.py beside it
_llmc = _by(
    (
        rf"^step +(\d{{1,12}})/(\d{{1,12}}) \| loss {_N} \([^)]{{0,12}}\)\| norm [^|]{{0,40}}\|"
        rf" lr [^|]{{0,20}}\| {_N} ms \|[^|]{{0,30}}\| {_N} tok/s",
        lambda m: LogLine(
            step=int(m[1]), steps=int(m[2]), loss=number(m[3]), step_seconds=number(m[4]) * MILLI,
            tokens_per_second=number(m[5]),
        ),
    ),
    (
        rf"^step +(\d{{1,12}})/(\d{{1,12}}) \| train loss {_N} \|"
        rf"[^|]{{0,30}}\|[^|]{{0,30}}\| \({_N} ms \| {_N} tok/s\)",
        lambda m: LogLine(
            step=int(m[1]), steps=int(m[2]), loss=number(m[3]), step_seconds=number(m[4]) * MILLI,
            tokens_per_second=number(m[5]),
        ),
    ),
    (rf"^device memory usage: {_N} MiB /", lambda m: LogLine(device_bytes=_bytes(m[1], MIB))),
    (rf"^peak memory consumption: {_N} MiB", lambda m: LogLine(allocated_bytes=_bytes(m[1], MIB))),
)  # fmt: skip
# stdout of transformers' Trainer 4 and 5: a Python dict a line; 5 writes numbers as text
_BAR = re.compile(rf"\b(\d{{1,12}})/(\d{{1,12}}) \[[^\]]{{0,40}}, +{_N}(it/s|s/it)[^\]]{{0,40}}\]")


def _hf_stdout(line: str) -> LogLine | None:
    bar = _BAR.search(line)
    if bar is None and "?it/s" in line:
        return LogLine()  # a bar that has not moved yet
    if bar is not None:
        speed = number(bar[3])
        if not speed:
            return None
        return LogLine(step=int(bar[1]), steps=int(bar[2]), step_seconds=1 / speed if bar[4] == "it/s" else speed)
    start, end = line.find("{"), line.rfind("}")
    if start < 0 or end < start or len(line) > 4096:
        return None
    try:
        values = ast.literal_eval(line[start : end + 1])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return entry_of(values) if isinstance(values, dict) else None


def entry_of(values: dict[object, object]) -> LogLine | None:
    """What an entry of the Trainer's log says: of stdout, or of log_history in trainer_state.json."""

    def value(name: str) -> float | None:
        found = values.get(name)
        try:
            return None if found is None or isinstance(found, bool) else float(str(found))
        except ValueError:
            return None

    step, loss, per_second = value("step"), value("loss"), value("train_steps_per_second")
    whole = int(step) if step is not None and 0 <= step < 1e12 else None
    if loss is None and per_second is None:
        return None
    seconds = 1 / per_second if per_second is not None and 1e-9 < per_second < 1e9 else None
    return LogLine(step=whole, loss=loss, run_step_seconds=seconds)


LOG_FORMATS: tuple[LogFormat, ...] = (
    LogFormat("nanogpt", "nanoGPT", ("iter ",), _nanogpt),
    LogFormat("nanochat", "nanochat", ("tok/sec", "Peak memory usage"), _nanochat),
    LogFormat("torchtitan", "torchtitan", ("tps:",), _torchtitan),
    LogFormat("megatron-lm", "Megatron-LM", ("elapsed time per iteration", "memory (MB)"), _megatron),
    LogFormat("litgpt", "LitGPT", ("iter time", "Memory Used"), _litgpt),
    LogFormat("llm.c", "llm.c", ("tok/s", "memory"), _llmc),
    LogFormat("hf-trainer", "transformers", ("'loss'", "'train_runtime'", "it/s", "s/it"), _hf_stdout),
)
