"""The value of every option in a plan, as it would be typed: what an empty field stands for."""

from __future__ import annotations

from planner.config.options import COUNT_OR_NONE, NUMBER_OR_NONE, OPTION, OPTIONS, Option, value_at
from planner.counts.nodes import domain_of
from planner.inputs.draft import RECIPE_OF_PRECISION
from planner.inputs.optimizer import MOMENTUM
from planner.plan import Plan
from planner.units import CHOSEN, format_number, spell_count

# options without a value of their own in a plan: other options show what they chose
WITHOUT_VALUE = (
    "hf_config",
    "profile",
    "family",
    "pad_vocab",
    "warmup_tokens",
    "warmup_ratio",
    "cooldown_tokens",
    "cooldown_ratio",
    "nodes",
)


def effective(plan: Plan) -> dict[str, str]:
    """Option → text, in the table's order; those in WITHOUT_VALUE are left out."""
    config, price = plan.config, plan.cost.usd_per_gpu_hour
    speed = plan.throughput.tokens_per_second.value
    momentum = MOMENTUM.get(config.optimizer.name)
    precision = {recipe: name for name, recipe in RECIPE_OF_PRECISION.items()}
    by_rule = {
        "params": spell_count(plan.nominal_parameters),
        "model": config.model.name,
        "rotary_dim": str(config.model.rope_dim) if config.model.position == "rotary" else "none",
        "norm_bias": OPTION["norm_bias"].kind.choices[config.model.norm_parameters != "gain+bias"],
        "momentum": format_number(getattr(config.optimizer, momentum)) if momentum else "none",
        "tokens": spell_count(plan.tokens.requested),
        "steps": str(plan.batch.steps),
        "global_batch_tokens": str(plan.batch.tokens_per_step),
        "gpus_per_node": str(domain_of(config)),
        "dp": str(config.data_parallel),
        "hsdp": str(config.parallel.hsdp or "one group of all"),
        "precision": precision.get(config.training.recipe, config.training.recipe),
        "state_dtype": config.optimizer.state_dtype or "the weights'",
        "tflops": "predicted",
        "mfu": "predicted" if plan.throughput.mfu.value is None else format_number(plan.throughput.mfu.value),
        "tokens_per_second": "predicted" if speed is None else format_number(speed),
        "price_per_gpu_hour": "unknown" if price is None else format_number(price, CHOSEN),
    }
    shown = (option for option in OPTIONS if option.name not in WITHOUT_VALUE)
    return {o.name: by_rule[o.name] if o.name in by_rule else _text(o, value_at(config, o.key)) for o in shown}


def _text(option: Option, value: object) -> str:
    if value is None:
        return "0" if option.kind in (COUNT_OR_NONE, NUMBER_OR_NONE) else "none"
    if isinstance(value, bool):
        return option.kind.choices[not value]
    return format_number(value, CHOSEN) if isinstance(value, float) else str(value)
