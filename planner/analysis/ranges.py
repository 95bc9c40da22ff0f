"""Findings about batch, data and schedule: which range of good practice is left, whose it is, and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.config.run import CPU, ScheduleConfig
from planner.counts.schedule import schedule_rate
from planner.finding import Finding
from planner.formulas import batch
from planner.plan import Plan
from planner.presets import gpu
from planner.rules import rules
from planner.units import format_count, format_fraction, format_number
from planner.units import format_count_exact as spell

FEW_STEPS = 100


def outside(value: float, limits: list[float]) -> bool:
    """Whether a value leaves a range, ends included, by more than rounding."""
    return not limits[0] * (1 - 1e-9) <= value <= limits[1] * (1 + 1e-9)


def ranges_of(parameters: int | None) -> dict[str, Any]:
    """The ranges for a model of this many parameters; None: those that hold for any size."""
    table = rules("ranges")
    if parameters is None:
        return dict(table["general"])
    return dict(next((size for size in table["size"] if parameters <= size["up_to"]), table["size"][-1]))


def critical_batch_of(non_embedding_parameters: int, tokens: int) -> tuple[float, float]:
    """The critical batch at the end of a run, tokens per step, and the loss at which it is read, nats per token.

    Source: `presets/rules/batch.toml`; the loss is that of Kaplan's data and vocabulary, to within some tenths.
    """
    table = rules("batch")
    law = {key: table["loss"][key] for key in ("model_scale", "model_exponent", "data_scale", "data_exponent")}
    loss = float(batch.loss_of_size_and_data(non_embedding_parameters, tokens, **law))
    return float(batch.critical_batch(loss, table["scale_tokens"], table["exponent"])), loss


def batch_findings(plan: Plan) -> Iterator[Finding]:
    """Batch, steps, data."""
    size, tokens = ranges_of(plan.parameters.active), plan.batch.tokens_per_step
    if outside(tokens, size["batch_tokens"]):
        low, high = size["batch_tokens"]
        follows = (
            "steps are noisier and need a lower learning rate" if tokens < low else "steps are fewer and less efficient"
        )
        yield Finding(
            "note",
            "batch_tokens",
            f"{spell(tokens)} tokens per step are outside {format_count(low)} to {format_count(high)}, usual for "
            f"{size['name']} models ({size['source']}): {follows}",
            "change --global-batch-tokens, unless the batch was tuned",
        )
    critical, loss = critical_batch_of(max(plan.parameters.non_embedding, 1), plan.tokens.requested)
    if tokens > critical:
        more = 1 + tokens / critical
        yield Finding(
            "note",
            "critical_batch",
            f"{spell(tokens)} tokens per step exceed the critical batch of about {format_count(critical)} at a loss of "
            f"{loss:.2f} (Kaplan et al. 2020): it needs {format_number(more)} times the data of a small batch",
            "a smaller --global-batch-tokens reaches the same loss with fewer tokens, in more steps",
        )
    if plan.batch.steps < FEW_STEPS:
        yield Finding(
            "warning",
            "few_steps",
            f"only {plan.batch.steps} optimizer steps: too few for the schedule and for Adam's averages",
            "give more --tokens, or a smaller --global-batch-tokens",
        )
    low, high = rules("ranges")["general"]["tokens_per_parameter"]
    ratio = plan.tokens.requested / plan.run.compute_parameters  # Hoffmann's N is that of 6·N·D
    if not low <= ratio <= high:
        yield Finding(
            "note",
            "tokens_per_parameter",
            f"{_tokens_per_parameter(plan, ratio)}; 20 are compute-optimal (Hoffmann et al. 2022)",
            "train longer or on a smaller model" if ratio < low else "a larger model would use the same compute better",
        )
    if plan.config.training.dataset_tokens is not None:
        yield from repetition_findings(plan.tokens.trained, plan.config.training.dataset_tokens)


def _tokens_per_parameter(plan: Plan, ratio: float) -> str:
    """The ratio in words; of a mixture of experts that of the active parameters, and beside it that of all."""
    if plan.config.model.moe is None:
        return f"{format_number(ratio)} tokens per parameter"
    of_all = format_number(plan.tokens.requested / plan.parameters.total)
    return f"{format_number(ratio)} tokens per active parameter ({of_all} per parameter of all experts)"


def repetition_findings(tokens: int, dataset_tokens: int) -> Iterator[Finding]:
    """Data seen more than once: a note, and a warning where it pays much less than new data."""
    if tokens <= dataset_tokens:
        return
    table = rules("batch")["repetition"]
    seen = float(batch.epochs(tokens, dataset_tokens))
    worth = float(batch.effective_tokens(tokens, dataset_tokens, table["scale"]))
    late = seen > table["epochs"]
    rule = f"beyond about {table['epochs']} epochs" if late else f"up to {table['epochs']} epochs nearly as good as new"
    yield Finding(
        "warning" if late else "note",
        "epochs",
        f"the data is used {format_number(seen)} times, {rule}: {format_count(tokens)} training tokens, "
        f"worth {format_count(worth)} new ones (Muennighoff et al. 2023)",
        "get more data, or train on fewer tokens" if late else "no change needed, unless you have more data",
    )


def precision_findings(plan: Plan) -> Iterator[Finding]:
    """Products in fp32 on a card that has bf16."""
    hardware = plan.config.hardware
    if hardware.gpu == CPU or plan.run.recipe.compute_dtype != "fp32":
        return
    if gpu(hardware.gpu).peak_dense_flops.get("bf16"):
        yield Finding(
            "note",
            "no_bf16",
            f"the matrix products run in fp32, but {hardware.gpu} has bf16: the same range, many times faster",
            "give --precision bf16, unless the run needs fp32 products",
        )


def schedule_findings(schedule: ScheduleConfig, steps: int, parameters: int | None) -> Iterator[Finding]:
    """The schedule of a run of so many steps; parameters: of the model, None where there is none."""
    s, size = schedule, ranges_of(parameters)
    if outside(s.peak_lr, size["peak_lr"]):
        low, high = size["peak_lr"]
        follows = "it may diverge" if s.peak_lr > high else "training is slower than necessary"
        yield Finding(
            "warning" if s.peak_lr > 2 * high else "note",
            "peak_lr",
            f"a peak learning rate of {format_number(s.peak_lr)} is outside {format_number(low)} to "
            f"{format_number(high)}, usual for {size['name']} models ({size['source']}): {follows}",
            "change --peak-lr, or sweep it on a short run; the best rate falls as the width grows (arXiv 2203.03466)",
        )
    yield from _warmup(s, steps, size)
    if schedule_rate(s, steps, steps) == 0:
        yield Finding(
            "warning",
            "zero_floor",
            "the learning rate ends at 0: the last updates change almost nothing",
            "keep a minimum, such as a tenth of the peak: --min-lr 10%",
        )
    if s.kind == "wsd" and s.cooldown_steps == 0:
        yield Finding(
            "note",
            "no_cooldown",
            "a wsd schedule without cooldown is constant: the loss keeps the noise of the peak rate",
            "give --cooldown-ratio 20% (Hägele et al. 2024, arXiv 2405.18392)",
        )


def _warmup(s: ScheduleConfig, steps: int, size: dict[str, Any]) -> Iterator[Finding]:
    if s.warmup_steps == 0:
        root = s.kind == "inverse_sqrt"
        halved = ", and without it inverse_sqrt halves the rate by update 4" if root else ""
        yield Finding(
            "warning",
            "no_warmup",
            f"no warm-up: the first updates use the full learning rate before Adam's averages are reliable{halved}",
            "give --warmup-ratio 1%, or --warmup-steps 2000 (LLaMA, arXiv 2302.13971)",
        )
        return
    if s.warmup_steps == steps:
        yield Finding(
            "note",
            "only_warmup",
            "the warm-up lasts until the end: only the last update has the peak rate",
            "give a smaller --warmup-steps, unless this is a rate test",
        )
        return
    general, share = rules("ranges")["general"], float(batch.warmup_share(s.warmup_steps, steps))
    shares = (size["warmup_share"], general["warmup_share"])
    if any(low * steps - 0.5 <= s.warmup_steps <= high * steps + 0.5 for low, high in shares):  # rounded to a step
        return
    if "warmup_steps" in size and not outside(s.warmup_steps, size["warmup_steps"]):
        return
    low, high = (format_fraction(x) for x in size["warmup_share"])
    usual = f"{low} to {high} of the run"
    if "warmup_steps" in size:
        usual = f"{size['warmup_steps'][0]:,} to {size['warmup_steps'][1]:,} steps or {usual}"
    short = share < size["warmup_share"][0]
    yield Finding(
        "note",
        "warmup",
        f"a warm-up of {spell(s.warmup_steps)} steps ({format_fraction(share)}) is outside {usual}, usual for "
        f"{size['name']} models ({size['source']}): "
        f"{'early updates may be too large' if short else 'many steps have a low learning rate'}",
        f"give a {'longer' if short else 'shorter'} one: --warmup-steps",
    )
