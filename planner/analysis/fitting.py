"""The cheapest change of a config after which its peak fits: same global batch, same model, least time lost.

What may change is in `changes.py`; where none of it fits, the fastest layout of a search does, if there is one.
Findings, commands, the terminal planner and the trainer all ask here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.analysis.changes import FittingChange, change_to, every_change, smaller_micro_batches, with_micro_batch
from planner.counts.run import Resolved
from planner.errors import InputError
from planner.finding import Finding
from planner.formulas.itemsize import INT64
from planner.inputs.search import SearchLimits, SearchSpace
from planner.memory.breakdown import Memory, memory_breakdown
from planner.memory.coverage import is_interval, not_covered
from planner.memory.device import BY_STATE
from planner.plan import Plan
from planner.rules import rules
from planner.units import format_bytes, told_apart

PeakOf = Callable[[Resolved], int]
# the rule for reserved bytes may be wrong by this much of the capacity; within it the allocator is simulated
RULE_ERROR = 0.125
LARGER = "use a GPU with more memory or a smaller model"
# half a percent of a step is below what a prediction of time can tell apart: there fewer changes win
SAME_TIME = 0.005
# parts of a layout that a remedy leaves as they are; keys of [training] that it may change with it
LAYOUT_KEEPS = ("hsdp", "reshard", "interleave", "pp_schedule", "cp", "ddp_bucket_view")
CHOSEN_WITH_IT = (
    *("micro_batch", "accumulation", "loss", "runtime"),
    *("activation_checkpointing", "activation_checkpointing_every"),
)


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
        winner = search(config, space, shown=1).best[0]
    except InputError:
        return None
    if not winner.fits:
        return None
    best = winner.config
    training = {key: getattr(best.training, key) for key in CHOSEN_WITH_IT}
    found = run.computed_with(training=training, parallel=dict(best.parallel))
    return change_to(run, found, predicted_peak(found))


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

    Of what is an interval, the upper end: what is proposed is certain to fit.
    """

    def peak_of(run: Resolved) -> int:
        by_rule = predicted_peak(run)
        if is_interval(run):
            return max(by_rule, _highest_peak(run))
        clear = abs(by_rule - capacity_bytes) > RULE_ERROR * capacity_bytes
        return by_rule if clear else predicted_peak(run, replay=True)

    return peak_of


def _highest_peak(run: Resolved) -> int:
    """The upper end of the allocated bytes; 0 on a processor, which has no allocator."""
    return memory_breakdown(run, replay=False).peak_allocated_bytes.high or 0


def _peak_with_retries(run: Resolved) -> int:
    """The allocated bytes where the allocator gets by with them, by freeing unused segments; else the reserved.

    Of what is an interval, the upper end.
    """
    if is_interval(run):
        return _highest_peak(run)
    m = memory_breakdown(run, replay=True)
    needed = m.peak_allocated_bytes.value if m.fits else m.peak_reserved_bytes.value
    return m.peak_requested_bytes if needed is None else needed


def largest_micro_batch(run: Resolved, capacity_bytes: int, peak_of: PeakOf = predicted_peak) -> int | None:
    """The largest micro-batch of the same global batch whose peak fits; None where one sequence is too much.

    At most the config's own: it is the one that did not fit, or that somebody chose.
    """
    divisors = smaller_micro_batches(run.config)
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
    return change_to(run, found, peak_of(found))


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


def _order(change: FittingChange) -> tuple[int, int, int, float]:
    """Least predicted time first, then what is predicted before what is not, then fewer flags."""
    return round(change.time_ratio / SAME_TIME), len(change.unpredicted), len(change.flags), change.time_ratio
