"""What may change of a run so that it fits, what each change costs in time, and the flags that make it.

How a step is computed changes, never what it computes: a smaller micro-batch with more accumulation, the loss in
chunks, activation checkpointing, the allocator's segments, one kernel for the optimizer's update, FSDP2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from planner.config.options import BY_KEY, OPTIONS, Option, flag, value_at
from planner.config.run import CPU, IMPLEMENTATIONS, WITH_WHOLE_MATRICES, RunConfig
from planner.counts.flops import flops_of
from planner.counts.run import Resolved
from planner.inputs.flags import Flags
from planner.memory.coverage import not_covered
from planner.step_time.throughput import throughput_of
from planner.units import format_fraction

LARGEST_TRIED = 4096  # sequences in one micro-batch
BLOCKS_PER_RECOMPUTED = (8, 4, 2, 1)  # one block of so many is recomputed, cheapest first
# flags whose effect on time the count of FLOPs, which stands in for an unknown speed, does not see
TIME_NOT_PREDICTED = ("--loss-kind", "--optimizer-implementation for-loop", "--fsdp", "--runtime")


@dataclass(frozen=True, slots=True)
class FittingChange:
    """A run that fits, the flags that lead to it, its predicted peak, and its step's time over the old one's.

    time_known: both times are predicted; else the ratio is that of the executed FLOPs.
    """

    run: Resolved
    flags: tuple[str, ...]
    peak_bytes: int
    time_ratio: float
    time_known: bool = False

    @property
    def command_line(self) -> str:
        """The flags as they are typed."""
        return " ".join(self.flags)

    @property
    def price(self) -> str:
        """The predicted cost in time, in words."""
        slower, uncounted = self.time_ratio - 1, " and ".join(self.unpredicted)
        if slower > 0.0005:
            besides = f", and what {uncounted} costs" if uncounted else ""
            return f"a step takes about {format_fraction(slower)} longer{besides}"
        return f"the time that {uncounted} costs is not predicted" if uncounted else "no slower"

    @property
    def unpredicted(self) -> tuple[str, ...]:
        """The flags whose effect on the step's time is not in `time_ratio`."""
        unseen = (flag for flag in self.flags if flag.startswith(TIME_NOT_PREDICTED))
        return () if self.time_known else tuple(flag.partition(" ")[0] for flag in unseen)


def with_micro_batch(run: Resolved, micro: int) -> Resolved:
    """The same global batch in micro-batches of `micro` sequences, which must divide it."""
    per_device = run.config.training.micro_batch * run.config.training.accumulation
    assert per_device % micro == 0, (per_device, micro)
    return run.computed_with(training={"micro_batch": micro, "accumulation": per_device // micro})


def every_change(run: Resolved) -> Iterator[FittingChange]:
    """Every change that is tried, with its predicted time; its peak is 0, not computed yet."""
    divisors, before = smaller_micro_batches(run.config), step_seconds_of(run)
    flops = flops_of(run).per_token_hardware
    for variant in _variants(run):
        recomputed = flops_of(variant).per_token_hardware / flops
        for micro in divisors:
            tried = with_micro_batch(variant, micro)
            after = step_seconds_of(tried) if before else None
            ratio = after / before if after and before else recomputed
            yield FittingChange(tried, flags_between(run, tried), 0, ratio, after is not None)


def change_to(run: Resolved, found: Resolved, peak_bytes: int) -> FittingChange:
    """The change from one run to another, of which the peak is known; without predicted times it counts as free."""
    before, after = step_seconds_of(run), step_seconds_of(found)
    ratio = after / before if before and after else 1.0
    return FittingChange(found, flags_between(run, found), peak_bytes, ratio, bool(before and after))


def smaller_micro_batches(config: RunConfig) -> list[int]:
    """The micro-batches of the same global batch, up to the config's own."""
    per_device = config.training.micro_batch * config.training.accumulation
    return [m for m in range(1, min(config.training.micro_batch, LARGEST_TRIED) + 1) if per_device % m == 0]


def _variants(run: Resolved) -> Iterator[Resolved]:
    """Every combination of the choices, the config's own first; only those whose memory is counted."""
    config, known = run.config, not_covered(run) is None
    with_batch = product(_runtimes(config), _losses(config), _checkpointings(config))
    for hardware, parallel, optimizer, (runtime, loss, recomputed) in product(
        _allocators(config), _layouts(config), _implementations(config), tuple(with_batch)
    ):
        training = runtime | loss | recomputed
        tried = run.computed_with(training=training, optimizer=optimizer, hardware=hardware, parallel=parallel)
        if not known or not_covered(tried) is None:
            yield tried


def _allocators(config: RunConfig) -> list[dict[str, Any]]:
    with_segments = config.hardware.gpu != CPU and config.hardware.allocator == "default"
    return [{}, {"allocator": "expandable"}] if with_segments else [{}]


def _layouts(config: RunConfig) -> list[dict[str, Any]]:
    """DDP without the second copy of the gradients, and FSDP2, for replicas that do not have them yet."""
    parallel = config.parallel
    if config.hardware.gpus == 1 or parallel.fsdp or not parallel.is_data_parallel:
        return [{}]
    view = [] if parallel.ddp_bucket_view else [{"ddp_bucket_view": True}]
    shardable = config.optimizer.name not in WITH_WHOLE_MATRICES
    return [{}, *view, *([{"fsdp": True, "ddp_bucket_view": False}] if shardable else [])]


def _implementations(config: RunConfig) -> list[dict[str, Any]]:
    """The optimizer's own default holds no list of temporary copies; it needs moments of the weights' type."""
    best = IMPLEMENTATIONS[config.optimizer.name][0]
    free = best != config.optimizer.implementation and config.optimizer.state_dtype is None
    # lists of tensors and one tensor after the other exchange memory for time
    slower = config.optimizer.implementation == "foreach" and "for-loop" in IMPLEMENTATIONS[config.optimizer.name]
    return [{}, *([{"implementation": best}] if free else []), *([{"implementation": "for-loop"}] if slower else [])]


def _runtimes(config: RunConfig) -> list[dict[str, Any]]:
    """A compiled step may run eagerly: there the memory of every loss, checkpointing and layout is known."""
    return [{}, {"runtime": "eager"}] if config.training.runtime == "compiled" else [{}]


def _losses(config: RunConfig) -> list[dict[str, Any]]:
    plain = config.training.loss == "plain" and not config.training.returns_logits
    return [{}, {"loss": "fused"}, {"loss": "chunked"}] if plain else [{}]


def _checkpointings(config: RunConfig) -> list[dict[str, Any]]:
    mode = config.training.activation_checkpointing
    if mode in ("offloaded", "full"):
        return [{}, *_more_often(config, mode, config.training.activation_checkpointing_every)]
    selective = [{"activation_checkpointing": "selective"}] if mode == "none" else []
    return [{}, *selective, *_more_often(config, "full", config.model.layers + 1)]


def _more_often(config: RunConfig, mode: str, below: int) -> list[dict[str, Any]]:
    return [
        {"activation_checkpointing": mode, "activation_checkpointing_every": every}
        for every in BLOCKS_PER_RECOMPUTED
        if every < below and (every < config.model.layers or every == 1)
    ]


def step_seconds_of(run: Resolved) -> float | None:
    """Predicted seconds of a step; None where the speed is unknown, or given for the config as it is."""
    if run.config.hardware.speed_is_given:
        return None
    return throughput_of(run, flops_of(run)).step_seconds.value


CHANGED = (
    "training.micro_batch",
    "training.accumulation",
    "training.runtime",
    "training.loss",
    "training.activation_checkpointing",
    "training.activation_checkpointing_every",
    "hardware.allocator",
    *(f"parallel.{key}" for key in ("tp", "sp", "pp", "ep", "zero")),
    "parallel.fsdp",
    "parallel.ddp_bucket_view",
    "optimizer.implementation",
)


def flags_between(old: Resolved, new: Resolved) -> tuple[str, ...]:
    """The flags that make `new` of `old`, such as ("--micro-batch 4", "--accumulation 8")."""
    changed = (BY_KEY[key] for key in CHANGED if value_at(old.config, key) != value_at(new.config, key))
    return tuple(_typed(option, value_at(new.config, option.key)) for option in changed)


def _typed(option: Option, value: object) -> str:
    if option.kind.parser == "switch":
        return flag(option.kind.choices[not value])
    return f"{option.flag} {'yes' if value is True else 'no' if value is False else value}"


def flags_with(flags: Flags, change: FittingChange) -> Flags:
    """What is typed, with a change's flags. A batch typed in tokens stays, and gives the accumulation."""
    fields = dict(_field(line) for line in change.flags)
    if flags.global_batch_tokens is not None:
        fields.pop("accumulation", None)
    return replace(flags, **fields)


def _field(line: str) -> tuple[str, str]:
    """The member of `Flags` and its text of a flag as it is typed; a switch has no value."""
    name, _, value = line.partition(" ")
    return next(
        (o.name, value or o.kind.choices[name != o.flag])
        for o in OPTIONS
        if name == o.flag or (o.kind.parser == "switch" and name in map(flag, o.kind.choices))
    )
