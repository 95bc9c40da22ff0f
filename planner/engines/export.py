"""A run.toml as the files of another engine, with a record of what became of every key."""

from __future__ import annotations

from dataclasses import dataclass

from planner.config.options import value_at
from planner.config.run import RunConfig
from planner.engines.engine import Engine, all_differences, refuse_inexpressible
from planner.engines.fates import Carried, Irrelevant
from planner.engines.hf_accelerate import ACCELERATE
from planner.engines.hf_deepspeed import DEEPSPEED
from planner.engines.hf_trainer import HF_TRAINER
from planner.engines.launchers import LAUNCHERS, launcher_files
from planner.engines.litgpt_yaml import LITGPT
from planner.engines.megatron_lm import MEGATRON_LM
from planner.engines.nanochat_args import NANOCHAT
from planner.engines.nanogpt import NANOGPT
from planner.engines.torchtitan_module import TORCHTITAN
from planner.errors import UnknownNameError

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (TORCHTITAN, NANOGPT, NANOCHAT, MEGATRON_LM, LITGPT, HF_TRAINER, ACCELERATE, DEEPSPEED)
}
RECORD = "EXPORT.md"


@dataclass(frozen=True, slots=True)
class Export:
    """Files by name, the engine they were written for, and what it does otherwise than the run.toml says."""

    engine: str
    stamp: str
    files: dict[str, str]
    carried: dict[str, str]
    differences: tuple[str, ...]


def engine_named(name: str) -> Engine:
    """Raises UnknownNameError with the nearest names."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES).with_note("--to")
    return ENGINES[name]


def engine_export(config: RunConfig, name: str, launcher: str = "torchrun") -> Export:
    """The files of an engine and a launcher for a run.

    Raises InputError with every key that the engine cannot express, and for an unknown engine or launcher.
    """
    engine = engine_named(name)
    if launcher not in LAUNCHERS:
        raise UnknownNameError("launcher", launcher, LAUNCHERS).with_note("--launcher")
    refuse_inexpressible(engine, config)
    files = engine.files(config) | launcher_files(engine, config, launcher)
    told = tuple(all_differences(engine, config))
    carried = {key: fate.arguments for key, fate in engine.fates.items() if isinstance(fate, Carried)}
    record = _record(engine, config, told)
    return Export(engine.name, engine.stamp, {**files, RECORD: record}, carried, told)


def _record(engine: Engine, config: RunConfig, told: tuple[str, ...]) -> str:
    """EXPORT.md: the engine's version, how to install it, and every key of the run.toml."""
    rows, left = [], []
    for key, fate in engine.fates.items():
        value = value_at(config, key)
        if isinstance(fate, Carried) and value is not None:
            rows.append(f"| {key} | {value} | {fate.arguments} |")
        if isinstance(fate, Irrelevant):
            left.append(f"- {key}: {fate.why}")
    return "\n".join([
        f"# {config.model.name} for {engine.stamp}", "",
        f"Written by gptplan {config.provenance.gptplan} from what {engine.where} says.", "",
        "```bash", *engine.install, "bash launch.sh", "```", "",
        "## What the engine does otherwise", "", *(f"- {one}" for one in told), "" if told else "Nothing is known.", "",
        "## Carried", "", "| key | value | in |", "|---|---|---|", *rows, "",
        "## Without effect on the run", "", *left, "",
    ])  # fmt: skip
