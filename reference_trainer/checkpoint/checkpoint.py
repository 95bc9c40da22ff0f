"""The contents of a checkpoint, and how a run resumes from one.

    checkpoints/step-00000123/model.safetensors       the weights that are updated (fp32 where there is a master) by
                                                      name, a tied weight once; balance.bias [L, E] if a bias
                                                      balances the experts
                              optimizer.safetensors   <name>.<what>, such as exp_avg and step; the loss's scale
                              extra.safetensors       small tensors of the loop: the guard's window and counters
                              state.json              step, tokens, progress, data fingerprint, machine, settings
                              manifest.json           written last: the size and sha256 of each of the others

Under FSDP2 each rank writes its rows: model-00001-of-00004.safetensors and so on (stored_tensors.py).

No file is a pickle: loading a checkpoint cannot run code. atomic.py guarantees that it is complete or absent.
No random state is stored: the batch of a step and its dropout are pure functions of seed, step and sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from planner.activity import doing
from planner.config.resume import NEW_SCHEDULE, Change, changes, hash_of, needs_request, settings_of
from planner.config.resume_rules import NO_LONGER_EQUAL
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.errors import CheckpointError
from planner.files import ordinary_bytes
from planner.json_input import checked_by, parsed_json
from planner.log import Log
from planner.memory.optimizer_state import optimizer_memory
from planner.paths import exists
from reference_trainer.checkpoint.atomic import list_checkpoints, publish
from reference_trainer.checkpoint.stored_tensors import StoredTensors, shard_name
from reference_trainer.checkpoint.tensor_file import TensorFile
from reference_trainer.checkpoint.together import publish_together
from reference_trainer.distributed.ranks import ALONE, Ranks, with_own_group
from reference_trainer.distributed.sharding import shard_mesh
from reference_trainer.optim.updater import Updater

HEADROOM_BYTES = 2**20  # bytes: JSON files, headers, the loop's small tensors
MODEL, OPTIMIZER, EXTRA, STATE = "model.safetensors", "optimizer.safetensors", "extra.safetensors", "state.json"
_NAMES_SHOWN = 4  # tensors that a message names

Contents = dict[str, dict[str, Tensor]]  # file, tensor's name, tensor


@dataclass(frozen=True, slots=True)
class State:
    """The progress of a run: optimizer steps, tokens, its settings, and small values of its loop.

    progress: best validation loss, its step and the like; a number that is not finite is None. machine: device and
    version of PyTorch, on which the rounding depends.
    """

    step: Annotated[int, Field(ge=0, le=10**15)]
    tokens: Annotated[int, Field(ge=0, le=10**30)]
    seed: int
    data_fingerprint: str
    config_hash: str
    settings: dict[str, Any]
    progress: dict[str, float | int | None] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)


def state_of(
    config: RunConfig,
    data_fingerprint: str,
    step: int,
    tokens: int,
    progress: Mapping[str, float | int | None] | None = None,
    device: str | None = None,
) -> State:
    """The state of a run of `config` after `step` steps on the device of that name."""
    settings = settings_of(config)
    finite_only = {key: v if v is None or math.isfinite(v) else None for key, v in (progress or {}).items()}
    machine = {} if device is None else {"device": device, "torch": str(torch.__version__)}
    return State(
        step, tokens, config.training.seed, data_fingerprint, hash_of(settings), settings, finite_only, machine
    )


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """Which part of a checkpoint this process writes: shard `shard` of `shards`, with the other ranks at once.

    writes: False of a rank whose rows another one writes.
    """

    ranks: Ranks = ALONE
    shard: int = 0
    shards: int = 1
    writes: bool = True

    @property
    def is_shared(self) -> bool:
        """Whether several ranks write one checkpoint."""
        return self.shards > 1


WHOLE_CHECKPOINT = CheckpointPart()


def part_of(model: nn.Module, ranks: Ranks) -> CheckpointPart:
    """The part of a checkpoint of `model` that this rank writes; where it is not cut, the first writes all of it."""
    mesh = shard_mesh(model)
    if mesh is None or mesh.size() == 1:
        return CheckpointPart(writes=ranks.leads)
    # with replicas of the shards those of the first are written
    return CheckpointPart(with_own_group(ranks), mesh.get_local_rank(), mesh.size(), writes=ranks.rank < mesh.size())


def bytes_needed(updater: Updater, config: RunConfig) -> int:
    """Size of one checkpoint: the weights, the optimizer's state, and room for headers."""
    weights = sum(updater.whole_numel(name) * w.element_size() for name, w in updater.weights.items())
    weights += sum(w.numel() * w.element_size() for w in updater.buffers.values())
    return weights + optimizer_memory(resolve(config)).state_bytes + HEADROOM_BYTES


# --- writing ----------------------------------------------------------------------------------------------------------


def contents_of(updater: Updater, extra: Mapping[str, Tensor] | None = None) -> Contents:
    """The tensors of a checkpoint by file; they are not copied."""
    files = {MODEL: updater.weights | updater.buffers, OPTIMIZER: updater.state()}
    files |= {EXTRA: dict(extra)} if extra else {}
    return {file: {name: t.detach() for name, t in tensors.items()} for file, tensors in files.items()}


def save(folder: Path, updater: Updater, state: State, extra: Mapping[str, Tensor] | None = None) -> Path:
    """Write `folder/step-…` and verify it. After a failed save the old checkpoints are unchanged.

    Raises FileError if the disk fails, CheckpointError for weights that are not finite.
    """
    refuse_nonfinite(updater.weights, f"the weights after step {state.step}")
    return write(folder, contents_of(updater, extra), state)


def write(folder: Path, contents: Contents, state: State, part: CheckpointPart = WHOLE_CHECKPOINT) -> Path:
    """Write tensors and state as `folder/step-…`, this process its part. Raises FileError if the disk fails."""
    if part.is_shared:
        return publish_together(folder, state.step, lambda new: _fill(new, contents, state, part), part.ranks)

    return publish(folder, state.step, lambda new: _fill(new, contents, state, part))


def _fill(new: Path, contents: Contents, state: State, part: CheckpointPart) -> list[str]:
    """Write this process's files into a folder; returns their names."""
    names: list[str] = []
    for file, tensors in contents.items() if part.writes else ():
        if part.shard:  # what has no rows is in the first shard
            tensors = {name: t for name, t in tensors.items() if t.dim()}
        if file == EXTRA and part.shard:
            continue
        names.append(file if file == EXTRA else shard_name(file, part.shard, part.shards))
        save_file({name: t.contiguous() for name, t in tensors.items()}, new / names[-1])
    if part.writes and not part.shard:
        text = json.dumps(asdict(state), indent=1, allow_nan=False)
        (new / STATE).write_text(text + "\n", encoding="utf-8")
        names.append(STATE)
    return names


# --- reading ----------------------------------------------------------------------------------------------------------


def read_state(path: Path) -> State:
    """The state of a checkpoint; one of an older format has no progress and no machine. Raises CheckpointError."""
    try:
        values = parsed_json(ordinary_bytes(path / STATE))
        state = replace(checked_by(TypeAdapter(State), values), settings=values["settings"])
        if hash_of(state.settings) != state.config_hash:
            raise ValueError("its settings do not give the hash that it states")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / STATE} cannot be used", why=str(error), remedy=_remedy(path)) from error
    return state


def refuse_other_config(folder: Path, config: RunConfig, new_schedule: bool = False) -> None:
    """Raises CheckpointError if `config` cannot resume from the newest checkpoint of `folder`.

    This takes milliseconds, before a model is built: hashes are not checked, and a damaged checkpoint is skipped.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            stored = read_state(path).settings
        except CheckpointError:
            continue
        _check_changes(path, changes(stored, settings_of(config), new_schedule))
        return


@doing("loading the checkpoint")
def load(
    path: Path,
    updater: Updater,
    expected: State,
    extra: Mapping[str, Tensor] | None = None,
    log: Log = lambda line: None,
    new_schedule: bool = False,
) -> State:
    """Put a verified checkpoint into the model and optimizer of `updater`, and into `extra`; return its state.

    expected: the state, at any step, of the resuming run. The rules of `planner.config.resume` log or refuse each
    difference. If the checkpoint lacks a tensor of `extra`, or has it in another shape, none is changed.
    Raises CheckpointError, before anything is copied, if it belongs to another config or other data (each
    difference is named), does not fit, or has weights that are not finite.
    """
    state = read_state(path)
    for line in _check_changes(path, changes(state.settings, expected.settings, new_schedule)):
        log(line)
    _check_origin(path, state, expected, log)
    stored = {file: StoredTensors(path, file, _remedy(path)) for file in (MODEL, OPTIMIZER)}
    weights: dict[str, Tensor] = {name: w.data for name, w in (updater.weights | updater.buffers).items()}
    _check_tensors(stored[MODEL], weights, updater)
    slots = updater.new_state()
    # written by older versions, and never read
    unread = frozenset(f"{name}.momentum_buffer" for name in updater.without_state())
    _check_tensors(stored[OPTIMIZER], slots, updater, unread)
    for names, target in ((stored[MODEL], weights), (stored[OPTIMIZER], slots)):
        for name, slot in target.items():
            slot.copy_(_rows_for(slot, names, name, updater))  # into PyTorch's own memory: aligned, on its device
    updater.finish_loading(slots)
    _load_extra(path, extra or {}, log)
    return state


def _check_changes(path: Path, found: tuple[Change, ...]) -> list[str]:
    """The messages about changed values. Raises CheckpointError if one of them is refused."""
    refused = [change for change in found if change.verdict == "refused"]
    if refused:
        back = "put the old values back into config.toml, or start a new run in another directory"
        raise CheckpointError(
            f"{path.name} belongs to another config",
            why="; ".join(f"{change.text()} ({change.reason})" for change in refused),
            remedy=f"add {NEW_SCHEDULE} if that is meant, or {back}" if needs_request(found) else back,
        )
    return [f"{change.verdict}: {change.text()}: {change.reason}" for change in found]


def _check_origin(path: Path, state: State, expected: State, log: Log) -> None:
    if state.data_fingerprint != expected.data_fingerprint:
        raise CheckpointError(
            f"{path.name} was trained on other data",
            why=f"sha256 of the tokens was {state.data_fingerprint[:12]}…, is now {expected.data_fingerprint[:12]}…",
            remedy="give the data that the run began with, or start a new run in another directory",
        )
    for key in state.machine.keys() & expected.machine.keys():
        if state.machine[key] != expected.machine[key]:
            log(f"warned: {key} was {state.machine[key]}, is now {expected.machine[key]}: {NO_LONGER_EQUAL}")


def _rows_for(slot: Tensor, stored: StoredTensors, name: str, updater: Updater) -> Tensor:
    """What a slot takes of a stored tensor: this rank's rows, or all of it."""
    rows = updater.rows_of(name, slot)
    return stored[name] if rows is None else stored.rows(name, rows.begin, rows.begin + slot.shape[0])


def _check_tensors(
    stored: StoredTensors, slots: dict[str, Tensor], updater: Updater, unread: frozenset[str] = frozenset()
) -> None:
    """Raises CheckpointError for tensors that are missing, unknown, of another shape or dtype, or not finite."""
    file = stored.path
    for what, names in (("missing", set(slots) - set(stored)), ("unknown", set(stored) - set(slots) - unread)):
        if names:
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            raise CheckpointError(
                f"{file} does not hold this run's tensors",
                why=f"{what}: {', '.join(sorted(names)[:_NAMES_SHOWN])}{more}",
                remedy=_remedy(file.parent),
            )
    for name, slot in slots.items():
        rows = updater.rows_of(name, slot)
        whole = slot.shape if rows is None else torch.Size((rows.total, *slot.shape[1:]))
        found, wanted = stored.kind(name), (whole, slot.dtype)
        if found != wanted:
            raise CheckpointError(
                f"{file} does not fit this model",
                why=f"{name} is {_described(*found)}, and must be {_described(*wanted)}: nothing is converted",
                remedy=_remedy(file.parent),
            )
    for name in slots:  # read one at a time, and again when it is copied: memory has no room for a second model
        refuse_nonfinite({name: _rows_for(slots[name], stored, name, updater)}, str(file))


def _described(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _load_extra(path: Path, extra: Mapping[str, Tensor], log: Log) -> None:
    """All of them, or none: half a state, such as an old count for a new window, would be a wrong one."""
    stored = dict(TensorFile(path / EXTRA, _remedy(path))) if exists(path / EXTRA) else {}
    fresh = sorted(
        name
        for name, t in extra.items()
        if name not in stored or (stored[name].shape, stored[name].dtype) != (t.shape, t.dtype)
    )
    if fresh:
        who = "they" if len(fresh) == len(extra) else ", ".join(sorted(extra))
        log(f"{path.name} has no {', '.join(fresh)} of the shape in use: {who} begin fresh")
        return
    for name, tensor in extra.items():
        tensor.copy_(stored[name])


def _remedy(path: Path) -> str:
    return f"delete {path.name} to continue from the checkpoint before it, or bring back a good copy"


# --- finite -----------------------------------------------------------------------------------------------------------


def all_finite(tensor: Tensor) -> Tensor:
    """Whether every element is finite, on the tensor's device."""
    return torch.isfinite(tensor.detach()).all()


def finite_flags(tensors: Mapping[str, Tensor]) -> Tensor:
    """One flag per tensor, [n] bool on their device; the host does not wait for it."""
    found = [all_finite(t) for t in tensors.values()]
    return torch.stack(found) if found else torch.ones(0, dtype=torch.bool)


def refuse_nonfinite(tensors: Mapping[str, Tensor], owner: str, flags: Tensor | None = None) -> None:
    """Raises CheckpointError for the first tensor that is not finite. flags: `finite_flags`, if computed already."""
    good = finite_flags(tensors) if flags is None else flags
    for name, fine in zip(tensors, good.tolist(), strict=True):  # one wait for the device
        if not fine:
            raise CheckpointError(
                f"{owner}: {name} is not finite",
                why="training from such weights gives nothing but more of them",
                remedy="go on from an earlier checkpoint, with a lower peak rate or a longer warm-up",
            )
