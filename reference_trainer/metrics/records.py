"""Records of a run: the result for the caller, the row of a step, the details of a start event."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from planner.counts.run import steps_of, tokens_per_step
from planner.errors import PlanError
from planner.runs.comparison import MeasuredRank
from planner.step_time.throughput import MFU_CONVENTION
from reference_trainer.data.corpus.listing import summary_record
from reference_trainer.device.device import AllocatorState, device_name, read_memory
from reference_trainer.distributed.ranks import Ranks
from reference_trainer.metrics.metrics_file import MetricValue
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext
from reference_trainer.step.step_results import StepResult

HFU_CONVENTION = "as MFU, plus recomputation in backward (checkpointing, flash attention, chunked loss)"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a call of `run` did and measured. The lists have one entry per step of this call.

    `rates`: (step, learning rate used by the optimizer). `exit_code`: 0, or 130 or 143 after SIGINT or SIGTERM.
    `tokens_done`: since the first step of the run. `checkpoint_bytes`: size of the last checkpoint of this call.
    The peaks are explained at `device.Memory`.
    """

    device: str
    device_name: str
    torch_version: str
    parameters: int
    data: str
    data_fingerprint: str
    steps_done: int
    tokens_done: int
    finished: bool
    exit_code: int
    step_seconds: list[float]
    rates: list[tuple[int, float]]
    losses: list[float]
    grad_norms: list[float]
    checkpoint_bytes: int | None
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    peak_requested_bytes: int | None
    device_used_bytes: int | None
    peak_rss_bytes: int | None
    stopped: PlanError | None = None  # training diverged, and this says how
    ranks: tuple[MeasuredRank, ...] = ()  # of several ranks, in order


def of_all_ranks(result: RunResult, ranks: Ranks) -> RunResult:
    """The result with the memory of every rank; its peaks are the highest of all. All ranks call it together."""
    if ranks.world == 1:
        return result
    names = [field.name for field in fields(MeasuredRank)]
    mine = {name: getattr(result, name) for name in names}
    found = [MeasuredRank(**json.loads(text)) for text in ranks.gather(json.dumps(mine))]
    known = {name: [n for memory in found if (n := getattr(memory, name)) is not None] for name in names[1:]}
    return replace(result, ranks=tuple(found), **{name: max(values) for name, values in known.items() if values})


def start_details(context: StepContext, options: RunOptions) -> dict[str, object]:
    """Details of a start event: machine, versions, model, data, and the inputs of MFU and HFU."""
    return {
        "device": str(context.device),
        "device_name": device_name(context.device),
        "torch": str(torch.__version__),
        "parameters": sum(p.numel() for p in context.model.parameters()),
        "data": context.data.description,
        "data_fingerprint": context.data.fingerprint,
        "data_sources": None if context.data.summary is None else summary_record(context.data.summary),
        "tokens_per_step": tokens_per_step(context.config),
        "flops_per_step": options.flops_per_step,
        "hardware_flops_per_step": options.hardware_flops_per_step,
        "peak_flops": options.peak_flops,
        "mfu_convention": MFU_CONVENTION,
        "hfu_convention": HFU_CONVENTION,
    }


def row_of(
    context: StepContext, options: RunOptions, done: StepResult, memory: AllocatorState
) -> dict[str, MetricValue]:
    """The row of a step in metrics.jsonl; unknown or not finite is null."""
    tokens, peak = tokens_per_step(context.config), options.peak_flops

    def utilization(flops: int | None) -> float | None:
        return None if flops is None or peak is None else flops / (done.seconds * peak)

    row: dict[str, MetricValue] = {
        "step": done.step,
        "tokens": done.step * tokens,
        "valid_tokens": done.valid_tokens,
        "loss": finite_or_none(done.loss),
        "perplexity": finite_or_none(math.exp(min(done.loss, 700.0))),
        "lr": done.lr,
        "grad_norm": finite_or_none(done.grad_norm),
        "step_seconds": done.seconds,
        "data_seconds": done.data_seconds,
        "data_share": done.data_seconds / done.seconds,
        "tokens_per_second": tokens / done.seconds,
        "mfu": utilization(options.flops_per_step),
        "hfu": utilization(options.hardware_flops_per_step),
        "allocated_bytes": memory.allocated,
        "reserved_bytes": memory.reserved,
        "updated": done.updated,
        "spike": done.spike,
        "loss_sigmas": finite_or_none(done.loss_sigmas),
        "norm_sigmas": finite_or_none(done.norm_sigmas),
    }
    if context.optimizer.scaler is not None:
        row["loss_scale"] = done.scale
    return row | {name: finite_or_none(value) for name, value in done.signals.items()}


def finite_or_none(value: float) -> float | None:
    """The value; None if it is not finite, which JSON cannot express."""
    return value if math.isfinite(value) else None


def result_of(
    context: StepContext, results: list[StepResult], done: int, exit_code: int, checkpoint_bytes: int | None
) -> RunResult:
    """The result of a call that trained the steps in `results` and ended after step `done`."""
    memory = read_memory(context.device)
    return RunResult(
        device=str(context.device),
        device_name=device_name(context.device),
        torch_version=str(torch.__version__),
        parameters=sum(p.numel() for p in context.model.parameters()),
        data=context.data.description,
        data_fingerprint=context.data.fingerprint,
        steps_done=done,
        tokens_done=done * tokens_per_step(context.config),
        finished=done >= steps_of(context.config),
        exit_code=exit_code,
        step_seconds=[step.seconds for step in results],
        rates=[(step.step, step.lr) for step in results],
        losses=[step.loss for step in results],
        grad_norms=[step.grad_norm for step in results],
        checkpoint_bytes=checkpoint_bytes,
        peak_allocated_bytes=memory.peak_allocated,
        peak_reserved_bytes=memory.peak_reserved,
        peak_requested_bytes=memory.peak_requested,
        device_used_bytes=memory.device_used,
        peak_rss_bytes=memory.peak_rss,
    )


def as_logged(result: RunResult, rows: Iterable[Any], checkpoint_bytes: int | None) -> RunResult:
    """The result of a run that an earlier call finished: its steps are those of the rows in metrics.jsonl.

    What memory the training took is unknown: this process did not train. A loss that was not finite is NaN.
    """
    logged = [row for row in rows if row.get("step_seconds")]

    def numbers(key: str) -> list[float]:
        return [math.nan if row.get(key) is None else row[key] for row in logged]

    return replace(
        result,
        step_seconds=[row["step_seconds"] for row in logged],
        rates=[(row["step"], row["lr"]) for row in logged if row.get("lr") is not None],
        losses=numbers("loss"),
        grad_norms=numbers("grad_norm"),
        checkpoint_bytes=checkpoint_bytes,
        peak_allocated_bytes=None,
        peak_reserved_bytes=None,
        peak_requested_bytes=None,
        device_used_bytes=None,
        peak_rss_bytes=None,
    )
