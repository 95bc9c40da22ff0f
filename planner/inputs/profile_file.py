"""A machine profile as a file: read and checked, written beside a config, and the card that it belongs to.

A config names its profile: `profile = "run.profile-<hash>.json"` stands in run.toml, and the file lies beside it.
The hash is of the file's bytes, so that a config never meets other times than those it was planned with. Older
files hold the whole profile as a table of run.toml, and are read as before.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from planner import presets
from planner.config.run import CPU
from planner.errors import ConfigError, FileError, InputError
from planner.files import read_text, refuse_existing, write_atomically
from planner.json_input import parsed_json
from planner.paths import exists, is_folder
from planner.step_time.kernel_tables import DIMENSIONS, LAUNCH, Tables

NOISY = 0.15  # relative noise above which a profile is not used: it is 0.03 to 0.08 on a machine at rest
HASH_DIGITS = 12
_NAME = re.compile(rf"[^/\\\x00]+\.profile-([0-9a-f]{{{HASH_DIGITS}}})\.json")


def noise_of(profile: dict[str, object]) -> float:
    """The relative noise that a profile states."""
    return float(str(profile["relative_noise"]))


def is_noisy(profile: dict[str, object]) -> bool:
    """Whether a profile was taken on a busy machine: its relative noise is above NOISY."""
    return noise_of(profile) > NOISY


def states_noise(profile: dict[str, object]) -> bool:
    """`is_noisy` of a profile that nobody has checked yet: False where it states no number."""
    try:
        return is_noisy(profile)
    except (KeyError, ValueError):
        return False


def profile_text(profile: dict[str, object]) -> str:
    """The file of a profile; equal profiles give equal text."""
    return json.dumps(profile, sort_keys=True, allow_nan=False) + "\n"


def profile_name(config: Path, text: str) -> str:
    """The name of the profile file beside a config."""
    return f"{config.stem}.profile-{_digest(text.encode())}.json"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HASH_DIGITS]


def profile_from(content: bytes) -> dict[str, object]:
    """The profile in the bytes of a file.

    Raises ConfigError if it is not JSON, lacks a kernel, holds no usable numbers, or was taken on a busy machine.
    """
    read = _parsed(content)
    kernels = read["kernels"]
    assert isinstance(kernels, dict), "its tables were read"
    missing = [name for name in DIMENSIONS if name != LAUNCH[0] and not kernels.get(name)]
    if missing:
        raise _unusable(f"it has no times for {missing[0]}")
    memory = read.get("memory_bytes", 1)
    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
        raise _unusable(f"its memory_bytes is {str(memory)[:40]}")
    if not all(isinstance(read.get(key, ""), str) for key in ("device", "device_name", "torch")):
        raise _unusable("its device, device_name and torch are not texts")
    if is_noisy(read):
        raise _unusable(f"it was taken on a busy machine: its noise is {noise_of(read):.0%}, above {NOISY:.0%}")
    return read


def _parsed(content: bytes) -> dict[str, object]:
    try:
        read = parsed_json(content)
    except ValueError as error:
        raise _unusable(str(error)) from None
    if not isinstance(read, dict):
        raise _unusable("it is not a JSON object")
    Tables(read)
    return read


def _unusable(why: str) -> ConfigError:
    return ConfigError("the machine profile cannot be used", why=why, remedy="measure it again: gptplan calibrate")


def read_profile(path: Path) -> dict[str, object]:
    """The profile that a user named. Raises FileError and ConfigError, each naming the file."""
    text = read_text(path)
    try:
        return profile_from(text.encode())
    except ConfigError as error:
        remedy = "give a file that gptplan calibrate wrote on a quiet machine"
        raise ConfigError(f"the machine profile {path} cannot be used", why=error.why, remedy=remedy) from None


def profile_beside(config: Path, name: str) -> dict[str, object]:
    """The profile that a config names. Raises ConfigError where it is not beside it, or is another one."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"{config}: profile = {name[:80]!r} is not the name of a profile file",
            why=f"it is called like run.profile-<{HASH_DIGITS} hex digits>.json, and lies beside the config",
            remedy="remove that line, or write the file anew",
        )
    path = config.with_name(name)
    try:
        text = read_text(path)
    except FileError as error:
        raise ConfigError(
            f"{config}: its machine profile cannot be read: {error.what}",
            why=error.why or "the config names it, and was copied or moved without it",
            remedy=f"put the file beside {config.name}, or remove the line profile = … there: speed is then unknown",
        ) from None
    if _digest(text.encode()) != found[1]:
        raise ConfigError(
            f"{config}: its machine profile {name} was changed",
            why="its content does not have the hash in its name",
            remedy="put the right file back, or remove the line profile = … and plan with --profile FILE",
        )
    try:  # a plan that was made with it stays the same plan: no more is asked of it than that it can be read
        return _parsed(text.encode())
    except ConfigError as error:
        raise ConfigError(f"{config}: its machine profile {name} cannot be used", error.why, error.remedy) from None


def card_of(profile: dict[str, object]) -> str:
    """The hardware name of the card that a profile was measured on. Raises InputError for a card without preset."""
    if profile.get("device", CPU) == CPU:
        return CPU
    name = str(profile.get("device_name"))
    found = presets.gpu_by_driver_name(name)
    if found is None:
        raise InputError(
            f"the machine profile is of {name!r}, which is in no preset",
            why="its memory and links are unknown, and no other card's are put in their place",
            remedy="add presets/gpus/<id>.toml with its driver name and published specs",
        )
    return found.id


def is_of(profile: dict[str, object], gpu: str) -> bool:
    """Whether a profile was measured on this hardware."""
    if profile.get("device", CPU) == CPU:
        return gpu == CPU
    found = presets.gpu_by_driver_name(str(profile.get("device_name")))
    return found is not None and found.id == gpu


def profile_for(path: Path, gpu: str | None) -> tuple[dict[str, object], str]:
    """The profile in a file and its card. gpu: the card that was asked for, None: the profile's.

    Raises InputError where a plan is for another card, and what `read_profile` raises.
    """
    profile = read_profile(path)
    card = card_of(profile)
    if gpu is not None and gpu != card:
        raise InputError(
            f"--profile: {path} was measured on {profile.get('device_name', card)} ({card}), and the plan is for {gpu}",
            why="no card's times stand for another's",
            remedy=f"plan for it with --gpu {card}, or leave --profile out",
        )
    return profile, card


def write_with_profile(path: Path, profile: dict[str, object], text: str, *, overwrite: bool) -> None:
    """Write a config's text, and the profile that it names beside it: both or neither. Raises FileError."""
    if not overwrite or is_folder(path):
        refuse_existing(path)
    content = profile_text(profile)
    file = path.with_name(profile_name(path, content))
    is_new = not exists(file)
    write_atomically(file, content, overwrite=True)
    try:
        write_atomically(path, text, overwrite=overwrite)
    except BaseException:
        if is_new:
            file.unlink(missing_ok=True)
        raise
