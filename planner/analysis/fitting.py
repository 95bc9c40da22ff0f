"""The cheapest change of a config after which its peak fits: same global batch, same model, least time lost.

What may change is how a step is computed, never what it computes: a smaller micro-batch with more accumulation, the
loss in chunks, activation checkpointing, the allocator's segments, and one kernel for the optimizer's update.
Findings, commands, the terminal planner and the trainer all ask here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from planner.config.options import BY_KEY, OPTIONS, Option, flag, value_at
from planner.config.run import CPU, IMPLEMENTATIONS, WITH_WHOLE_MATRICES, RunConfig
from planner.counts.flops import flops_of
from planner.counts.run import Resolved
from planner.errors import InputError
from planner.finding import Finding
from planner.formulas.itemsize import INT64
from planner.inputs.flags import Flags
from planner.inputs.search import SearchLimits, SearchSpace
from planner.memory.breakdown import Memory, memory_breakdown
from planner.memory.coverage import not_checked, not_covered
from planner.memory.device import BY_STATE
from planner.plan import Plan
from planner.rules import rules
from planner.step_time.throughput import throughput_of
from planner.units import format_bytes, format_fraction, told_apart

PeakOf = Callable[[Resolved], int]
LARGEST_TRIED = 4096  # sequences in one micro-batch
BLOCKS_PER_RECOMPUTED = (8, 4, 2, 1)  # one block of so many is recomputed, cheapest first
# the rule for reserved bytes may be wrong by this much of the capacity; within it the allocator is simulated
RULE_ERROR = 0.125
LARGER = "use a GPU with more memory or a smaller model"
# half a percent of a step is below what a prediction of time can tell apart: there fewer changes win
SAME_TIME = 0.005
# parts of a layout that a remedy leaves as they are; keys of [training] that it may change with it
LAYOUT_KEEPS = ("hsdp", "reshard", "interleave", "pp_schedule", "cp", "ddp_bucket_view")
CHOSEN_WITH_IT = (
    *("micro_batch", "accumulation", "loss"),
    *("activation_checkpointing", "activation_checkpointing_every"),
)
# flags whose effect on time the count of FLOPs, which stands in for an unknown speed, does not see
TIME_NOT_PREDICTED = ("--loss-kind", "--optimizer-implementation for-loop", "--fsdp")


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


def what_fits(run: Resolved, below: float = 1.0) -> FittingChange | None:
    """The cheapest change after which the config needs at most the fraction `below` of its device's usable memory.

    Where there is none, the cheapest with which the allocator gets by if it frees unused segments and tries again. A
    change without flags where that is the config itself; None where nothing fits, or the usable memory is unknown.
    """
    memory = memory_breakdown(run, replay=False)
    if memory.usable_bytes is None:
        return None
    outside = memory.most_outside_bytes
    found = smallest_change(run, int(below * memory.usable_bytes) - outside)
    found = found or smallest_change(run, memory.usable_bytes - outside, _peak_with_retries)
    return found or _fastest_layout(run, below)


def _fastest_layout(run: Resolved, below: float) -> FittingChange | None:
    """The change to the fastest layout of the same GPUs that fits: that of `gptplan search`, without rarer choices."""
    config = run.config
    if config.hardware.gpus == 1 or run.gpu is None or not_covered(run) is not None:
        return None
    from planner.analysis.search.search import search  # numpy: 0.1 s, wanted only where nothing smaller fits

    kept = frozenset(LAYOUT_KEEPS)
    limits = SearchLimits(head_room=max(0.0, 1 - below))
    space = SearchSpace((config.hardware.gpu,), (config.hardware.gpus,), kept, limits=limits)
    try:
        best = search(config, space, shown=1).best[0].config
    except InputError:
        return None
    training = {key: getattr(best.training, key) for key in CHOSEN_WITH_IT}
    found = run.computed_with(training=training, parallel=dict(best.parallel))
    before, after = _step_seconds_of(run), _step_seconds_of(found)
    known = bool(before and after)
    ratio = after / before if before and after else 1.0
    return FittingChange(found, flags_between(run, found), predicted_peak(found), ratio, known)


def with_remedies(plan: Plan, found: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings of a plan, those about memory with the cheapest change that mends them (0.1 s to 2 s)."""
    nearly = rules("roofline")["memory"]["nearly_full"]
    limits = {"does_not_fit": 1.0, "fits_unknown": 1.0, "allocator_thrash": 1.0, "nearly_full": nearly}
    return tuple(
        replace(f, remedy=_remedy(plan.memory, what_fits(plan.run, limits[f.code]))) if f.code in limits else f
        for f in found
    )


def _remedy(memory: Memory, change: FittingChange | None) -> str:
    if change is None:
        return f"no micro-batch, loss kind or checkpointing fits: {LARGER}"
    if not change.flags:
        return f"no micro-batch, loss kind or checkpointing leaves more room: {LARGER}"
    of = " of ".join(told_apart(format_bytes, change.peak_bytes + memory.most_outside_bytes, memory.usable_bytes))
    most = "at most " if not_covered(change.run) is not None else ""
    return f"{change.command_line} needs {most}{of}, {change.price}"


def needed_bytes(memory: Memory) -> int:
    """Bytes that a plan takes of `usable_bytes`: reserved, context and NCCL on a GPU, the tensors' on a processor."""
    return memory.peak_requested_bytes if memory.device_used_bytes is None else memory.device_used_bytes


def needs(plan: Plan) -> str:
    """What a plan needs of the usable bytes, in words: the number that its verdict is about.

    An upper bound is at most, and what the state alone takes is at least.
    """
    memory = plan.memory
    bound = not_covered(plan.run) is not None and memory.fits_by != BY_STATE
    by_state = memory.fits is False and (bound or memory.fits_by == BY_STATE)
    shown = memory.least_bytes if by_state else needed_bytes(memory)
    of = " of ".join(told_apart(format_bytes, shown, memory.usable_bytes))
    return f"at least {of}" if by_state else f"at most {of}" if bound else of


def predicted_peak(run: Resolved, replay: bool = False) -> int:
    """Peak to compare with a device's capacity, bytes: reserved by the allocator on a GPU, requested on a processor.

    replay: the simulated allocator (10 to 100 ms), else a rule. The context is not in it.
    """
    memory = memory_breakdown(run, replay)
    reserved = memory.peak_reserved_bytes.value
    return memory.peak_requested_bytes if reserved is None else reserved


def close_peak(capacity_bytes: int) -> PeakOf:
    """`predicted_peak` by rule where that is clearly below or above the capacity, else by the simulated allocator.

    Of what no run was compared with, the upper end: what is proposed is certain to fit.
    """

    def peak_of(run: Resolved) -> int:
        by_rule = predicted_peak(run)
        if not_checked(run) is not None:
            return max(by_rule, _highest_peak(run))
        clear = abs(by_rule - capacity_bytes) > RULE_ERROR * capacity_bytes
        return by_rule if clear else predicted_peak(run, replay=True)

    return peak_of


def _highest_peak(run: Resolved) -> int:
    """The upper end of the allocated bytes; 0 on a processor, which has no allocator."""
    return memory_breakdown(run, replay=False).peak_allocated_bytes.high or 0


def _peak_with_retries(run: Resolved) -> int:
    """The allocated bytes where the allocator gets by with them, by freeing unused segments; else the reserved.

    Of what no run was compared with, the upper end.
    """
    if not_checked(run) is not None:
        return _highest_peak(run)
    m = memory_breakdown(run, replay=True)
    needed = m.peak_allocated_bytes.value if m.fits else m.peak_reserved_bytes.value
    return m.peak_requested_bytes if needed is None else needed


def largest_micro_batch(run: Resolved, capacity_bytes: int, peak_of: PeakOf = predicted_peak) -> int | None:
    """The largest micro-batch of the same global batch whose peak fits; None where one sequence is too much.

    At most the config's own: it is the one that did not fit, or that somebody chose.
    """
    divisors = _divisors(run.config)
    # the peak grows with the micro-batch, so that the largest is found by halving
    count = bisect_left(divisors, True, key=lambda micro: peak_of(with_micro_batch(run, micro)) > capacity_bytes)
    return divisors[count - 1] if count else None


def largest_change(run: Resolved, capacity_bytes: int, peak_of: PeakOf = predicted_peak) -> FittingChange | None:
    """The change to the largest micro-batch of the same global batch whose peak fits, above the config's own too.

    None where one sequence is too much; a change without flags where the config has it already.
    """
    training = run.config.training
    whole = with_micro_batch(run, training.micro_batch * training.accumulation)
    micro = largest_micro_batch(whole, capacity_bytes, peak_of)
    if micro is None:
        return None
    found = with_micro_batch(run, micro)
    before, after = _step_seconds_of(run), _step_seconds_of(found)
    known = bool(before and after)
    ratio = after / before if before and after else 1.0
    return FittingChange(found, flags_between(run, found), peak_of(found), ratio, known)


def with_micro_batch(run: Resolved, micro: int) -> Resolved:
    """The same global batch in micro-batches of `micro` sequences, which must divide it."""
    per_device = run.config.training.micro_batch * run.config.training.accumulation
    assert per_device % micro == 0, (per_device, micro)
    return run.computed_with(training={"micro_batch": micro, "accumulation": per_device // micro})


def smallest_change(run: Resolved, capacity_bytes: int, peak_of: PeakOf | None = None) -> FittingChange | None:
    """The change that costs the least predicted time among those whose peak is at most `capacity_bytes`.

    Where times are the same to half a percent, the one whose time is predicted, then the one with fewer flags. None
    where nothing fits; a change without flags where the config fits as it is. peak_of: `close_peak` by default.
    """
    fits, resident = peak_of or close_peak(capacity_bytes), dict[object, int]()
    for change in sorted(every_change(run), key=_order):
        # micro-batch, loss and checkpointing cannot make room for what is always there
        alike = change.run.config.parallel, change.run.config.optimizer
        if alike not in resident:  # of a peak that somebody else defines nothing is known
            resident[alike] = always_there(change.run) if peak_of in (None, _peak_with_retries) else 0
        if resident[alike] > capacity_bytes:
            continue
        peak = fits(change.run)
        if peak <= capacity_bytes:
            return replace(change, peak_bytes=peak)
    return None


def always_there(run: Resolved) -> int:
    """Bytes of the update without the micro-batch's tokens: no peak is below it, whatever is recomputed or accumulated.

    Of a micro-batch its tokens, targets and document numbers are alive then, and nothing else.
    """
    tokens = run.config.training.micro_batch * run.config.training.seq
    peaks = (p.peak_bytes for p in memory_breakdown(run, replay=False).phases if p.phase == "optimizer_step")
    return max(peaks) - 3 * tokens * INT64


def every_change(run: Resolved) -> Iterator[FittingChange]:
    """Every change that is tried, with its predicted time; its peak is 0, not computed yet."""
    divisors, before = _divisors(run.config), _step_seconds_of(run)
    flops = flops_of(run).per_token_hardware
    for variant in _variants(run):
        recomputed = flops_of(variant).per_token_hardware / flops
        for micro in divisors:
            tried = with_micro_batch(variant, micro)
            after = _step_seconds_of(tried) if before else None
            ratio = after / before if after and before else recomputed
            yield FittingChange(tried, flags_between(run, tried), 0, ratio, after is not None)


def _divisors(config: RunConfig) -> list[int]:
    """The micro-batches of the same global batch, up to the config's own."""
    per_device = config.training.micro_batch * config.training.accumulation
    return [m for m in range(1, min(config.training.micro_batch, LARGEST_TRIED) + 1) if per_device % m == 0]


def _order(change: FittingChange) -> tuple[int, int, int, float]:
    """Least predicted time first, then what is predicted before what is not, then fewer flags."""
    return round(change.time_ratio / SAME_TIME), len(change.unpredicted), len(change.flags), change.time_ratio


def _variants(run: Resolved) -> Iterator[Resolved]:
    """Every combination of the choices, the config's own first; only those whose memory is counted."""
    config, known = run.config, not_covered(run) is None
    for hardware, parallel, optimizer, loss, recomputed in product(
        _allocators(config), _layouts(config), _implementations(config), _losses(config), _checkpointings(config)
    ):
        tried = run.computed_with(training=loss | recomputed, optimizer=optimizer, hardware=hardware, parallel=parallel)
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


def _step_seconds_of(run: Resolved) -> float | None:
    """Predicted seconds of a step; None where the speed is unknown, or given for the config as it is."""
    if run.config.hardware.speed_is_given:
        return None
    return throughput_of(run, flops_of(run)).step_seconds.value


CHANGED = (
    "training.micro_batch",
    "training.accumulation",
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
