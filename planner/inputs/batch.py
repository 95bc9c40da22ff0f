"""Micro-batch and accumulation from the flags: the effective batch is reached exactly or refused."""

from __future__ import annotations

from planner import presets
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.run import resolve, tokens_per_step
from planner.errors import InputError
from planner.inputs.flags import Assumptions, Flags
from planner.inputs.rule_of_size import row_of_model
from planner.memory.breakdown import memory_breakdown
from planner.units import format_count
from planner.units import format_count_exact as spell

MOST_TOKENS_AT_ONCE = 16_384
FILL = 0.9


def batch_of(flags: Flags, base: RunConfig | None, whole: RunConfig, assumptions: Assumptions) -> TrainingConfig:
    """The training section of `whole`, for which one sequence stands, with micro-batch and accumulation.

    With a base its batch is kept. If GPUs, sequence or micro-batch change, its defaults are derived again,
    so a chosen or default batch in tokens does not grow with the number of GPUs.
    Raises InputError if a batch cannot be divided among the devices; the message names the nearest valid ones.
    """
    training = whole.training
    micro = flags.count("micro_batch")
    accumulation = flags.count("accumulation")
    wanted = flags.count("global_batch_tokens")
    chosen = wanted
    if base is not None:
        old, assumed = base.training, _assumed(base)
        divided_anew = "accumulation" in assumed and flags.given("gpus", "seq", "micro_batch")
        if accumulation is None and wanted is None:
            if not divided_anew:
                accumulation = old.accumulation
            elif "global_batch_tokens" not in assumed:
                chosen = tokens_per_step(base)
        if micro is None and (accumulation is not None or "micro_batch" not in assumed):
            micro = old.micro_batch
    if accumulation is not None:
        if micro is None:
            micro = 1
            assumptions.add("micro_batch", 1, "default beside a given accumulation")
        return training.model_copy(update={"micro_batch": micro, "accumulation": accumulation})
    name = "--global-batch-tokens:" if wanted is not None else "the file's batch of"
    per_device = _sequences_per_device(chosen, name, whole, micro or 1, assumptions)
    if micro is None:
        micro = _largest_micro_batch(whole, per_device)
        assumptions.add(
            "micro_batch",
            micro,
            "largest divisor of the sequences per device with at most 16,384 tokens whose peak stays below 90 % of "
            "the memory (1 if none does)",
        )
    assumptions.add("accumulation", per_device // micro, "batch divided by devices and micro-batch")
    return training.model_copy(update={"micro_batch": micro, "accumulation": per_device // micro})


def _assumed(base: RunConfig) -> set[str]:
    """The parts of a file's batch that are defaults; a value that was edited by hand is not."""
    values = {
        "micro_batch": base.training.micro_batch,
        "accumulation": base.training.accumulation,
        "global_batch_tokens": tokens_per_step(base),
    }
    return {a.key for a in base.provenance.assumptions if a.value == str(values.get(a.key))}


def _sequences_per_device(wanted: int | None, name: str, whole: RunConfig, micro: int, assumptions: Assumptions) -> int:
    """Sequences of one step on each device; the default batch is rounded to a valid one, a chosen one is not."""
    seq, gpus = whole.training.seq, whole.data_parallel
    unit = seq * gpus * micro
    each = "GPUs" if whole.parallel.gpus_per_replica == 1 else "replicas"
    if wanted is None:
        usual = row_of_model(whole.model)
        found: int = max(1, round(usual["batch_tokens"] / unit))
        assumptions.add(
            "global_batch_tokens",
            found * unit,
            f"{usual['batch_tokens']:,} tokens for {format_count(usual['parameters'])} parameters ({usual['source']}), "
            f"in whole sequences{usual['by']}",
        )
        return found * micro
    if wanted % unit:
        below, above = nearest_batches(wanted, unit)
        pair = [batch for batch in (below, above) if batch]
        spelled = " or ".join(f"{spell(batch)}" for batch in pair)
        accumulation = " or ".join(f"{spell(batch // unit)}" for batch in pair)
        near = f"batches are {spelled}" if below else f"batch is {spelled}"
        raise InputError(
            f"{name} {spell(wanted)} tokens is not a whole number of sequences on every device",
            why=f"sequence {spell(seq)} x micro-batch {spell(micro)} x {spell(gpus)} {each} = {spell(unit)} tokens",
            remedy=f"give another --global-batch-tokens: the nearest legal {near} tokens, with an accumulation of "
            f"{accumulation} at that micro-batch",
        )
    return wanted // unit * micro


def nearest_batches(wanted: int, unit: int) -> tuple[int, int]:
    """The multiples of `unit` just below (0: none) and above `wanted` tokens, or `wanted` twice if it is a multiple.

    unit: tokens of one micro-batch on every device.
    """
    below = wanted // unit * unit
    return below, below if below == wanted else below + unit


def _largest_micro_batch(whole: RunConfig, per_device: int) -> int:
    """The default micro-batch; memory limits it if the card's is known."""
    training, hardware = whole.training, whole.hardware
    gpu = presets.gpu(hardware.gpu) if hardware.gpu in presets.gpu_ids() else None
    usable = gpu.usable_bytes if gpu else None
    for micro in range(min(per_device, max(1, MOST_TOKENS_AT_ONCE // training.seq)), 0, -1):
        if per_device % micro:
            continue
        if usable is None or micro == 1:
            return micro
        update = {"micro_batch": micro, "accumulation": per_device // micro}
        tried = whole.model_copy(update={"training": training.model_copy(update=update)})
        need = memory_breakdown(resolve(tried), replay=False).peak_allocated_bytes.value
        if need is not None and need <= FILL * usable:
            return micro
    return 1
