"""What a checkpoint holds, and how a run continues from one.

    checkpoints/step-00000123/model.safetensors       the weights that are updated (fp32 where there is a master) by
                                                      name, a tied weight once
                              optimizer.safetensors   <name>.<what>, such as exp_avg and step; the loss's scale
                              state.json              step, tokens, data fingerprint, the settings that training obeys
                              manifest.json           written last: the size and sha256 of each of the others

Nothing here is a pickle: loading a checkpoint cannot run code. publish.py sees to it that one is whole or absent.
No random state is kept: after initialisation nothing is drawn (no dropout), and the data order is a pure function.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from planner.config import RunConfig
from planner.errors import CheckpointError
from planner.optimizer_account import optimizer_memory
from reference_trainer.publish import publish
from reference_trainer.updates import Updater

SLACK = 2**20  # bytes: JSON files, headers
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
# words for people and for the planner alone: they may change between a run and its continuation
NOT_OBEYED = {
    "model.name",
    "model.source",
    "model.nominal_parameters",
    "training.checkpoint_every",
    "training.dataset_tokens",
}


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands: optimizer steps done, tokens trained on, and what it was made of."""

    step: int
    tokens: int
    seed: int
    data_fingerprint: str
    config_hash: str
    settings: dict[str, Any]


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Every value that the result of training depends on, by dotted name; `training.checkpoint_every` is not one."""
    named = {
        f"{section}.{key}": value
        for section in ("model", "training", "optimizer", "schedule")
        for key, value in getattr(config, section).model_dump(mode="json").items()
    }
    return {key: value for key, value in named.items() if key not in NOT_OBEYED}


def state_of(config: RunConfig, data_fingerprint: str, step: int, tokens: int) -> State:
    """The state of a run of `config` after `step` steps."""
    settings = settings_of(config)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return State(step, tokens, config.training.seed, data_fingerprint, digest, settings)


def save(folder: Path, updater: Updater, state: State) -> Path:
    """Write `folder/step-…` and verify it; a failed save leaves everything that was there before.

    Raises FileError where the disk refuses, CheckpointError for weights that are not finite.
    """
    _refuse_nonfinite(updater.weights, f"the weights after step {state.step}")
    return publish(folder, state.step, lambda new: _write_payload(new, updater, state))


def bytes_needed(updater: Updater, config: RunConfig) -> int:
    """Size of one checkpoint: the weights, the optimizer's state, and room for headers."""
    weights = sum(w.numel() * w.element_size() for w in updater.weights.values())
    return weights + optimizer_memory(config).state_bytes + SLACK


def _write_payload(folder: Path, updater: Updater, state: State) -> None:
    save_file(_plain(updater.weights), folder / MODEL)
    save_file(_plain(updater.state()), folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().contiguous() for name, t in tensors.items()}


def load(path: Path, updater: Updater, expected: State) -> State:
    """Put a verified checkpoint into the model and optimizer of `updater`; returns where it stands.

    Raises CheckpointError where it belongs to another config or other data (each difference is named), or does not fit.
    """
    state = State(**json.loads((path / STATE).read_text(encoding="utf-8")))
    _refuse_strangers(path, state, expected)
    try:
        weights, moments = (load_file(path / name) for name in (MODEL, OPTIMIZER))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read", why=str(error)) from error
    _copy(path / MODEL, weights, {name: w.data for name, w in updater.weights.items()})
    slots = updater.fresh_slots()
    _copy(path / OPTIMIZER, moments, slots)
    updater.loaded(slots)
    return state


def _refuse_strangers(path: Path, state: State, expected: State) -> None:
    keys = sorted(set(state.settings) | set(expected.settings))
    different = [
        f"{key} was {state.settings.get(key)}, is now {expected.settings.get(key)}"
        for key in keys
        if state.settings.get(key) != expected.settings.get(key)
    ]
    if state.config_hash != expected.config_hash:
        raise CheckpointError(
            f"{path.name} belongs to another config",
            why="; ".join(different) or "its settings do not give the hash that it states",
            remedy="continue with the config that the run began with, or start a new run in another directory",
        )
    if state.data_fingerprint != expected.data_fingerprint:
        raise CheckpointError(
            f"{path.name} was trained on other data",
            why=f"sha256 of the tokens was {state.data_fingerprint[:12]}…, is now {expected.data_fingerprint[:12]}…",
            remedy="give the data that the run began with, or start a new run in another directory",
        )


def _copy(file: Path, stored: dict[str, Tensor], slots: dict[str, Tensor]) -> None:
    """Copy tensors by name into the memory of others: PyTorch's own, aligned, on the right device."""
    if set(stored) != set(slots):
        raise CheckpointError(
            f"{file} does not hold this model's tensors",
            why=f"different names: {', '.join(sorted(set(stored) ^ set(slots))[:4])}",
        )
    _refuse_nonfinite(stored, str(file))
    for name, slot in slots.items():
        if stored[name].shape != slot.shape or stored[name].dtype != slot.dtype:
            raise CheckpointError(f"{file} does not fit this model", why=f"{name} has another shape or type")
        slot.copy_(stored[name])


def finite(tensor: Tensor) -> Tensor:
    """Whether every element is finite, on the tensor's device."""
    return torch.isfinite(tensor.detach()).all()


def _refuse_nonfinite(tensors: dict[str, Tensor], owner: str) -> None:
    for name, tensor in tensors.items():
        if not bool(finite(tensor)):
            raise CheckpointError(
                f"{owner}: {name} is not finite",
                why="training from such weights gives nothing but more of them",
                remedy="go on from an earlier checkpoint, with a lower peak rate or a longer warm-up",
            )
