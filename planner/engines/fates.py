"""What becomes of each key of a run.toml in another engine: carried, refused but for some values, or irrelevant.

Each engine has a row for every key, so that none is dropped in silence; a test changes every key and looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from planner.config.options import value_at
from planner.config.run import RunConfig
from planner.config.section import Section


@dataclass(frozen=True, slots=True)
class Carried:
    """The engine has arguments for it. only: the values that they can say; none named: any."""

    arguments: str
    only: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Fixed:
    """The engine has no argument for it and always does as these values say; others are refused."""

    values: tuple[Any, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """No number of the engine's run depends on it."""

    why: str


@dataclass(frozen=True, slots=True)
class Differs:
    """The engine does otherwise for values other than `like`, which the export tells: nothing is refused for it."""

    like: tuple[Any, ...]
    how: str


Fate = Carried | Fixed | Irrelevant | Differs
Fates = Mapping[str, Fate]


def fixed(*values: Any, why: str = "") -> Fixed:
    """A key of which the engine knows these values only."""
    return Fixed(values, why)


PLANNED = Irrelevant("it is about the prediction, not about the run")
WATCHED = Irrelevant('it is read by a guard that skips or rolls back, and on_spike = "warn" does neither')

# the same for every engine; an engine's own row takes the place of one of these
OF_ALL: Fates = {
    "schema_version": Irrelevant("the version of run.toml"),
    "model.name": Irrelevant("a name"),
    "model.source": Irrelevant("where the shape comes from"),
    "model.nominal_parameters": PLANNED,
    "model.tokenizer_vocab": Irrelevant("rows beyond it are padding, which no token reads"),
    "model.untrained": fixed(None, why="the architecture computes more than run.toml says"),
    "model.mla": fixed(None),
    "model.moe": fixed(None),
    "model.embedding_norm": fixed(False),
    "model.head_bias": fixed(False),
    "model.attention_sinks": fixed(False),
    "model.attention_chunk": fixed(None),
    "model.sliding_window": fixed(None),
    "model.full_attention_every": fixed(None),
    "model.no_position_every": fixed(None),
    "model.local_rope_base": fixed(None),
    "model.rope_scaling": fixed(None),
    "model.position_rows": fixed(None),
    "model.logit_softcap": fixed(None),
    "model.norm_placement": fixed("pre"),
    "training.dataset_tokens": Irrelevant("a description of the data set"),
    "training.attention_kernel": fixed("flash"),
    "training.document_masking": fixed(False),
    "training.loss": fixed("plain"),
    "training.loss_chunks": Irrelevant("a plain loss has no chunks"),
    "training.returns_logits": Irrelevant("what the program returns beside its loss; it changes no update"),
    "training.activation_checkpointing_every": fixed(1),
    "optimizer.name": Carried("the optimizer", ("adamw",)),
    "optimizer.implementation": fixed("fused"),
    "optimizer.state_dtype": fixed(None),
    "optimizer.momentum": Irrelevant("adamw has none"),
    "optimizer.clip_value": fixed(None),
    "optimizer.groups": fixed(()),
    "schedule.decay_power": Irrelevant("no polynomial decay is written"),
    "schedule.cooldown_steps": Irrelevant("no wsd schedule is written"),
    "hardware.gpu": Irrelevant("the launcher runs where it is started; sky.yaml names the card"),
    "hardware.gpus": Carried("the launcher's processes and nodes"),
    "hardware.gpus_per_node": Carried("the launcher's processes of a node"),
    "hardware.allocator": Carried("PYTORCH_CUDA_ALLOC_CONF in the launcher"),
    "hardware.software": PLANNED,
    "hardware.tflops": PLANNED,
    "hardware.mfu": PLANNED,
    "hardware.tokens_per_second": PLANNED,
    "hardware.write_bandwidth": PLANNED,
    "hardware.usd_per_gpu_hour": PLANNED,
    "parallel.fsdp": fixed(False),
    "parallel.reshard": fixed(True),
    "parallel.hsdp": fixed(None),
    "parallel.zero": fixed(0),
    "parallel.ddp_bucket_view": fixed(False),
    "parallel.tp": fixed(1),
    "parallel.sp": fixed(False),
    "parallel.pp": fixed(1),
    "parallel.interleave": fixed(1),
    "parallel.pp_schedule": fixed("1f1b"),
    "parallel.cp": fixed(1),
    "parallel.ep": fixed(1),
    "evaluation.patience": fixed(None),
    "guard.on_spike": fixed("warn", why="the engine has no guard that skips a step or rolls back"),
    "guard.spike_sigmas": WATCHED,
    "guard.spike_window": WATCHED,
    "guard.nonfinite_limit": Irrelevant("it stops a run that has failed"),
    "guard.rollback_skips": WATCHED,
    "guard.rollback_budget": WATCHED,
    "guard.rollback_rate": WATCHED,
    "checkpoints.keep_every": fixed(None),
    "checkpoints.asynchronous": fixed(None, False),
    "provenance.as_of": PLANNED,
    "provenance.gptplan": PLANNED,
    "provenance.assumptions": PLANNED,
    "profile": PLANNED,
}


def all_keys(section: type[Section] = RunConfig, above: str = "") -> Iterator[str]:
    """Every key of a run.toml, dotted: those of an optional section, such as model.moe, are the section's own name."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from all_keys(inner, f"{above}{name}.")
        else:
            yield above + name


def inner_section(key: str) -> type[Section] | None:
    """The section that an optional key such as model.moe holds; None for a key with a plain value."""
    section: type[Any] = RunConfig
    for part in key.split("."):
        annotation = section.model_fields[part].annotation
        choices = (annotation, *(get_args(annotation) if get_origin(annotation) is not tuple else ()))
        found = [a for a in choices if isinstance(a, type) and issubclass(a, Section)]
        if not found:
            return None
        section = found[0]
    return section


def told_differences(config: RunConfig, fates: Fates) -> list[str]:
    """What an engine does otherwise, key by key."""
    found = [(key, fate, value_at(config, key)) for key, fate in fates.items() if isinstance(fate, Differs)]
    return [f"{key} = {value}: {fate.how}" for key, fate, value in found if value not in fate.like]


def _is_absent(config: RunConfig, key: str) -> bool:
    """Whether a key belongs to an optional section that the config has not."""
    above = key.rpartition(".")[0]
    return bool(above) and value_at(config, above) is None


def refusals(config: RunConfig, fates: Fates, title: str) -> list[str]:
    """The keys of a config with values that the engine cannot express, one sentence each."""
    found = []
    for key, fate in fates.items():
        known = fate.values if isinstance(fate, Fixed) else fate.only if isinstance(fate, Carried) else ()
        value = value_at(config, key)
        if known and value not in known and not _is_absent(config, key):
            has = " or ".join("none" if one is None or one == () else str(one) for one in known)
            why = f"; {fate.why}" if isinstance(fate, Fixed) and fate.why else ""
            shown = "set" if isinstance(value, Section | tuple) else value
            found.append(f"{key} = {shown} ({title} has {has}{why})")
    return found


def casts_by_autocast(config: RunConfig) -> Iterator[str]:
    """What an engine does otherwise whose casts are torch.autocast's, where a config writes them out."""
    t = config.training
    if t.recipe in ("mixed-bf16", "mixed-fp16") or (t.recipe == "autocast" and t.runtime == "eager"):
        yield f"training.recipe = {t.recipe}, training.runtime = {t.runtime}: casts by torch.autocast there"


def autocast_of_nothing(config: RunConfig) -> Iterator[str]:
    """The refusal of runtime = "autocast" beside a recipe without casts."""
    t = config.training
    if t.runtime == "autocast" and t.recipe not in ("autocast", "mixed-bf16", "mixed-fp16"):
        yield f"training.runtime = autocast beside training.recipe = {t.recipe} (it casts nothing there)"
