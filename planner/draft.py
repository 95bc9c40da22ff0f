"""What was typed to a whole `RunConfig`: every gap is filled by a rule, and each filling is an `Assumption`.

With a base config (`--config run.toml`) everything in it stands unless a flag names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from planner import presets
from planner.batching import batch_of
from planner.config import (
    CPU,
    Assumption,
    HardwareConfig,
    ModelConfig,
    OptimizerConfig,
    Provenance,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
)
from planner.config_file import explain_validation
from planner.errors import InputError, UnknownNameError
from planner.model_choice import model_of
from planner.rules import rules
from planner.shape import nominal_parameters, steps_of, tokens_per_step
from planner.typed import Typed, flag
from planner.units import TERA, format_count, format_number, parse_count, parse_money, parse_number

DEFAULT_GPU = "a100-80gb"
DEFAULT_SEQ = 1024
CHECKPOINTING = ("none", "selective", "full")
RECIPE_OF_PRECISION = {"bf16": "mixed-bf16", "fp32": "fp32"}
WARMUP_STEPS = 2000
WARMUP_SHARE = 0.02


class Notes:
    """Collects the assumptions of a draft."""

    def __init__(self) -> None:
        self.found: dict[str, Assumption] = {}

    def add(self, key: str, value: object, source: str) -> None:
        """Record that `key` was not typed, which value it got, and by which rule."""
        self.found[key] = Assumption(key=key, value=str(value), source=source)


def draft(
    typed: Typed,
    *,
    as_of: str,
    version: str,
    base: RunConfig | None = None,
    machine_gpu: str | None = None,
    profile: dict[str, object] | None = None,
) -> RunConfig:
    """The whole config of what was typed.

    as_of: today's date. version: of the program that writes it. base: the file that the flags override.
    machine_gpu: preset of the GPU that this machine's driver shows. profile: measured times of this machine's
    processor, used when the run is planned for it.
    Raises InputError (with its kinds) for text that cannot be read, unknown names and contradictions.
    """
    _refuse_contradictions(typed)
    notes = Notes()
    if base is not None:
        notes.found = {a.key: a for a in base.provenance.assumptions}
        for name in typed.given(*notes.found):
            del notes.found[name]
    seq = _seq(typed, base, notes)
    model = model_of(typed, base.model if base else None, seq, notes)
    hardware = _hardware(typed, base, machine_gpu, notes)
    if typed.seq is None and base is None and seq > model.context:
        seq = model.context
        notes.add("seq", seq, "the model's context is shorter than the default")
    training = batch_of(typed, base, model, _training(typed, base, seq, notes), hardware, notes)
    whole: RunConfig = _validated(
        RunConfig,
        model=model,
        training=training,
        optimizer=_optimizer(base, notes),
        schedule=ScheduleConfig(peak_lr=1.0, min_lr=0.0, warmup_steps=0),
        hardware=hardware,
        provenance=Provenance(as_of=as_of, gptplan=version),
        profile=profile if hardware.gpu == CPU else None,
    )
    _refuse_empty_run(whole, typed)
    schedule = _schedule(typed, base, whole, notes)
    provenance = Provenance(as_of=as_of, gptplan=version, assumptions=tuple(notes.found.values()))
    return whole.model_copy(update={"schedule": schedule, "provenance": provenance})


def _validated(section: type[Any], **values: Any) -> Any:
    try:
        return section(**values)
    except ValidationError as error:
        raise InputError(*explain_validation(error)) from None


def _refuse_contradictions(typed: Typed) -> None:
    """Flags that say the same thing twice are refused, not ranked."""
    either = [
        (("params", "model", "hf_config"), "each chooses the model"),
        (("params", "layers"), "the rule of --params chooses the layers"),
        (("params", "hidden"), "the rule of --params chooses the width"),
        (("tokens", "steps"), "one follows from the other and the batch"),
        (("accumulation", "global_batch_tokens"), "the batch in tokens fixes the accumulation"),
        (("precision", "recipe"), "a recipe contains the precision"),
        (("warmup_steps", "warmup_tokens", "warmup_ratio"), "each fixes the warm-up"),
        (("tflops", "mfu"), "each fixes the speed"),
    ]
    for names, why in either:
        found = typed.given(*names)
        if len(found) > 1:
            flags = " and ".join(flag(n) for n in found)
            raise InputError(f"{flags} contradict each other", why=why, remedy=f"give one of {flags}")


def _count(typed: Typed, name: str) -> int | None:
    text = getattr(typed, name)
    return None if text is None else parse_count(text, name=flag(name))


def _number(typed: Typed, name: str, *, allow_zero: bool = False) -> float | None:
    text = getattr(typed, name)
    return None if text is None else parse_number(text, name=flag(name), allow_zero=allow_zero)


def _choice(typed: Typed, name: str, known: tuple[str, ...], kind: str) -> str | None:
    text = getattr(typed, name)
    if text is not None and text not in known:
        raise UnknownNameError(kind, text, known)
    return text if text is None else str(text)


def _seq(typed: Typed, base: RunConfig | None, notes: Notes) -> int:
    found = _count(typed, "seq")
    if found is not None:
        return found
    if base is not None:
        return base.training.seq
    notes.add("seq", DEFAULT_SEQ, "default: GPT-2's context (Radford et al. 2019)")
    return DEFAULT_SEQ


def _hardware(typed: Typed, base: RunConfig | None, machine_gpu: str | None, notes: Notes) -> HardwareConfig:
    old = base.hardware if base else None
    gpu = typed.gpu
    if gpu is not None and gpu != CPU and gpu not in presets.gpu_ids():
        raise UnknownNameError("GPU", gpu, [*presets.gpu_ids(), CPU])
    if gpu is None and old is None:
        gpu = machine_gpu or DEFAULT_GPU
        rule = "this machine's GPU, as its driver names it" if machine_gpu else "default: the driver shows no GPU here"
        notes.add("gpu", gpu, rule)
    gpus = _count(typed, "gpus")
    if gpus is None and old is None:
        notes.add("gpus", 1, "default")
    tflops, mfu = _number(typed, "tflops"), _number(typed, "mfu")
    price = typed.price_per_gpu_hour
    speed_typed = tflops is not None or mfu is not None
    return HardwareConfig(
        gpu=gpu or (old.gpu if old else DEFAULT_GPU),
        gpus=gpus or (old.gpus if old else 1),
        tflops=tflops * TERA if tflops is not None else (old.tflops if old and not speed_typed else None),
        mfu=_share(mfu) if mfu is not None else (old.mfu if old and not speed_typed else None),
        usd_per_gpu_hour=parse_money(price, name=flag("price_per_gpu_hour"), allow_zero=True)
        if price is not None
        else (old.usd_per_gpu_hour if old else None),
    )


def _share(mfu: float) -> float:
    if mfu > 1:
        raise InputError(
            f"--mfu: {mfu:g} is above 1",
            why="MFU is a share of the dense peak; more than all of it cannot be reached",
            remedy="write 0.4 or 40%",
        )
    return mfu


def _training(typed: Typed, base: RunConfig | None, seq: int, notes: Notes) -> TrainingConfig:
    """Everything of the section but the batch, for which one sequence stands."""
    old = base.training if base else None
    tokens, steps = _count(typed, "tokens"), _count(typed, "steps")
    if tokens is None and steps is None:
        if old is None:
            raise InputError(
                "the length of the run is missing",
                why="time, cost and schedule follow from it",
                remedy="give --tokens, such as --tokens 10B, or --steps",
            )
        tokens, steps = old.tokens, old.steps
    found: TrainingConfig = _validated(
        TrainingConfig,
        tokens=tokens,
        steps=steps,
        dataset_tokens=_count(typed, "dataset_tokens") or (old.dataset_tokens if old else None),
        seq=seq,
        micro_batch=1,
        accumulation=1,
        recipe=_recipe(typed, old, notes),
        activation_checkpointing=_or_default(
            _choice(typed, "activation_checkpointing", CHECKPOINTING, "activation checkpointing mode"),
            old.activation_checkpointing if old else None,
            lambda: _noted(notes, "activation_checkpointing", "none", "default"),
        ),
        seed=_or_default(_seed(typed), old.seed if old else None, lambda: _noted(notes, "seed", 1337, "default")),
        checkpoint_every=_count(typed, "checkpoint_every") or (old.checkpoint_every if old else None),
    )
    return found


def _seed(typed: Typed) -> int | None:
    return None if typed.seed is None else parse_count(typed.seed, name="--seed", allow_zero=True)


def _recipe(typed: Typed, old: TrainingConfig | None, notes: Notes) -> str:
    if typed.recipe is not None:
        return presets.recipe(typed.recipe).id
    precision = _choice(typed, "precision", tuple(RECIPE_OF_PRECISION), "precision")
    if precision is not None:
        return RECIPE_OF_PRECISION[precision]
    if old is not None:
        return old.recipe
    return str(_noted(notes, "recipe", "mixed-bf16", "default: fp32 weights, gradients and moments, bf16 products"))


def _noted(notes: Notes, key: str, value: Any, source: str) -> Any:
    notes.add(key, value, source)
    return value


def _or_default(typed: Any, old: Any, default: Callable[[], Any]) -> Any:
    if typed is not None:
        return typed
    return old if old is not None else default()


def _optimizer(base: RunConfig | None, notes: Notes) -> OptimizerConfig:
    if base is not None:
        return base.optimizer
    notes.add("optimizer", "AdamW, betas 0.9 and 0.95, eps 1e-8, decay 0.1", "GPT-3 appendix B (arXiv 2005.14165)")
    notes.add("clip_norm", "1.0", "GPT-3 appendix B (arXiv 2005.14165)")
    return OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)


def _refuse_empty_run(config: RunConfig, typed: Typed) -> None:
    if steps_of(config) < 1:
        per_step = tokens_per_step(config)
        raise InputError(
            f"--tokens: {config.training.tokens:,} tokens are less than one step of {per_step:,} tokens",
            why="a step is never partial, so there would be none",
            remedy=f"give at least {per_step:,} tokens, or a smaller --global-batch-tokens",
        )


def _schedule(typed: Typed, base: RunConfig | None, config: RunConfig, notes: Notes) -> ScheduleConfig:
    _choice(typed, "schedule", ("cosine",), "schedule")
    _choice(typed, "optimizer", ("adamw",), "optimizer")
    old = base.schedule if base else None
    peak = _number(typed, "peak_lr")
    if peak is None:
        peak = old.peak_lr if old else _peak_rate(config.model, notes)
    floor = _number(typed, "min_lr", allow_zero=True)
    if floor is None:
        floor = old.min_lr if old and typed.peak_lr is None else _tenth(peak)
        if old is None or typed.peak_lr is not None:
            notes.add("min_lr", format_number(floor), "default: a tenth of the peak (GPT-3 appendix B)")
    warmup = _warmup(typed, config)
    if warmup is None:
        warmup = old.warmup_steps if old else _default_warmup(config, notes)
    if warmup > steps_of(config):
        raise InputError(
            f"warm-up of {warmup:,} steps is longer than the run of {steps_of(config):,} steps",
            why="the rate would never reach its peak",
            remedy="give a smaller --warmup-steps, or more --tokens",
        )
    found: ScheduleConfig = _validated(ScheduleConfig, peak_lr=peak, min_lr=floor, warmup_steps=warmup)
    return found


def _tenth(rate: float) -> float:
    """A tenth, to the digits that a person would write: 6e-5 and not 5.9999999999999995e-05."""
    return float(f"{rate / 10:.12g}")


def _warmup(typed: Typed, config: RunConfig) -> int | None:
    if typed.warmup_steps is not None:
        return parse_count(typed.warmup_steps, name="--warmup-steps", allow_zero=True)
    if typed.warmup_tokens is not None:
        tokens = parse_count(typed.warmup_tokens, name="--warmup-tokens", allow_zero=True)
        return -(-tokens // tokens_per_step(config))
    if typed.warmup_ratio is not None:
        ratio = parse_number(typed.warmup_ratio, name="--warmup-ratio", allow_zero=True)
        if ratio > 1:
            raise InputError(
                f"--warmup-ratio: {ratio:g} is above 1",
                why="it is a share of the steps",
                remedy="write 0.02 or 2%",
            )
        return round(ratio * steps_of(config))
    return None


def _default_warmup(config: RunConfig, notes: Notes) -> int:
    steps = steps_of(config)
    warmup = max(1, min(WARMUP_STEPS, round(WARMUP_SHARE * steps)))
    notes.add("warmup_steps", warmup, "2 % of the steps, at most 2,000 (LLaMA, arXiv 2302.13971, section 2.3)")
    return warmup


def _peak_rate(model: ModelConfig, notes: Notes) -> float:
    table, n = rules("peak-rate"), nominal_parameters(model)
    row = min(table["row"], key=lambda r: max(r["parameters"] / n, n / r["parameters"]))
    rule = f"row of {format_count(row['parameters'])} parameters: {table['source']}; {table['spread']}"
    notes.add("peak_lr", format_number(row["peak_lr"]), rule)
    return float(row["peak_lr"])
