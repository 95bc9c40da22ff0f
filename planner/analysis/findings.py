"""Findings: what is wrong or unusual about a plan, and how to mend it. Fast: no search for what fits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from planner.analysis.fitting import needs, with_remedies
from planner.analysis.plausible import plausibility_findings
from planner.analysis.ranges import batch_findings, outside, precision_findings, schedule_findings
from planner.config.run import CPU
from planner.counts.untrained import untrained_parts
from planner.finding import Finding
from planner.memory.coverage import not_covered
from planner.plan import Plan
from planner.presets import UNLISTED_GPU
from planner.rules import rules
from planner.step_time.profile_rates import not_timed
from planner.units import format_bytes, format_count, format_fraction

NOMINAL_TOLERANCE = 0.05
# reasons why it is unknown whether a plan fits that no other finding gives
OPEN = ("no_cuda_total", "nccl_buffers", "upper_bound_only", "layout_interval", "recomputation_interval")
PADDING = 64  # tensor cores want multiples; nanoGPT pads 50257 to 50304


def findings_with_remedies(plan: Plan) -> tuple[Finding, ...]:
    """All findings of a plan, errors first, those about memory with the cheapest change that mends them (up to 2 s)."""
    return with_remedies(plan, findings(plan))


def findings(plan: Plan) -> tuple[Finding, ...]:
    """All findings of a plan, errors first; the remedy of those about memory is "", since it takes a search."""
    schedule = schedule_findings(plan.config.schedule, plan.batch.steps, plan.parameters.active)
    found = [
        *_memory(plan),
        *_speed(plan),
        *batch_findings(plan),
        *precision_findings(plan),
        *schedule,
        *_optimizer(plan),
        *plausibility_findings(plan),
        *_rest(plan),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda f: order[f.level]))


def _memory(plan: Plan) -> Iterator[Finding]:
    """Findings about memory; `fitting.with_remedies` adds the remedy of the first three."""
    m, needed = plan.memory, needs(plan)
    bound = not_covered(plan.run) is not None
    if m.fits is False:
        in_phase = "" if needed.startswith("at least") else f" in the phase {m.peak_phase}"
        of = in_phase if m.context_bytes is None else f"{in_phase} (CUDA context: {format_bytes(m.context_bytes)}"
        if m.context_bytes is not None:
            of += f"; NCCL: {format_bytes(m.nccl_bytes.value)})" if m.nccl_bytes.value else ")"
        yield Finding("error", "does_not_fit", f"the plan needs {needed}{of}", "")
    elif m.fits_unknown is not None and m.fits_unknown.code in OPEN:
        why = f"whether it fits is unknown: {m.fits_unknown.why}"
        yield Finding("warning", "fits_unknown", f"the plan needs {needed}; {why}", "")
    elif m.fits and m.usable_bytes and m.device_used_bytes:
        used = m.device_used_bytes / m.usable_bytes
        if used > 1:
            yield Finding(
                "warning",
                "allocator_thrash",
                f"the plan needs {needed}: it fits{', perhaps' * bound} only because the allocator frees unused "
                "segments and tries again, and each retry stops the GPU",
                "",
            )
        elif used > rules("roofline")["memory"]["nearly_full"]:
            yield Finding(
                "warning",
                "nearly_full",
                f"the plan needs {needed}: it fits, but {'may leave' if bound else 'leaves'} no room for another "
                "process or a prediction error",
                "",
            )
    parts = untrained_parts(plan.config.model)
    if parts:
        yield Finding(
            "warning",
            "architecture_not_simulated",
            f"memory and speed are those of the same model without {', '.join(parts)}; `gptplan run` does not train it",
            "parameters and FLOPs are counted in full; measure the memory of a step in the program that trains it",
        )
    uncounted = not_covered(plan.run)
    if uncounted is not None:
        yield Finding(
            "warning",
            "memory_upper_bound",
            f"the memory of {uncounted} is unknown: an upper bound is shown (eager, or without checkpointing)",
            'set runtime = "eager" or "autocast" under [training], which are predicted exactly, or measure a step',
        )
    if plan.config.training.activation_checkpointing == "selective" and plan.config.training.runtime != "fused":
        yield Finding(
            "note",
            "selective_saves_little",
            "flash attention stores no scores: recomputing its core saves only the log-sum-exp and rotated copies",
            "use --activation-checkpointing full if memory is short, else none",
        )


def _speed(plan: Plan) -> Iterator[Finding]:
    hardware = plan.config.hardware
    if plan.config.profile is not None and plan.throughput.basis == "datasheet":
        yield Finding(
            "note",
            "profile_left_aside",
            f"{not_timed(plan.config)}: the speed is estimated from published specs",
            "give a measured --tokens-per-second, a recipe that computes in fp32 or bf16, or a new profile",
        )
    if plan.throughput.basis == "unknown":
        if plan.config.profile is not None:
            why = plan.throughput.why_unknown
            yield Finding(
                "warning",
                "unpriced_parts",
                f"the speed is unknown: {why}",
                "give a measured --tokens-per-second, --tflops or --mfu",
            )
            return
        if hardware.gpu == CPU:
            left = [f": {a.source}" for a in plan.config.provenance.assumptions if a.key == "profile"]
            yield Finding(
                "warning",
                "no_profile",
                f"the speed of this machine's processor is unknown{''.join(left)}",
                "measure it once with: gptplan calibrate",
            )
            return
        kind = plan.config.training.recipe
        if hardware.gpu == UNLISTED_GPU:
            yield Finding(
                "warning",
                "unlisted_gpu",
                "no preset describes this GPU: its memory, and whether the plan fits, are unknown, and so is its speed",
                "add presets/gpus/<id>.toml with its driver name and published specs; gptplan calibrate measures speed",
            )
            return
        yield Finding(
            "warning",
            "unknown_speed",
            f"the published specs of {hardware.gpu} lack the peak or the bandwidth that the speed of {kind} needs",
            "give a --tokens-per-second, --tflops or --mfu measured on that GPU",
        )


def _optimizer(plan: Plan) -> Iterator[Finding]:
    o, general = plan.config.optimizer, rules("ranges")["general"]
    rate = rules("optimizers")[o.name].get("rate")
    if rate and any(a.key == "peak_lr" for a in plan.config.provenance.assumptions):
        yield Finding(
            "warning", "rate_of_adamw", f"the peak learning rate follows the rule for AdamW; {rate}", "give --peak-lr"
        )
    if o.clip_norm is None:
        yield Finding("warning", "no_clipping", "gradients are not clipped", "give --clip-norm 1")
    elif outside(o.clip_norm, general["clip_norm"]):
        yield Finding("note", "clip_norm", f"clipping at {o.clip_norm:g} is unusual", "1.0 is the common value")
    if outside(o.weight_decay, general["weight_decay"]):
        yield Finding("note", "weight_decay", f"a decay of {o.weight_decay:g} is unusual", "0.01 to 0.1 is common")
    if o.beta2 > 0.99:
        yield Finding(
            "note",
            "beta2",
            f"beta2 = {o.beta2:g} averages over {1 / (1 - o.beta2):,.0f} steps",
            "language models use 0.95 (GPT-3, LLaMA)",
        )


def _rest(plan: Plan) -> Iterator[Finding]:
    model, config = plan.config.model, plan.config
    recipe = plan.run.recipe
    if not recipe.trainable:
        yield Finding(
            "note",
            "recipe_not_run",
            f"the reference trainer does not run {recipe.id}: the plan follows published descriptions",
            "`gptplan run` takes mixed-bf16, master-bf16, fp32 and others",
        )
    untrained = None if model.rope_scaling is None else model.rope_scaling.untrained
    if untrained is not None:
        yield Finding(
            "warning",
            "rope_scaling_not_trained",
            f"the reference trainer has no {untrained}: `gptplan run` refuses this model",
            "remove [model.rope_scaling] from run.toml to train at the original context",
        )
    exact, nominal = plan.parameters.total, plan.nominal_parameters
    if abs(exact / nominal - 1) > NOMINAL_TOLERANCE:
        yield Finding(
            "warning",
            "nominal_differs",
            f"the shape has {format_count(exact)} parameters, {format_fraction(exact / nominal - 1)} from "
            "the number typed",
            "give the shape with --layers and --hidden, or another --vocab",
        )
    if model.vocab % PADDING:
        rows = -model.vocab % PADDING
        more = rows * model.hidden * (1 if model.tied_embeddings else 2)
        yield Finding(
            "note",
            "vocab_padding",
            f"a vocabulary of {model.vocab:,} is not a multiple of {PADDING}: the head's matmul runs on padded tiles",
            f"--pad-vocab {PADDING} adds {rows} rows that no token uses: {more:,} parameters, "
            f"{format_fraction(more / exact)} of the model",
        )
    every = config.training.checkpoint_every
    if (every is None or every >= plan.batch.steps) and (plan.time.seconds.value or 0) > 3600:
        yield Finding(
            "warning",
            "no_checkpoints",
            "the run lasts more than an hour and saves a checkpoint only at its end",
            "give --checkpoint-every STEPS",
        )
    yield from _price(plan)


def _price(plan: Plan) -> Iterator[Finding]:
    as_of, dated = plan.config.provenance.as_of, plan.cost.price_date
    if dated is not None:
        days = _days_between(dated, as_of)
        if days is not None and days > rules("ranges")["general"]["old_price_days"]:
            yield Finding(
                "note",
                "old_price",
                f"the price is {days} days old ({dated})",
                "give today's price with --price-per-gpu-hour",
            )
    elif plan.cost.usd_per_gpu_hour is None and plan.config.hardware.gpu != CPU:
        yield Finding(
            "note",
            "unknown_price",
            f"no price list has {plan.config.hardware.gpu}",
            "give --price-per-gpu-hour",
        )


def _days_between(earlier: str, later: str) -> int | None:
    """Days between two dates; a date of only year, or year and month, counts from its beginning."""
    try:
        first = date.fromisoformat((earlier + "-01-01")[:10] if len(earlier) < 8 else earlier)
        return (date.fromisoformat(later) - first).days
    except ValueError:
        return None
