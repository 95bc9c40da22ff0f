"""`estimate(config) -> Plan`: every predicted number, computed in reading order. The whole program on one screen.

A plan is a pure function of the config: nothing is looked up on this machine or on the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner import presets
from planner.config.run import RunConfig
from planner.counts.flops import Flops, flops_of
from planner.counts.parameters import Parameters
from planner.counts.run import Resolved, resolve
from planner.counts.schedule import key_steps, schedule_rate
from planner.counts.shape import Shape
from planner.formulas import batch, cost, duration
from planner.formulas.collectives import replicas_of_gpus
from planner.formulas.recording import real, whole
from planner.interval import UNKNOWN, Interval, exactly, known
from planner.memory.breakdown import Memory, checkpoint_bytes_of, memory_breakdown
from planner.presets import Gpu, Price
from planner.rules import rules
from planner.step_time.throughput import Throughput, throughput_of
from planner.step_time.whole_run import parts_of_run


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens asked for, and tokens of the whole steps."""

    requested: int
    trained: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch and steps."""

    micro_batch: int
    accumulation: int
    data_parallel: int
    sequences_per_step: int
    tokens_per_step: int
    steps: int
    warmup_steps: int
    warmup_tokens: int
    warmup_share: float
    epochs: float | None


@dataclass(frozen=True, slots=True)
class Time:
    """Wall-clock time of the whole run, without interruptions: its steps and what it does beside them.

    parts add up to its seconds, parts_low and parts_high to the ends of the interval; times: how often each is done;
    bounds: what each waits for; sources: what each rests on. All are empty where the time of a step is unknown.
    """

    seconds: Interval[float]
    gpu_hours: Interval[float]
    parts: dict[str, float]
    parts_low: dict[str, float]
    parts_high: dict[str, float]
    times: dict[str, int]
    bounds: dict[str, str]
    sources: dict[str, str]


@dataclass(frozen=True, slots=True)
class Cost:
    """Money, energy and CO2-equivalent of the GPUs; None is unknown."""

    usd: Interval[float]
    usd_per_gpu_hour: float | None
    price_source: str
    price_date: str | None
    energy_kwh: float | None
    co2e_kg: float | None
    energy_source: str


@dataclass(frozen=True, slots=True)
class Point:
    """The rate of one update."""

    step: int
    tokens: int
    lr: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate at the key steps."""

    kind: str
    peak_lr: float
    min_lr: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is predicted for a config. run: the config and what it comes to."""

    run: Resolved
    tokens: Tokens
    flops: Flops
    batch: Batch
    memory: Memory
    throughput: Throughput
    time: Time
    cost: Cost
    schedule: Schedule

    @property
    def config(self) -> RunConfig:
        """What the user chose."""
        return self.run.config

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return self.run.shape

    @property
    def parameters(self) -> Parameters:
        """The exact counts of parameters."""
        return self.run.parameters

    @property
    def nominal_parameters(self) -> int:
        """The N of 6*N*D: the number typed, else the exact count."""
        return self.run.nominal_parameters


def estimate(config: RunConfig, *, replay: bool = False) -> Plan:
    """The plan of a validated config.

    replay: also replay every allocation of two steps through the model of PyTorch's allocator (10 to 100 ms), which is
    what the commands show; without it allocated and reserved bytes follow rules, with a wider interval.

    Raises UnknownNameError when the config names a GPU or recipe that is not in the presets.
    """
    run = resolve(config)
    flops = flops_of(run)
    throughput = throughput_of(run, flops)
    memory = memory_breakdown(run, replay)
    time = time_of(run, throughput, memory.checkpoint_bytes)
    return Plan(
        run=run,
        tokens=Tokens(run.requested_tokens, run.trained_tokens),
        flops=flops,
        batch=batch_plan(run),
        memory=memory,
        throughput=throughput,
        time=time,
        cost=cost_of(run, time),
        schedule=schedule_plan(run),
    )


def batch_plan(run: Resolved) -> Batch:
    """Batch, steps and warm-up."""
    t, warmup = run.config.training, run.config.schedule.warmup_steps
    known = t.dataset_tokens
    return Batch(
        micro_batch=t.micro_batch,
        accumulation=t.accumulation,
        data_parallel=_replicas(run.config),
        sequences_per_step=run.sequences_per_step,
        tokens_per_step=run.tokens_per_step,
        steps=run.steps,
        warmup_steps=warmup,
        warmup_tokens=whole(batch.warmup_tokens(warmup, run.tokens_per_step)),
        warmup_share=real(batch.warmup_share(warmup, run.steps)),
        epochs=real(batch.epochs(run.trained_tokens, known)) if known else None,
    )


def _replicas(config: RunConfig) -> int:
    """Replicas of the model: GPUs, where each has all of it."""
    each = config.parallel.gpus_per_replica
    return config.hardware.gpus if each == 1 else whole(replicas_of_gpus(config.hardware.gpus, each))


def time_of(run: Resolved, throughput: Throughput, checkpoint_bytes: int | None = None) -> Time:
    """Time of the whole run at the predicted speed. checkpoint_bytes: size of a checkpoint; None: it is computed."""
    size = checkpoint_bytes_of(run) if checkpoint_bytes is None else checkpoint_bytes
    parts = parts_of_run(run, throughput, size)
    seconds = _sum_of_run({name: part.seconds for name, part in parts.items()})
    return Time(
        seconds=seconds,
        gpu_hours=seconds.map(lambda s: cost.gpu_hours(s, run.config.hardware.gpus)),
        parts={name: known(part.seconds.value) for name, part in parts.items()},
        parts_low={name: known(part.seconds.low) for name, part in parts.items()},
        parts_high={name: known(part.seconds.high) for name, part in parts.items()},
        times={name: part.times for name, part in parts.items()},
        bounds={name: part.bound for name, part in parts.items()},
        sources={name: part.source for name, part in parts.items()},
    )


def _sum_of_run(parts: dict[str, Interval[float]]) -> Interval[float]:
    """The run's seconds: its parts, one after the other; unknown without them."""
    if not parts:
        return UNKNOWN
    ends = ([known(getattr(part, end)) for part in parts.values()] for end in ("low", "value", "high"))
    return Interval(*(real(duration.duration(*each)) for each in ends))


def cost_of(run: Resolved, time: Time) -> Cost:
    """Price of the user, else the price list's median with its range; power at the board's limit."""
    own, price, hourly = run.config.hardware.usd_per_gpu_hour, _listed_price(run), hourly_price(run)
    rule, hours = rules("roofline")["energy"], time.gpu_hours.value
    energy = None if hours is None else energy_kwh(run.gpu, hours)
    return Cost(
        usd=time.gpu_hours.times(hourly, cost.cost_of_hours),
        usd_per_gpu_hour=hourly.value,
        price_source=_price_source(own, price),
        price_date=price.date if price else None,
        energy_kwh=energy,
        co2e_kg=None if energy is None else real(cost.co2e_of_kwh(energy, rule["grid_intensity"])),
        energy_source=rule["source"],
    )


def hourly_price(run: Resolved) -> Interval[float]:
    """Dollars of a GPU and hour: the user's, else the price list's median with its range; unknown where it has none."""
    price = _listed_price(run)
    if price is None:
        return exactly(run.config.hardware.usd_per_gpu_hour)
    return Interval(price.low_usd_per_gpu_hour, price.usd_per_gpu_hour, price.high_usd_per_gpu_hour)


def _listed_price(run: Resolved) -> Price | None:
    """The price list's, where the user gives none."""
    return presets.price(run.gpu.id) if run.gpu and run.config.hardware.usd_per_gpu_hour is None else None


def energy_kwh(gpu: Gpu | None, hours: float) -> float | None:
    """Energy of so many GPU-hours at the board's limit; None where the power is unknown."""
    if gpu is None or gpu.power_watts is None:
        return None
    return real(cost.energy_of_hours(hours, gpu.power_watts, rules("roofline")["energy"]["pue"]))


def _price_source(own: float | None, price: Price | None) -> str:
    if own is not None:
        return "the user's own price"
    if price is None:
        return "unknown: no price list has this hardware"
    return f"median of {price.rows} {price.kind} prices of {price.date} ({', '.join(price.providers)}); {price.source}"


def schedule_plan(run: Resolved) -> Schedule:
    """The learning rate at the key steps of the schedule."""
    s = run.config.schedule
    points = tuple(Point(k, k * run.tokens_per_step, schedule_rate(s, run.steps, k)) for k in key_steps(s, run.steps))
    return Schedule(s.kind, s.peak_lr, s.min_lr, points)
