"""What was typed to a whole `RunConfig`: every gap is filled by a rule, and each filling is an `Assumption`.

With a base config (`--config run.toml`) everything in it stands unless a flag names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from planner import presets
from planner.config.loop import CheckpointConfig, EvaluationConfig, GuardConfig
from planner.config.model import ModelConfig
from planner.config.parallel import ParallelConfig
from planner.config.run import (
    CPU,
    SPEED,
    HardwareConfig,
    Provenance,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
)
from planner.config.section import Section
from planner.counts.groups import parameter_groups
from planner.counts.nodes import gpus_per_domain
from planner.counts.run import steps_of, tokens_per_step
from planner.errors import InputError, UnknownNameError
from planner.inputs.batch import batch_of
from planner.inputs.flags import Assumptions, Flags, refuse_contradictions
from planner.inputs.impossible import impossibility
from planner.inputs.model import model_of
from planner.inputs.optimizer import optimizer_of
from planner.inputs.profile_file import is_of, profile_for
from planner.inputs.run_toml import explain_validation
from planner.inputs.runtime import KEY as RUNTIME
from planner.inputs.runtime import default_runtime
from planner.inputs.schedule import Horizon, default_peak, schedule_of
from planner.rules import rules
from planner.units import format_count_exact as spell

DEFAULT_GPU = "a100-80gb"
DEFAULT_SEQ = 1024
LONGEST_FIRST, BEFORE_EXTENSION = 8192, 4096  # tokens: longest context trained at from the start; else this
SOFTWARE = HardwareConfig.model_fields["software"].default
LOOP_SECTIONS: dict[str, type[Section]] = {
    "evaluation": EvaluationConfig,
    "guard": GuardConfig,
    "checkpoints": CheckpointConfig,
}
RECIPE_OF_PRECISION = {"bf16": "mixed-bf16", "fp32": "fp32"}
S = TypeVar("S", bound=Section)


def draft(
    flags: Flags,
    *,
    as_of: str,
    version: str,
    base: RunConfig | None = None,
    machine_gpu: str | None = None,
    profile: dict[str, object] | None = None,
) -> RunConfig:
    """The whole config of what was typed.

    as_of: today's date. version: of the program that writes it. base: the file that the flags override.
    machine_gpu: preset of the GPU that this machine's driver shows. profile: measured times of a card, used when the
    run is planned for that card; --profile names another, and then gives the card if nothing else does.
    Raises InputError (with its kinds) for text that cannot be read, unknown names and contradictions.
    """
    refuse_contradictions(flags)
    assumptions = Assumptions(flags, base)
    seq = _seq(flags, base, assumptions)
    model = model_of(flags, base, seq, assumptions)
    if flags.profile is not None:
        asked = flags.gpu or (base.hardware.gpu if base else None)
        profile, machine_gpu = profile_for(Path(flags.profile).expanduser(), asked)
    parallel = _over(ParallelConfig, "parallel", flags, base)
    hardware = _hardware(flags, base, machine_gpu, assumptions, parallel)
    if flags.profile is not None and flags.gpu is None and base is None:
        assumptions.add("gpu", hardware.gpu, "the card of the machine profile")
    if base is None and flags.seq is None and flags.given("model", "hf_config"):
        seq = _usual_seq(model, assumptions)
    _refuse_long_sequence(seq, model)
    training = _training(flags, base, seq, assumptions)
    optimizer = optimizer_of(flags, base, training.recipe, assumptions)
    whole = _validated(
        RunConfig,
        "",
        model=model,
        training=training,
        optimizer=optimizer,
        schedule=ScheduleConfig(peak_lr=1.0, min_lr=0.0, warmup_steps=0),
        hardware=hardware,
        parallel=parallel,
        **{name: _over(section, name, flags, base) for name, section in LOOP_SECTIONS.items()},
        provenance=Provenance(as_of=as_of, gptplan=version),
        profile=profile if profile is not None and is_of(profile, hardware.gpu) else None,
    )
    if flags.runtime is None and (base is None or RUNTIME in assumptions.found):  # what a file says stays
        whole = _with_default_runtime(whole, assumptions)
    whole = whole.model_copy(update={"training": batch_of(flags, base, whole, assumptions)})
    if optimizer.groups:
        parameter_groups(whole)  # refused where the model no longer has what a rule names
    _refuse_empty_run(whole, flags)
    wrong = impossibility(whole)
    if wrong:
        raise InputError(*wrong)
    horizon = Horizon(steps_of(whole), tokens_per_step(whole), "--tokens" if training.steps is None else "--steps")
    old = base.schedule if base else None
    schedule = schedule_of(flags, old, horizon, assumptions, lambda: default_peak(model, assumptions))
    if whole.hardware.write_bandwidth is None and (whole.evaluation.every or whole.training.checkpoint_every):
        disk = rules("time")["run"]["disk"]
        assumptions.add("write_bandwidth", f"{spell(int(disk['write_bandwidth']))} byte/s", disk["source"])
    if whole.profile is not None:
        assumptions.found.pop("profile", None)  # why an older plan had none
    provenance = Provenance(as_of=as_of, gptplan=version, assumptions=tuple(assumptions.found.values()))
    return whole.model_copy(update={"schedule": schedule, "provenance": provenance})


def _validated(section: type[S], name: str, **values: Any) -> S:
    """`name`: what the section is called in a config, "" for the whole."""
    try:
        return section(**values)
    except ValidationError as error:
        raise InputError(*explain_validation(error, name)) from None


def _over(section: type[S], name: str, flags: Flags, base: RunConfig | None) -> S:
    """The flags of a section over the file's values, else over its defaults."""
    values = getattr(base, name).model_dump() if base else {}
    return _validated(section, name, **values | flags.keys(name))


def _seq(flags: Flags, base: RunConfig | None, assumptions: Assumptions) -> int:
    found = flags.count("seq")
    if found is not None:
        return found
    if base is not None:
        return base.training.seq
    assumptions.add("seq", DEFAULT_SEQ, "default: GPT-2's context (Radford et al. 2019)")
    return DEFAULT_SEQ


def _usual_seq(model: ModelConfig, assumptions: Assumptions) -> int:
    """The sequence that a published model was trained at: its context, unless that is one extended afterwards."""
    if model.context <= LONGEST_FIRST:
        assumptions.add("seq", model.context, "the model's context")
        return model.context
    why = (
        f"default for a context of {model.context:,}: contexts this long are reached at the end of pre-training "
        "(DeepSeek-V3, arXiv 2412.19437, and Qwen2.5, arXiv 2412.15115: from 4,096)"
    )
    assumptions.add("seq", BEFORE_EXTENSION, why)
    return BEFORE_EXTENSION


def _refuse_long_sequence(seq: int, model: ModelConfig) -> None:
    if seq > model.context and model.position == "learned":
        raise InputError(
            f"--seq: {seq:,} is longer than the {model.context:,} learned positions of {model.name}",
            why="its table has no row for the rest",
            remedy=f"give --seq {model.context} or less, or another model: --params N --seq {seq}",
        )


def _hardware(
    flags: Flags, base: RunConfig | None, machine_gpu: str | None, assumptions: Assumptions, parallel: ParallelConfig
) -> HardwareConfig:
    old = base.hardware if base else None
    gpu = flags.gpu
    if gpu not in (None, CPU, presets.UNLISTED_GPU, *presets.gpu_ids()):
        raise UnknownNameError("GPU", str(gpu), [*presets.gpu_ids(), CPU]).with_note("--gpu, in run.toml: hardware.gpu")
    if gpu is None and old is None:
        gpu = machine_gpu or DEFAULT_GPU
        rule = "this machine's GPU, as its driver names it" if machine_gpu else "default: the driver shows no GPU here"
        assumptions.add("gpu", gpu, rule)
    typed = flags.keys("hardware") | _gpus(flags, base, parallel, gpu)
    if flags.software is None and old is None and gpu != CPU:
        assumptions.add("software", SOFTWARE, "default: the newest whose kernels were measured")
    if "gpus" not in typed and old is None:
        typed["gpus"] = parallel.gpus_per_replica
        each = "default" if parallel.gpus_per_replica == 1 else "one replica: tp x pp x cp"
        assumptions.add("gpus", typed["gpus"], each)
    values: dict[str, Any] = {"gpu": gpu} | (old.model_dump() if old else {}) | typed
    other_card = old is not None and gpu not in (None, old.gpu)
    if other_card or flags.given(*SPEED):
        values |= {name: typed.get(name) for name in SPEED}
    if old is not None and other_card:  # speed and price belong to one card
        if old.speed_is_given and not flags.given(*SPEED):
            assumptions.add("speed", "predicted", f"the speed in the file is that of another card, {old.gpu}")
        if old.usd_per_gpu_hour is not None and flags.price_per_gpu_hour is None:
            values["usd_per_gpu_hour"] = None
            assumptions.add(
                "price_per_gpu_hour", "price list", f"the price in the file is that of another card, {old.gpu}"
            )
    return _validated(HardwareConfig, "hardware", **values)


def _gpus(flags: Flags, base: RunConfig | None, parallel: ParallelConfig, gpu: str | None) -> dict[str, int]:
    """All GPUs from the flags: servers times GPUs in each, or replicas times GPUs in each; {} without such a flag."""
    nodes, dp, typed, each = flags.count("nodes"), flags.count("dp"), flags.count("gpus"), parallel.gpus_per_replica
    if nodes is not None:
        old = base.hardware if base else None
        card = gpu or (old.gpu if old else "")
        own = flags.count("gpus_per_node") or (old.gpus_per_node if old else None)
        typed = nodes * (own or gpus_per_domain(card))
    if dp is not None and typed not in (None, dp * each):
        name = "--gpus" if nodes is None else f"--nodes {nodes}, which are"
        near = f"--dp {typed // each}, or " if typed and typed % each == 0 else ""
        raise InputError(
            f"--dp {dp} and {name} {typed} GPUs contradict each other",
            why=f"{dp} replicas of tp x pp x cp = {each} GPUs are {dp * each}",
            remedy=f"give {near}--gpus {dp * each}, or one of the two",
        )
    if dp is not None:
        return {"gpus": dp * each}
    return {} if nodes is None else {"gpus": typed or 0}


def _training(flags: Flags, base: RunConfig | None, seq: int, assumptions: Assumptions) -> TrainingConfig:
    """Everything of the section but the batch, for which one sequence stands."""
    old = base.training if base else None
    if old is None and not flags.given("tokens", "steps"):
        raise InputError(
            "the length of the run is missing",
            why="time, cost and schedule follow from it",
            remedy="give --tokens, such as --tokens 10B, or --steps",
        )
    typed = flags.keys("training")
    values: dict[str, Any] = (old.model_dump() if old else {}) | typed
    if flags.given("tokens", "steps"):
        values |= {name: typed.get(name) for name in ("tokens", "steps")}
    recipe = _recipe(flags, old, assumptions)
    values |= {"seq": seq, "micro_batch": 1, "accumulation": 1, "recipe": recipe}
    if flags.runtime is None and (old is None or recipe != old.recipe):
        values["runtime"] = presets.recipe(recipe).runtime
    if flags.loss_chunks is not None and values.get("loss", "plain") == "plain":
        raise InputError(
            "--loss-chunks needs a loss that has chunks",
            why="the plain loss makes all logits at once",
            remedy="add --loss-kind chunked or --loss-kind fused",
        )
    for name, default in (("activation_checkpointing", "none"), ("seed", 1337)):
        if name not in values:
            values[name] = default
            assumptions.add(name, default, "default")
    return _validated(TrainingConfig, "training", **values)


def _with_default_runtime(config: RunConfig, assumptions: Assumptions) -> RunConfig:
    runtime, why = default_runtime(config)
    assumptions.found.pop(RUNTIME, None)
    if why:
        assumptions.add(RUNTIME, runtime, why)
    return config.model_copy(update={"training": config.training.model_copy(update={"runtime": runtime})})


def _recipe(flags: Flags, old: TrainingConfig | None, assumptions: Assumptions) -> str:
    if flags.recipe is not None:
        try:
            return presets.recipe(flags.recipe).id
        except UnknownNameError as error:
            raise error.with_note("--recipe, in run.toml: training.recipe") from None
    precision = flags.value("precision")
    if precision is not None:
        return RECIPE_OF_PRECISION[precision]
    if old is not None:
        return old.recipe
    assumptions.add("recipe", "mixed-bf16", "default: fp32 weights, gradients and moments, bf16 products")
    return "mixed-bf16"


def _refuse_empty_run(config: RunConfig, flags: Flags) -> None:
    tokens, per_step = config.training.tokens, tokens_per_step(config)
    if tokens is not None and tokens < per_step:
        raise InputError(
            f"--tokens: {spell(tokens)} tokens are less than one step of {spell(per_step)} tokens",
            why="a step is never partial, so there would be none",
            remedy=f"give at least {spell(per_step)} tokens, or a smaller --global-batch-tokens",
        )
