"""Seconds of a whole run: its steps, and what it does beside them. Each with its interval, its bound and its source.

A speed that somebody measured holds for the run as it is: it is taken to include start, compilation and data, so that
evaluations and checkpoints are added only where the config asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, lcm

from planner.config.run import RunConfig
from planner.counts.flops import flops_of
from planner.counts.nodes import domain_of
from planner.counts.run import Resolved, saves_in_background
from planner.counts.shards import optimizer_cut
from planner.formulas import batch, duration
from planner.formulas import throughput as speed
from planner.formulas.recording import real, whole
from planner.interval import Interval, exactly, known
from planner.rules import rules
from planner.step_time.rates import family_of
from planner.step_time.throughput import Throughput

ONCE_A_STEP = ("optimizer", "clipping", "all-reduce", "stragglers", "pipeline bubble")  # what no micro-batch repeats
_UINT16_VALUES = 2**16  # a token of a larger vocabulary takes four bytes on the disk
_NOTHING: Interval[float] = exactly(0.0)


@dataclass(frozen=True, slots=True)
class RunPart:
    """Seconds that one kind of work takes in a whole run; `times`: how often it is done."""

    seconds: Interval[float]
    times: int
    bound: str
    source: str


def parts_of_run(run: Resolved, throughput: Throughput, checkpoint_bytes: int) -> dict[str, RunPart]:
    """What a run's time consists of, by name; {} where the time of its steps is unknown.

    checkpoint_bytes: size of one checkpoint.
    """
    step = throughput.step_seconds
    if step.value is None:
        return {}
    steps = throughput.tokens_per_second.map(lambda rate: real(speed.run_seconds(run.trained_tokens, rate)))
    given = throughput.basis == "given"
    return {
        "steps": RunPart(steps, run.steps, "parts of a step", "the predicted step" if not given else "the given speed"),
        "evaluations": _evaluations(run, throughput),
        "checkpoints": _checkpoints(run, step, checkpoint_bytes, given),
        "data": _data(run, step, given),
        "start": _start(run, given),
        "compilation": _compilation(run, given),
    }


# --- evaluations ------------------------------------------------------------------------------------------------------


def _evaluations(run: Resolved, throughput: Throughput) -> RunPart:
    """Forward passes at the speed of a micro-batch's forward part."""
    config, table = run.config, rules("time")["run"]["evaluation"]
    every, t = config.evaluation.every, config.training
    times = evaluations_of(run)
    if every is None or not times:
        return RunPart(_NOTHING, 0, "", "none are asked for: --eval-every")
    per_micro = whole(batch.tokens_per_micro_batch(t.micro_batch, t.seq))
    passes = whole(duration.evaluation_passes(config.evaluation.tokens, per_micro, config.data_parallel))
    counted = flops_of(run)
    share = counted.per_token_model / 3 / counted.per_token_hardware
    once = sum(seconds for part, seconds in throughput.parts.items() if part in ONCE_A_STEP)
    repeated = 1 - once / known(throughput.step_seconds.value)

    def seconds(step: float, factor: float) -> float:
        micro = step * repeated / t.accumulation
        return real(duration.evaluations_seconds(times, passes, config.parallel.pp, micro, share * factor))

    return RunPart(_spread(throughput.step_seconds, seconds, table), times, "as a forward pass", table["source"])


def evaluations_of(run: Resolved) -> int:
    """Evaluations that a run makes, if nothing stops it early."""
    every = run.config.evaluation.every
    return 0 if every is None else whole(duration.times_due(run.steps, every))


def _spread(
    step: Interval[float], seconds: Callable[[float, float], float], table: Mapping[str, float]
) -> Interval[float]:
    """A function of a step's seconds and a factor, at both ends of both."""
    low, high = seconds(known(step.low), table["low"]), seconds(known(step.high), table["high"])
    return Interval(low, seconds(known(step.value), 1.0), high)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def saves_of(config: RunConfig, steps: int) -> tuple[int, int]:
    """Checkpoints that a run writes at least and at most: the due ones and the last; the most if every evaluation is
    the best so far, because the best is saved.
    """
    every, evaluates = config.training.checkpoint_every, config.evaluation.every

    def due(each: int | None) -> int:
        return 0 if each is None else whole(duration.times_due(steps - 1, each))

    both = due(lcm(every, evaluates)) if every and evaluates else 0
    return due(every) + 1, due(every) + due(evaluates) - both + 1


def _checkpoints(run: Resolved, step: Interval[float], size: int, given: bool) -> RunPart:
    """Saves: in the background the copy to the host, and what of the write the steps do not hide."""
    config, disk = run.config, disk_of(run.config)
    least, most = saves_of(config, run.steps)
    if given and most == 1:
        return RunPart(_NOTHING, 1, "", "the last save is part of the given speed")
    background, writers, holders = saves_in_background(config), *_writers(run)
    link = _to_host(run)
    slow = min(link, rules("time")["run"]["disk"]["pageable"])  # memory that the system did not let lock

    def seconds(saves: int, disk_bandwidth: float | None, each: float | None, to_host: float) -> float:
        written = real(duration.write_seconds(size, writers, known(disk_bandwidth)))
        if not background:
            return real(duration.waited_saves_seconds(saves, written))
        copied, between = real(speed.traffic_seconds(size / holders, to_host)), known(each) * run.steps / saves
        return real(duration.background_saves_seconds(saves, copied, written, between))

    low, value = seconds(least, disk.high, step.high, link), seconds(most, disk.value, step.value, link)
    high = seconds(most, disk.low, step.low, slow)
    bound = "the disk" + (", beside the steps" if background else "")
    return RunPart(Interval(min(low, value), value, max(value, high)), most, bound, _disk_source(config))


def disk_of(config: RunConfig) -> Interval[float]:
    """Byte/s that one server writes: as the config says, else what is usual, with its range."""
    own, table = config.hardware.write_bandwidth, rules("time")["run"]["disk"]
    return exactly(own) if own is not None else Interval(table["low"], table["write_bandwidth"], table["high"])


def _disk_source(config: RunConfig) -> str:
    if config.hardware.write_bandwidth is not None:
        return "--write-bandwidth"
    return f"disk: {rules('time')['run']['disk']['source']}"


def _writers(run: Resolved) -> tuple[int, int]:
    """Servers that write different parts of the state, and GPUs that hold them."""
    p = run.config.parallel
    holders = min(run.config.hardware.gpus, optimizer_cut(run).shards * p.tp * p.pp)
    return ceil(holders / domain_of(run.config)), holders


def _to_host(run: Resolved) -> float:
    """Byte/s of a copy to the host's memory: over the bus of a GPU, within the memory of a processor."""
    table = rules("time")
    if run.gpu is None:
        return float(table["run"]["disk"]["memory_copy"])
    return float(family_of(run.gpu.id)["host_link"] * table["offload"]["link_share"])


# --- data, start, compilation -----------------------------------------------------------------------------------------


def _data(run: Resolved, step: Interval[float], given: bool) -> RunPart:
    """Tokens are read ahead: only a disk slower than the step is waited for. It reads as fast as it writes."""
    if given:
        return RunPart(_NOTHING, 0, "", "part of the given speed")
    token = 2 if run.config.model.vocab <= _UINT16_VALUES else 4
    servers = ceil(run.config.hardware.gpus / domain_of(run.config))
    disk = disk_of(run.config)

    def seconds(each: float | None, bandwidth: float | None) -> float:
        read = real(speed.traffic_seconds(token * run.tokens_per_step / servers, known(bandwidth)))
        return real(duration.data_wait_seconds(run.steps, read, known(each)))

    found = Interval(seconds(step.high, disk.high), seconds(step.value, disk.value), seconds(step.low, disk.low))
    return RunPart(found, run.steps, "the disk", f"tokens of {token} bytes, read ahead by a thread")


def _start(run: Resolved, given: bool) -> RunPart:
    """Imports, the device, weights drawn on the host, and what the first step takes more than the others."""
    if given:
        return RunPart(_NOTHING, 0, "", "part of the given speed")
    table = rules("time")["run"]["start"]
    kind = "gpu" if run.gpu else "cpu"
    drawn = run.parameters.total / _writers(run)[1]

    def seconds(setup: float, factor: float) -> float:
        return real(duration.start_seconds(setup, drawn, table["seconds_per_parameter"] * factor))

    setup = table[kind]
    found = Interval(
        seconds(setup["low"], table["low"]), seconds(setup["seconds"], 1.0), seconds(setup["high"], table["high"])
    )
    return RunPart(found, 1, "the host", table["source"])


def _compilation(run: Resolved, given: bool) -> RunPart:
    """The compiler's time where the runtime is compiled: the program of training, and half of it for evaluations."""
    if given or run.config.training.runtime != "compiled":
        return RunPart(_NOTHING, 0, "", "part of the given speed" if given else "nothing is compiled")
    table = rules("time")["run"]["compile"]
    programs = 1.5 if evaluations_of(run) else 1.0
    layers = ceil(run.shape.layers / run.config.parallel.pp)

    def seconds(case: str) -> float:
        each = table[case]
        return real(duration.compile_seconds(each["seconds"], layers, each["block"], programs))

    found = Interval(seconds("warm"), seconds("cold"), seconds("slow"))
    return RunPart(found, 1, "the host", table["source"])
