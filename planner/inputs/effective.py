"""The value of every typed field that a plan has, as it would be typed: what an empty field stands for."""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.inputs.draft import RECIPE_OF_PRECISION
from planner.inputs.fields import SWITCHES
from planner.plan import Plan
from planner.units import format_number, spell_count


def effective(plan: Plan) -> dict[str, str]:
    """Field of `Flags` → text. Fields that other fields replace (--hf-config, --family) are left out."""
    config, hardware = plan.config, plan.config.hardware
    precision = {recipe: name for name, recipe in RECIPE_OF_PRECISION.items()}
    price = plan.cost.usd_per_gpu_hour
    return {
        "params": spell_count(plan.nominal_parameters),
        "model": config.model.name,
        **_model(plan),
        "tokens": spell_count(plan.tokens.requested),
        "steps": str(plan.batch.steps),
        "dataset_tokens": _number(config.training.dataset_tokens),
        "global_batch_tokens": str(plan.batch.tokens_per_step),
        "precision": precision.get(config.training.recipe, config.training.recipe),
        **_training(config),
        **_rate(config),
        "gpu": hardware.gpu,
        "gpus": str(hardware.gpus),
        "allocator": hardware.allocator,
        "tflops": "predicted",
        "mfu": "predicted" if plan.throughput.mfu is None else format_number(plan.throughput.mfu),
        "price_per_gpu_hour": "unknown" if price is None else format_number(price),
    }


def _model(plan: Plan) -> dict[str, str]:
    shape, model = plan.shape, plan.config.model
    counts = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")
    choices = ("position", "norm", "norm_placement", "qk_norm", "mlp", "biases")
    moe = model.moe
    experts = ("experts", "top_k", "expert_ffn", "shared_ffn")
    return {
        **{name: str(getattr(shape, name)) for name in counts},
        **{name: str(getattr(model, name)) for name in choices},
        "rotary_dim": str(model.rope_dim) if model.position == "rotary" else "none",
        "tied": SWITCHES["tied"][not model.tied_embeddings],
        "sliding_window": str(model.sliding_window or 0),
        **{name: "none" if moe is None else str(getattr(moe, name)) for name in experts},
    }


def _training(config: RunConfig) -> dict[str, str]:
    t, optimizer = config.training, config.optimizer
    same: tuple[str, ...] = ("seq", "micro_batch", "accumulation", "recipe", "runtime", "loss_chunks", "seed")
    same += ("activation_checkpointing", "activation_checkpointing_every")
    return {
        **{name: str(getattr(t, name)) for name in same},
        "attention": t.attention_kernel,
        "loss_kind": t.loss,
        "dropout": format_number(t.dropout),
        "optimizer": optimizer.name,
        "optimizer_implementation": optimizer.implementation,
        "state_dtype": optimizer.state_dtype or "the weights'",
        "checkpoint_every": _number(t.checkpoint_every),
        "keep_checkpoints": _number(config.checkpoints.keep),
        "async_save": "yes" if config.checkpoints.asynchronous else "no",
        "eval_every": _number(config.evaluation.every),
        "eval_tokens": _number(config.evaluation.tokens),
        "patience": _number(config.evaluation.patience),
        "on_spike": config.guard.on_spike,
    }


def _rate(config: RunConfig) -> dict[str, str]:
    s = config.schedule
    return {
        "schedule": s.kind,
        "peak_lr": format_number(s.peak_lr),
        "min_lr": format_number(s.min_lr),
        "warmup_steps": str(s.warmup_steps),
        "cooldown_steps": str(s.cooldown_steps),
        "decay_power": format_number(s.decay_power),
    }


def _number(n: int | None) -> str:
    return "none" if n is None else str(n)
