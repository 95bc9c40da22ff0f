"""A plan as text for people: aligned lines, fractions, totals last. Comparisons are in `comparison.py`."""

from __future__ import annotations

from collections.abc import Sequence

from planner.analysis.fitting import needs
from planner.config.layout import layout_in_words
from planner.finding import Finding
from planner.memory.breakdown import Memory
from planner.memory.device import BY_REPLAY
from planner.plan import Plan
from planner.report.speed import speed_section
from planner.report.text import (
    COMPONENT_NAMES,
    VERDICTS,
    WIDTH,
    Page,
    sections_text,
    why_fits_is_unknown,
    with_interval,
)
from planner.units import (
    CHOSEN,
    format_bytes,
    format_bytes_decimal,
    format_count,
    format_count_exact,
    format_duration,
    format_flops,
    format_fraction,
    format_money,
    format_number,
    format_rate,
)
from planner.units import format_count_exact as spell


def summary(plan: Plan, found: Sequence[Finding] | None, width: int = WIDTH) -> str:
    """The plan as a summary that can be pasted into a review, `width` columns wide; its tables need 60.

    found: None if the findings are shown elsewhere.
    """
    page = Page(width)
    return sections_text(
        page.heading(title(plan)),
        _model(plan, page),
        _compute(plan, page),
        _batch(plan, page),
        _memory(plan, page),
        _schedule(plan, page),
        speed_section(plan, page),
        _money(plan, page),
        "" if found is None else page.section("Findings", *(page.findings(found) or ["  ✓ no findings"])),
        page.defaults((a.key, _readable(a.value), a.source) for a in plan.config.provenance.assumptions),
    )


def announcement(plan: Plan) -> str:
    """One line logged before a run begins: its size, and what is predicted."""
    t = plan.throughput
    peak = f"tensors need at most {format_bytes(plan.memory.peak_requested_bytes)}"
    if t.tokens_per_second.value is None:
        predicted = f"{peak}; the speed is not predicted, it will be measured"
    else:
        predicted = f"{format_rate(t.tokens_per_second.value)}, {format_duration(plan.time.seconds.value)}, {peak}"
    return (
        f"{format_count(plan.parameters.total)} parameters, {spell(plan.batch.steps)} steps of "
        f"{spell(plan.batch.tokens_per_step)} tokens, {plan.config.training.recipe}; predicted: {predicted}"
    )


def _counted(number: int, thing: str) -> str:
    return f"{spell(number)} {thing}" if number == 1 else f"{spell(number)} {thing}s"


def title(plan: Plan) -> str:
    """Model, size, length and hardware in one line."""
    hardware = plan.config.hardware
    return (
        f"{plan.config.model.name}, {format_count(plan.nominal_parameters)} parameters{_active(plan)}, "
        f"{format_count(plan.tokens.requested)} tokens, {spell(hardware.gpus)} x {hardware.gpu}, "
        f"{plan.config.training.recipe}"
    )


def _readable(value: str) -> str:
    """An assumed value; one of more than fifteen digits with an exponent."""
    return spell(int(value)) if value.isdigit() and len(value) > 15 else value


def trained(plan: Plan) -> str:
    """The tokens of the whole steps, and those asked for where they are others."""
    tokens = plan.tokens
    asked = "" if tokens.trained == tokens.requested else f" of {format_count(tokens.requested, CHOSEN)} asked for"
    return f"{format_count_exact(tokens.trained)} tokens trained{asked}"


def _active(plan: Plan) -> str:
    """What one token uses of a mixture of experts; "" of a dense model."""
    return f" ({format_count(plan.parameters.active)} active)" if plan.config.model.moe else ""


def _model(plan: Plan, page: Page) -> str:
    s, counts, model = plan.shape, plan.parameters, plan.config.model
    heads = f"{s.heads} heads of {s.head_dim}"
    if s.kv_heads != s.heads:
        heads += f", {s.kv_heads} key-value heads"
    exact = format_count_exact(counts.total)
    difference = ""
    if plan.nominal_parameters != counts.total:
        flags = format_count_exact(plan.nominal_parameters)
        difference = f"({format_fraction(counts.total / plan.nominal_parameters - 1)} from the {flags} typed)"
    return page.section(
        "Model",
        page.line("shape", f"{s.layers} layers x {s.hidden}, {heads}, FFN {s.ffn}, vocabulary {spell(s.vocab)}"),
        page.line(
            "", f"{model.position} positions, {model.norm}, {model.mlp}, sequence {spell(plan.config.training.seq)}"
        ),
        page.line("parameters, exactly", exact, difference),
        page.line("of these, embedding", format_count_exact(counts.embedding)),
        *([page.line("of these, active", format_count_exact(counts.active), "what one token uses")] * bool(model.moe)),
        page.line("source", model.source.partition(":")[0]),
    )


def _compute(plan: Plan, page: Page) -> str:
    f, counts = plan.flops, plan.parameters
    note = ""
    if plan.config.model.moe:
        note = f"N = {format_count(counts.active)} active of {format_count(counts.total)} parameters"
    return page.section(
        "Compute",
        page.line("6·N·D", format_flops(f.training_6nd), note),
        page.line("model FLOPs", format_flops(f.training_model), "matrix products and full attention, forward x 3"),
        page.line("hardware FLOPs", format_flops(f.training_hardware), "with recomputation"),
    )


def _batch(plan: Plan, page: Page) -> str:
    b = plan.batch
    devices = _counted(b.data_parallel, "device" if plan.config.parallel.gpus_per_replica == 1 else "replica")
    parts = f"micro-batch {spell(b.micro_batch)} x accumulation {spell(b.accumulation)} x {devices}"
    shared = layout_in_words(plan.config)
    return page.section(
        "Batch",
        *([page.line("layout", shared)] * bool(shared and not plan.config.parallel.is_data_parallel)),
        page.line("effective batch", f"{spell(b.sequences_per_step)} sequences", f"= {parts}"),
        page.line("tokens per step", format_count_exact(b.tokens_per_step)),
        page.line("steps", format_count_exact(b.steps), trained(plan)),
        page.line(
            "warm-up",
            f"{spell(b.warmup_steps)} steps",
            f"{format_count_exact(b.warmup_tokens)} tokens, {format_fraction(b.warmup_share)} of the run",
        ),
        page.line("epochs", format_number(b.epochs), "" if b.epochs else "add --dataset-tokens"),
    )


def component_rows(m: Memory) -> list[tuple[str, ...]]:
    """The components that have bytes: name, maximum, bytes and fraction at the peak; header first, total last."""
    own = {
        "weights": m.weights_bytes,
        "master_weights": m.master_weights_bytes,
        "gradients": m.gradients_bytes,
        "optimizer": m.optimizer_bytes,
        "activations": m.activations_bytes,
        "logits": m.logits_bytes,
        "temporary": m.temporary_bytes,
        "communication": m.communication_bytes,
    }
    rows: list[tuple[str, ...]] = [("component", "maximum", "at the peak", "fraction")]
    for name, size in own.items():
        if size:
            at_peak = m.at_peak[name]
            cells = (format_bytes(size), format_bytes(at_peak), format_fraction(at_peak / m.peak_requested_bytes))
            rows.append((COMPONENT_NAMES[name], *cells))
    rows.append(("requested at the peak", "", format_bytes(m.peak_requested_bytes), "100 %"))
    return rows


def _kinds_of_gpus(m: Memory, page: Page) -> list[str]:
    """A table of the kinds of GPUs where there are several; [] where all hold the same."""
    if len(m.ranks) < 2:
        return []
    rows = [("GPUs", "blocks", "in flight", "peak")]
    rows += [(r.name, spell(r.layers), spell(r.in_flight), format_bytes(r.peak_requested_bytes)) for r in m.ranks]
    return [*page.table(rows, {1, 2, 3}), ""]


def _memory(plan: Plan, page: Page) -> str:
    m = plan.memory
    phases = [("phase", "peak")] + [(p.phase, format_bytes(p.peak_bytes)) for p in m.phases]
    lines = [
        *_kinds_of_gpus(m, page),
        *page.table(component_rows(m), {1, 2, 3}),
        "",
        *page.table(phases, {1}),
        "",
        page.line("peak phase", m.peak_phase),
        page.line("14-byte rule", format_bytes_decimal(m.rule_14_bytes), "rule of thumb: no gradient, no activations"),
    ]
    if m.peak_allocated_bytes.value is not None:
        context = f"with {format_bytes(m.context_bytes)} of CUDA context"
        if m.nccl_bytes.value:
            context += f" and {format_bytes(m.nccl_bytes.value)} of NCCL buffers"
        lines += [
            page.line("allocated", *with_interval(format_bytes, m.peak_allocated_bytes)),
            page.line("reserved", *with_interval(format_bytes, m.peak_reserved_bytes)),
            page.line("device used", format_bytes(m.device_used_bytes), context),
        ]
    lines.append(page.line("usable", format_bytes(m.usable_bytes)))
    lines.append(page.line("verdict", *_verdict(plan)))
    return page.section("Memory per device", *lines)


def _verdict(plan: Plan) -> tuple[str, str]:
    """Whether it fits, with the bytes, as in the finding."""
    m = plan.memory
    if m.fits is None:
        return VERDICTS[None], why_fits_is_unknown(m)
    needed = f"needs {needs(plan)}"
    with_nccl = " and NCCL" if m.nccl_bytes.value else ""
    included = "" if m.context_bytes is None else f", CUDA context{with_nccl} included"
    if needed.startswith("needs at least"):
        return VERDICTS[m.fits], f"the state without activations {needed}{included}"
    if m.device_used_bytes is None:
        return VERDICTS[m.fits], f"the step's tensors: {needed}"
    how = "simulated allocator" if m.fits_by == BY_REPLAY else "allocator estimated by a rule:"
    return VERDICTS[m.fits], f"{how} {needed}{included}"


def _schedule(plan: Plan, page: Page) -> str:
    rows = [("step", "tokens", "learning rate")]
    rows += [(f"{spell(p.step)}", format_count(p.tokens), format_number(p.lr)) for p in plan.schedule.points]
    return page.section(f"Schedule ({plan.schedule.kind})", *page.table(rows, {0, 1, 2}))


def _money(plan: Plan, page: Page) -> str:
    c = plan.cost
    return page.section(
        "Cost",
        page.line("price per GPU-hour", format_money(c.usd_per_gpu_hour), c.price_source.partition(";")[0]),
        page.line("cost", *with_interval(format_money, c.usd)),
        page.line("energy", "unknown" if c.energy_kwh is None else f"{format_number(c.energy_kwh)} kWh", "GPUs x PUE"),
        page.line("CO2e", "unknown" if c.co2e_kg is None else f"{format_number(c.co2e_kg)} kg"),
    )
