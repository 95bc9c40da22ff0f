"""What `gptplan flops` shows: FLOPs by operator, in every convention, and the peaks that MFU is divided by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from planner.analysis.conventions import conventions, flops_per_token, parts_of
from planner.config.run import RunConfig
from planner.counts.flops import Flops, Operator, flops_of, mask_entries_per_sequence, operators_of
from planner.counts.run import Resolved, resolve
from planner.formulas import flops, throughput
from planner.rules import rules
from planner.step_time.throughput import Throughput, peak_flops_rate, throughput_of

TYPES = ("fp8", "fp16", "bf16", "tf32", "fp32")


@dataclass(frozen=True, slots=True)
class OperatorFlops:
    """One operator of all blocks, or the head; `share` is of the hardware FLOPs."""

    operator: str
    weights: int
    forward_per_token: int
    backward_per_token: int
    recomputed_per_token: int
    recomputed_by: tuple[str, ...]
    hardware_per_step: int
    share: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the operators, per token, per step and for the run; `run_*` are None without tokens or steps."""

    forward_per_token: int
    backward_per_token: int
    model_per_token: int
    hardware_per_token: int
    model_per_step: int
    hardware_per_step: int
    tokens_per_step: int
    run_tokens: int | None
    run_model: float | None
    run_hardware: float | None


@dataclass(frozen=True, slots=True)
class ConventionFlops:
    """A convention's number for this model, beside ours; `utilisation` is what it would print for the planned speed."""

    id: str
    kind: str
    formula: str
    used_by: str
    note: str
    source: str
    flops_per_token: float
    run_flops: float | None
    ratio: float
    utilisation: float | None


@dataclass(frozen=True, slots=True)
class Denominator:
    """A rate that MFU may be divided by. `used` is the one that this plan divides by; None is unknown."""

    name: str
    meaning: str
    flops_rate: int | None
    used: bool
    mfu: float | None
    source: str


@dataclass(frozen=True, slots=True)
class FlopsReport:
    """What `gptplan flops --json` prints; its JSON Schema is printed by `gptplan schema flops`."""

    schema_version: int
    model: str
    seq: int
    parameters: dict[str, int]
    mask_entries_per_sequence: int
    operators: tuple[OperatorFlops, ...]
    totals: Totals
    conventions: tuple[ConventionFlops, ...]
    gpu: str
    compute_dtype: str
    tokens_per_second_per_gpu: float | None
    speed_basis: str
    denominators: tuple[Denominator, ...]


@dataclass(frozen=True, slots=True)
class FlopsFacts:
    """What the rows are made of; `tokens` are those of the run, None without its length."""

    run: Resolved
    operators: tuple[Operator, ...]
    counted: Flops
    speed: Throughput
    tokens: int | None


def flops_report(config: RunConfig, *, horizon: bool = True) -> FlopsReport:
    """The report of a config; horizon: whether the length of the run was given, else the run's totals are unknown.

    Memory is not looked at. Raises UnknownNameError when the config names a GPU or recipe that is not in the presets.
    """
    run = resolve(config)
    counted = flops_of(run)
    speed = throughput_of(run, counted)
    facts = FlopsFacts(run, operators_of(config), counted, speed, run.requested_tokens if horizon else None)
    totals, counts = _totals(facts), run.parameters
    return FlopsReport(
        schema_version=config.schema_version,
        model=config.model.name,
        seq=config.training.seq,
        parameters=asdict(parts_of(config.model)) | {"total": counts.total, "active": counts.active},
        mask_entries_per_sequence=mask_entries_per_sequence(config.model, config.training.seq),
        operators=tuple(_shown(o, totals) for o in facts.operators),
        totals=totals,
        conventions=_conventions(facts, totals),
        gpu=config.hardware.gpu,
        compute_dtype=run.recipe.compute_dtype,
        tokens_per_second_per_gpu=speed.tokens_per_second_per_gpu,
        speed_basis=speed.basis,
        denominators=_denominators(facts),
    )


def flops_document(report: FlopsReport) -> dict[str, Any]:
    """The report as plain values, ready for JSON."""
    return asdict(report)


def _totals(facts: FlopsFacts) -> Totals:
    operators, tokens, per_step = facts.operators, facts.tokens, facts.run.tokens_per_step
    model, hardware = sum(o.model for o in operators), sum(o.hardware for o in operators)
    return Totals(
        forward_per_token=sum(o.forward for o in operators),
        backward_per_token=sum(o.backward for o in operators),
        model_per_token=model,
        hardware_per_token=hardware,
        model_per_step=int(flops.total_flops(model, per_step)),
        hardware_per_step=int(flops.total_flops(hardware, per_step)),
        tokens_per_step=per_step,
        run_tokens=tokens,
        run_model=None if tokens is None else float(flops.total_flops(model, tokens)),
        run_hardware=None if tokens is None else float(flops.total_flops(hardware, tokens)),
    )


def _shown(operator: Operator, totals: Totals) -> OperatorFlops:
    return OperatorFlops(
        operator=operator.name,
        weights=operator.weights,
        forward_per_token=operator.forward,
        backward_per_token=operator.backward,
        recomputed_per_token=operator.recomputed,
        recomputed_by=operator.recomputed_by,
        hardware_per_step=int(flops.total_flops(operator.hardware, totals.tokens_per_step)),
        share=operator.hardware / totals.hardware_per_token,
    )


TEXTS = ("id", "kind", "formula", "used_by", "note", "source")
TYPED = {
    "id": "6n-typed",
    "kind": "model",
    "formula": "6·N, N as typed",
    "used_by": "gptplan estimate's 6·N·D",
    "note": "the shape's exact number of parameters is another one: 6n-total",
    "source": "Kaplan et al. 2020 (arXiv 2001.08361), section 2.1",
}
THIS_RUN = {
    "id": "this-run-hardware",
    "kind": "hardware",
    "formula": "the operators' sum, with recomputation",
    "used_by": "gptplan (HFU)",
    "note": "checkpointing as configured, and flash attention's scores",
    "source": "Korthikanti et al. 2022 (arXiv 2205.05198), section 5: hardware FLOPs",
}


def _conventions(facts: FlopsFacts, totals: Totals) -> tuple[ConventionFlops, ...]:
    """Every convention, 6·N with the N that was typed where that is another one, and what this run really computes."""
    model, seq = facts.run.config.model, facts.run.config.training.seq
    found = [
        _beside_ours(facts, totals, flops_per_token(c, model, seq), {name: getattr(c, name) for name in TEXTS})
        for c in conventions()
    ]
    nominal = facts.run.nominal_parameters
    if nominal != facts.run.parameters.total:
        found.append(_beside_ours(facts, totals, float(flops.training_flops_6nd(nominal, 1)), TYPED))
    found.append(_beside_ours(facts, totals, float(totals.hardware_per_token), THIS_RUN))
    return tuple(found)


def _beside_ours(facts: FlopsFacts, totals: Totals, count: float, texts: dict[str, str]) -> ConventionFlops:
    return ConventionFlops(
        **texts,
        flops_per_token=count,
        run_flops=None if totals.run_tokens is None else float(flops.total_flops(count, totals.run_tokens)),
        ratio=count / totals.model_per_token,
        utilisation=_utilisation(facts, count, peak_flops_rate(facts.run)),
    )


def _utilisation(facts: FlopsFacts, per_token: float, rate: float | None) -> float | None:
    """MFU or HFU at the predicted speed, None where speed or rate is unknown."""
    speed = facts.speed.tokens_per_second.value
    if speed is None or not rate:
        return None
    return float(throughput.utilisation(per_token, speed, facts.run.config.hardware.gpus, rate))


def _denominators(facts: FlopsFacts) -> tuple[Denominator, ...]:
    """The card's dense peaks by type, then the rates that others divide by; none for a processor."""
    gpu = facts.run.gpu
    if gpu is None:
        return ()
    used = facts.run.recipe.compute_dtype
    rows: list[tuple[str, str, int | None, bool, str]] = []
    for kind in TYPES:
        where = "dense, outside the tensor cores" if kind == "fp32" else "dense"
        rows.append((kind, where, gpu.peak_dense_flops.get(kind), kind == used, gpu.source))
    for row in rules("flops")["denominator"]:
        if gpu.id in row["gpus"] or not row["gpus"]:
            rows.append((row["id"], row["meaning"], int(row["flops_rate"]), False, row["source"]))
    per_token = facts.counted.per_token_model
    return tuple(
        Denominator(name, meaning, rate, is_used, _utilisation(facts, per_token, rate), source)
        for name, meaning, rate, is_used, source in rows
    )
