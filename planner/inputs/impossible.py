"""What no run can have: a speed above the card's, a batch above any number of a config. Each is refused."""

from __future__ import annotations

from planner.config.layout import batch_problem
from planner.config.run import RunConfig
from planner.counts.flops import flops_of
from planner.counts.run import recipe_of, resolve, tokens_per_step
from planner.formulas.flops import training_flops_6nd
from planner.inputs.key_names import with_flag
from planner.units import CHOSEN, format_count_exact, format_flops_rate, format_rate

_TFLOPS, _TOKENS = with_flag("hardware.tflops"), with_flag("hardware.tokens_per_second")
_BATCH = " x ".join(map(with_flag, ("training.micro_batch", "training.accumulation", "hardware.gpus")))
_TOO_FAST = "no program computes faster than its card: time and cost would be too low"
LARGEST_BATCH = 10**18  # tokens per step: as the other numbers of a config


def impossibility(config: RunConfig) -> tuple[str, str, str] | None:
    """What is impossible about a whole config, why, and the remedy; None where nothing is.

    Raises UnknownNameError for an unknown card or recipe.
    """
    batch = tokens_per_step(config)
    if batch > LARGEST_BATCH:
        return (
            f"{_BATCH} make a step of {format_count_exact(batch)} tokens",
            "a config holds no number above 10^18",
            "give smaller ones",
        )
    return batch_problem(config) or impossible_speed(config)


def impossible_speed(config: RunConfig) -> tuple[str, str, str] | None:
    """What is wrong with a typed speed above the card's dense peak, why, and the remedy; None where nothing is.

    A rate in FLOP/s is by 6·N·D, which leaves attention out: what the matrix products and the causal half of attention
    need at that speed may not exceed the peak either. Nothing is said of a card whose peak for the recipe's type is
    unknown. Raises UnknownNameError for an unknown card or recipe.
    """
    typed, total = config.hardware.tflops, config.hardware.tokens_per_second
    if typed is None and total is None:
        return None
    run = resolve(config)
    kind = recipe_of(config).compute_dtype
    peak = run.gpu.peak_dense_flops.get(kind) if run.gpu else None
    if not peak or not run.gpu:
        return None
    per_token = flops_of(run).per_token_model_causal
    if typed is None:
        assert total is not None
        return _too_many_tokens(total, per_token, config.hardware.gpus, run.gpu.id, kind, peak)
    by_rule = float(training_flops_6nd(run.compute_parameters, 1))
    needed = typed * per_token / by_rule
    if max(typed, needed) <= peak:
        return None
    said = f"{_TFLOPS}: {format_flops_rate(typed, CHOSEN)} per GPU is"
    if typed <= peak:
        with_attention = f"means {format_flops_rate(needed)} with attention, which is"
        said = f"{_TFLOPS}: {format_flops_rate(typed, CHOSEN)} per GPU by 6·N·D {with_attention}"
    most = format_flops_rate(peak * min(1.0, typed / needed))
    return (
        f"{said} above the dense peak of {run.gpu.id} in {kind}, {format_flops_rate(peak, CHOSEN)}",
        _TOO_FAST,
        f"give the speed of one GPU, below {most}, or --mfu, such as 40%",
    )


def _too_many_tokens(
    total: float, per_token: int, gpus: int, card: str, kind: str, peak: float
) -> tuple[str, str, str] | None:
    """The same of tokens per second of the whole run."""
    needed = total * per_token / gpus
    if needed <= peak:
        return None
    on = f"{format_count_exact(gpus)} GPUs" if gpus > 1 else "one GPU"
    return (
        f"{_TOKENS}: {format_rate(total)} on {on} need {format_flops_rate(needed)} per GPU, above the dense peak of "
        f"{card} in {kind}, {format_flops_rate(peak, CHOSEN)}",
        _TOO_FAST,
        f"give the tokens per second of all GPUs together, below {format_rate(peak * gpus / per_token)}, or --mfu",
    )
