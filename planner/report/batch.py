"""The batch report as text for people."""

from __future__ import annotations

from planner.analysis.batch import BatchFacts, BatchReport, Data, Scaled
from planner.report.text import WIDTH, Page, sections_text
from planner.units import format_count, format_fraction, format_number


def batch_summary(facts: BatchFacts, found: BatchReport, width: int = WIDTH) -> str:
    """The known results, section by section."""
    page = Page(width)
    return sections_text(
        _batch(facts, found, page),
        _divisible(facts, found, page),
        _steps(found, page),
        _data(facts, found.data, page) if found.data else "",
        _rate(found, found.rate, page) if found.rate else "",
    )


def _batch(facts: BatchFacts, found: BatchReport, page: Page) -> str:
    lines = []
    if found.sequences_per_step is not None:
        how = f"micro-batch {facts.micro_batch:,} x accumulation {facts.accumulation:,} x {facts.gpus:,} GPUs"
        lines.append(page.line("sequences per step", f"{found.sequences_per_step:,}", how))
    if found.tokens_per_step is not None:
        lines.append(page.line("tokens per step", f"{found.tokens_per_step:,}"))
    return page.section("Batch", *lines)


def _divisible(facts: BatchFacts, found: BatchReport, page: Page) -> str:
    if not found.legal:
        return ""
    unit = f"sequence {facts.seq:,} x micro-batch {facts.micro_batch or 1:,} x {facts.gpus:,} GPUs"
    if len(found.legal) == 1 and found.legal[0].tokens == facts.wanted_tokens:
        lines = [page.line("divisible", "yes", f"a multiple of {unit}; accumulation {found.legal[0].accumulation:,}")]
    else:
        rows = [("nearest batch", "accumulation")]
        rows += [(f"{legal.tokens:,}", f"{legal.accumulation:,}") for legal in found.legal]
        lines = [page.line("divisible", "no", f"not a multiple of {unit}"), *page.table(rows, {0, 1})]
    return page.section("Division among the devices", *lines)


def _steps(found: BatchReport, page: Page) -> str:
    lines = []
    if found.steps is not None:
        part = found.steps_exactly
        how = (
            ""
            if part is None or part == found.steps
            else f"{part:,.3f} rounded {'up' if found.steps > part else 'down'}"
        )
        lines.append(page.line("steps", f"{found.steps:,}", how))
    if found.warmup_steps is not None:
        share = "" if found.warmup_share is None else f"{format_fraction(found.warmup_share)} of the steps"
        lines.append(page.line("warm-up steps", f"{found.warmup_steps:,}", share))
    if found.warmup_tokens is not None:
        lines.append(page.line("warm-up tokens", f"{found.warmup_tokens:,}"))
    return page.section("Steps", *lines)


def _data(facts: BatchFacts, data: Data, page: Page) -> str:
    lines = [page.line("distinct tokens", format_count(data.dataset_tokens))]
    if data.sequences is not None:
        lines.append(page.line(f"sequences of {facts.seq:,}", f"{data.sequences:,}", "one epoch, no overlap"))
        lines.append(page.line("windows", f"{data.windows:,}", "one from every token on"))
    elif facts.seq is not None:
        lines.append(page.line(f"sequences of {facts.seq:,}", "0", "a sequence needs one more token, its last target"))
    if data.epochs is not None:
        lines.append(page.line("epochs", format_number(data.epochs)))
    if data.worth_tokens is not None:
        lines.append(
            page.line(
                "effective tokens", format_count(data.worth_tokens), "worth as many new ones (Muennighoff et al. 2023)"
            )
        )
    return page.section("Data", *lines)


def _rate(found: BatchReport, rate: Scaled, page: Page) -> str:
    title = f"Peak learning rate: {format_number(rate.peak_lr)} at {rate.tuned_batch:,} tokens per step, now "
    rows = [("rule", "learning rate", "bounded by the critical batch")]
    for name, free, bounded in (
        ("linear (SGD, Goyal et al. 2017)", rate.linear, rate.linear_bounded),
        ("square root (Adam, Malladi et al. 2022)", rate.square_root, rate.square_root_bounded),
    ):
        rows.append((name, format_number(free), format_number(bounded)))
    critical = "unknown" if rate.critical_batch is None else f"{format_count(rate.critical_batch)} tokens"
    lines = [
        *page.table(rows, {1, 2}),
        page.line("critical batch", critical, rate.critical_source.removeprefix("unknown: ")),
    ]
    return page.section(f"{title}{found.tokens_per_step:,}", *lines)
