"""Files of another engine as a run.toml: recognised by their content, with a list of what was not understood."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.config.run import Assumption, RunConfig
from planner.engines.export import ENGINES
from planner.engines.fates import Carried, Differs, Fixed
from planner.engines.launchers import SCRIPT
from planner.engines.read_hf import read_accelerate, read_deepspeed, read_hf_trainer
from planner.engines.read_litgpt import read_litgpt
from planner.engines.read_megatron import read_megatron
from planner.engines.read_nano import read_nanochat, read_nanogpt
from planner.engines.read_torchtitan import read_torchtitan
from planner.engines.source import MOST_SOURCE, EngineFile, FileReading
from planner.errors import FileError, InputError, UnknownNameError
from planner.files import read_text
from planner.inputs.run_toml import config_from
from planner.paths import is_file

READERS: dict[str, Callable[[EngineFile], FileReading]] = {
    "torchtitan": read_torchtitan,
    "nanogpt": read_nanogpt,
    "nanochat": read_nanochat,
    "megatron-lm": read_megatron,
    "litgpt": read_litgpt,
    "hf-trainer": read_hf_trainer,
    "accelerate": read_accelerate,
    "deepspeed": read_deepspeed,
}
# words of which a file has all, the narrower first
_MARKS: dict[str, tuple[str, ...]] = {
    "deepspeed": ('"zero_optimization"',),
    "hf-trainer": ('"learning_rate"', '"output_dir"'),
    "accelerate": ("distributed_type:",),
    "litgpt": ("model_config:", "train:"),
    "torchtitan": ("torchtitan", "RUN = "),
    "megatron-lm": ("--num-layers", "--hidden-size"),
    "nanochat": ("depth", "device_batch_size"),
    "nanogpt": ("batch_size",),
}
_STANDALONE = re.compile(r"torchrun --standalone --nproc_per_node=(\d{1,6})")
_SEVERAL = re.compile(r"torchrun --nnodes=(\d{1,6}) --nproc_per_node=(\d{1,6})")
DEFAULT_CARD = "a100-80gb"


@dataclass(frozen=True, slots=True)
class Import:
    """A config, the engine that its files are of, and the settings that no key of run.toml has."""

    engine: str
    config: RunConfig
    unread: tuple[str, ...]


def engine_of(text: str, path: Path) -> str:
    """The engine that a file is of. Raises FileError where none is recognised."""
    found = next((name for name, marks in _MARKS.items() if all(mark in text for mark in marks)), None)
    if found is None or (found == "nanogpt" and path.suffix != ".py"):
        raise FileError(
            f"{path} is of no engine that is known",
            why="it has none of their settings",
            remedy=f"say whose it is with --from: {', '.join(READERS)}",
        )
    return found


def engine_import(
    path: Path, *, engine: str | None, gpu: str | None, gpus: int | None, as_of: str, version: str
) -> Import:
    """The config of an engine's file. engine: whose it is; None: recognised. gpu, gpus: what the file does not say.

    Raises FileError for files that cannot be read, InputError for settings that are missing or wrong, ConfigError for a
    run that a run.toml cannot describe.
    """
    text = read_text(path, MOST_SOURCE)
    name = engine or engine_of(text, path)
    if name not in READERS:
        raise UnknownNameError("engine", name, READERS).with_note("--from")
    launched, nodes = _launched(path)
    try:
        found = READERS[name](EngineFile(path, text, gpus or launched))
        if gpus is None and launched is not None and nodes > 1:
            found.values.setdefault("hardware.gpus_per_node", launched // nodes)
        config = _config(found, name, gpu, as_of, version)
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        why = f"{type(error).__name__}: {error}"[:200]  # a setting of another kind than its reader expects
        raise InputError(f"{path} is not understood", why=why, remedy="check its settings, or --from") from None
    return Import(name, config, tuple(found.unread))


def _launched(path: Path) -> tuple[int | None, int]:
    """GPUs and nodes that launch.sh beside a file starts; (None, 1) without one."""
    script = path.parent / SCRIPT
    text = read_text(script, MOST_SOURCE) if is_file(script) else ""
    several, one = _SEVERAL.search(text), _STANDALONE.search(text)
    if several is not None:
        return int(several[1]) * int(several[2]), int(several[1])
    return (int(one[1]) if one is not None else 1 if "exec python" in text else None), 1


def _config(found: FileReading, name: str, gpu: str | None, as_of: str, version: str) -> RunConfig:
    values: dict[str, Any] = {name: {} for name in RunConfig.model_fields if name not in ("schema_version", "profile")}
    values["schema_version"] = 1
    for key, fate in ENGINES[name].fates.items():
        default = (
            fate.values[0]
            if isinstance(fate, Fixed)
            else fate.like[0]
            if isinstance(fate, Differs) and fate.like
            else None
        )
        if default is not None and default != () and not key.startswith("model.moe."):
            _put(values, key, default)
    _put(values, "model.name", f"imported from {found.source.path.name}")
    for key, value in found.values.items():
        if value is not None or isinstance(ENGINES[name].fates.get(key), Carried):
            _put(values, key, value)
    if found.model is not None:
        values["model"] = found.model
    values["model"]["source"] = str(found.source.path)
    card = gpu or values["hardware"].get("gpu")
    values["hardware"]["gpu"] = card or DEFAULT_CARD
    told = [] if card else [Assumption(key="gpu", value=DEFAULT_CARD, source=f"default: {name} names no card")]
    if found.source.gpus is None and values["hardware"]["gpus"] == 1:
        told.append(Assumption(key="gpus", value="1", source="default: neither the file nor launch.sh says it"))
    values["provenance"] = {"as_of": as_of, "gptplan": version, "assumptions": [one.model_dump() for one in told]}
    for section, needed in (("optimizer", {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}), ("training", {"seed": 1337})):
        values[section] = needed | values[section]
    return config_from(values, str(found.source.path))


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *above, name = key.split(".")
    for part in above:
        values = values.setdefault(part, {})
    values[name] = value
