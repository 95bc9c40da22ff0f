"""The machine profile's file in the user's cache: read by the planner, written by `gptplan calibrate` and by runs.

A profile that cannot be used is left aside with its reason, as the next calibration replaces it.
"""

from __future__ import annotations

from pathlib import Path

from planner.config.run import Assumption, RunConfig
from planner.errors import ConfigError, FileError
from planner.files import ordinary_bytes, write_atomically
from planner.inputs.profile_file import profile_from, profile_text
from planner.log import Log


def profile_path(device: str = "cpu") -> Path:
    """Where the profile of a device is kept, in the user's cache."""
    from platformdirs import user_cache_dir  # 20 ms, only where a profile is looked for

    return Path(user_cache_dir("gptplan")) / f"profile-{device.replace(':', '-')}.json"


def save_profile(profile: dict[str, object], path: Path) -> None:
    """Write a profile; a reader sees the old file or the new one, never a part. Raises FileError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"the directory of the machine profile {path} cannot be made",
            why=error.strerror or str(error),
            remedy="set XDG_CACHE_HOME to a directory that can be written",
        ) from error
    write_atomically(path, profile_text(profile), overwrite=True)


def load_profile(path: Path, log: Log = lambda line: None) -> dict[str, object] | None:
    """The profile in a file; None where there is none, or it cannot be used, and then `log` gets the reason."""
    try:
        return profile_from(ordinary_bytes(path))
    except FileNotFoundError:
        return None
    except (OSError, ConfigError) as error:
        why = error.why or error.what if isinstance(error, ConfigError) else error.strerror or str(error)
        log(f"the machine profile {path} is left aside: {why}")
        return None


def cached_profile(device: str = "cpu", log: Log = lambda line: None) -> dict[str, object] | None:
    """This machine's profile, if `gptplan calibrate` or a run has made one."""
    return load_profile(profile_path(device), log)


def without_profile(config: RunConfig, why: str) -> RunConfig:
    """The config without a profile, and the reason among its assumptions, where every plan shows it."""
    assumptions = [a for a in config.provenance.assumptions if a.key != "profile"]
    assumptions.append(Assumption(key="profile", value="none", source=why))
    provenance = config.provenance.model_copy(update={"assumptions": tuple(assumptions)})
    return config.model_copy(update={"profile": None, "provenance": provenance})
