"""Answers about the batch as text for people."""

from __future__ import annotations

from planner.analysis.batch import BatchReport, Data, Facts, Scaled
from planner.report.text import LABEL, table, wrap
from planner.units import format_count, format_fraction, format_number


def batch_summary(facts: Facts, found: BatchReport) -> str:
    """Every answer whose facts are known, section by section."""
    parts = [_batch(facts, found), _legal(facts, found), _steps(facts, found)]
    parts += [_data(facts, found.data) if found.data else "", _rate(found, found.rate) if found.rate else ""]
    shown = [part for part in parts if part]
    return "\n\n".join(shown)


def _line(label: str, value: str, note: str = "") -> str:
    return f"  {label:<{LABEL}}{value}{'   ' + note if note else ''}"


def _section(name: str, lines: list[str]) -> str:
    return "\n".join([name, *lines])


def _batch(facts: Facts, found: BatchReport) -> str:
    lines = []
    if found.sequences_per_step is not None:
        how = f"micro-batch {facts.micro_batch:,} x accumulation {facts.accumulation:,} x {facts.gpus:,} GPUs"
        lines.append(_line("sequences per step", f"{found.sequences_per_step:,}", how))
    if found.tokens_per_step is not None:
        lines.append(_line("tokens per step", f"{found.tokens_per_step:,}"))
    return _section("Batch", lines) if lines else ""


def _legal(facts: Facts, found: BatchReport) -> str:
    if not found.legal:
        return ""
    unit = f"sequence {facts.seq:,} x micro-batch {facts.micro_batch or 1:,} x {facts.gpus:,} GPUs"
    if len(found.legal) == 1 and found.legal[0].tokens == facts.wanted_tokens:
        lines = [_line("legal", "yes", f"a multiple of {unit}; accumulation {found.legal[0].accumulation:,}")]
    else:
        rows = [("nearest legal", "accumulation")]
        rows += [(f"{legal.tokens:,}", f"{legal.accumulation:,}") for legal in found.legal]
        lines = [_line("legal", "no", f"not a multiple of {unit}"), *table(rows, right=frozenset({0, 1}))]
    return _section("Division among the devices", lines)


def _steps(facts: Facts, found: BatchReport) -> str:
    lines = []
    if found.steps is not None:
        part = found.steps_exactly
        how = "" if part is None or part == found.steps else f"whole ones, of {part:,.3f}"
        lines.append(_line("steps", f"{found.steps:,}", how))
    if found.warmup_steps is not None:
        share = "" if found.warmup_share is None else f"{format_fraction(found.warmup_share)} of the steps"
        if found.warmup_share is not None and found.warmup_share < 0.01:
            share = f"{100 * found.warmup_share:.4f} % of the steps"  # two decimals would leave one digit
        lines.append(_line("warm-up steps", f"{found.warmup_steps:,}", share))
    if found.warmup_tokens is not None:
        lines.append(_line("warm-up tokens", f"{found.warmup_tokens:,}"))
    return _section("Steps", lines) if lines else ""


def _data(facts: Facts, data: Data) -> str:
    lines = [_line("distinct tokens", format_count(data.dataset_tokens))]
    if data.sequences is not None:
        lines.append(_line(f"sequences of {facts.seq:,}", f"{data.sequences:,}", "side by side: an epoch"))
        lines.append(_line("windows", f"{data.windows:,}", "one starting at every token"))
    elif facts.seq is not None:
        lines.append(_line(f"sequences of {facts.seq:,}", "0", "a sequence needs one token more, its last target"))
    if data.epochs is not None:
        lines.append(_line("epochs", format_number(data.epochs)))
    if data.worth_tokens is not None:
        lines.append(_line("worth in new tokens", format_count(data.worth_tokens), "Muennighoff et al. 2023"))
    return _section("Data", lines)


def _rate(found: BatchReport, rate: Scaled) -> str:
    title = f"Peak rate: {format_number(rate.peak_lr)} at {rate.tuned_batch:,} tokens per step, now "
    rows = [("rule", "rate", "bounded by the critical batch")]
    for name, free, bounded in (
        ("linear (SGD, Goyal et al. 2017)", rate.linear, rate.linear_bounded),
        ("square root (Adam, Malladi et al. 2022)", rate.square_root, rate.square_root_bounded),
    ):
        rows.append((name, format_number(free), format_number(bounded)))
    critical = "unknown" if rate.critical_batch is None else f"{format_count(rate.critical_batch)} tokens"
    lines = [*table(rows, right=frozenset({1, 2})), _line("critical batch", critical)]
    return _section(f"{title}{found.tokens_per_step:,}", [*lines, *wrap(rate.critical_source, indent=30)])
