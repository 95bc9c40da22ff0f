"""Which checkpoints are kept, and whether the disk has room for them.

Kept are the `keep` newest, those of steps divisible by `keep_every`, and the one with the best validation loss. Nothing
is deleted before a newer one was published and read back.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.config.loop import CheckpointConfig
from planner.config.run import RunConfig
from planner.counts.run import steps_of
from planner.errors import FileError
from planner.paths import exists
from planner.units import format_bytes
from reference_trainer.checkpoint.atomic import delete_checkpoint, list_checkpoints, problem_with, step_in, stranger_in


@dataclass(frozen=True, slots=True)
class Pruned:
    """Deleted checkpoints, and a message for each that could not be deleted."""

    deleted: tuple[Path, ...]
    failed: tuple[str, ...]


def prune(folder: Path, newest_step: int, kept: CheckpointConfig, best_step: int | None = None) -> Pruned:
    """Delete checkpoints that need not be kept, after the checkpoint of `newest_step` was verified.

    An incomplete checkpoint does not count among the newest. One above `newest_step` is a
    damaged one that was skipped: it stays until its step is saved again.
    """
    older = [path for path in list_checkpoints(folder) if step_in(path) <= newest_step]
    whole = [path for path in older if not problem_with(path, contents=False)]
    newest = set(whole[-kept.keep :])
    oldest_kept = min(map(step_in, newest), default=newest_step)
    to_delete = [path for path in older if step_in(path) < oldest_kept and not is_kept(step_in(path), kept, best_step)]
    return _delete(to_delete)


def is_kept(step: int, kept: CheckpointConfig, best_step: int | None) -> bool:
    """Whether a checkpoint is kept regardless of its age."""
    return step == best_step or (kept.keep_every is not None and step % kept.keep_every == 0)


def delete_after(folder: Path, step: int) -> Pruned:
    """Delete the checkpoints above `step`: after a rollback these steps have other data."""
    return _delete([path for path in list_checkpoints(folder) if step_in(path) > step])


def _delete(to_delete: list[Path]) -> Pruned:
    """Rename each first, then delete it, so that a half-deleted folder never counts as a checkpoint."""
    deleted: list[Path] = []
    failed: list[str] = []
    for path in to_delete:
        aside = path.with_name(f".tmp-old-{path.name}")
        try:
            stranger = stranger_in(path)
            if stranger:
                raise OSError(errno.ENOTEMPTY, f"it holds {stranger!r}, which gptplan did not make")
            os.rename(path, aside)
            delete_checkpoint(aside)
        except OSError as error:  # a checkpoint too many is no reason to stop training
            failed.append(f"{path.name} could not be deleted: {error.strerror or error}")
        else:
            deleted.append(path)
    return Pruned(tuple(deleted), tuple(failed))


@dataclass(frozen=True, slots=True)
class SavesAhead:
    """Checkpoints that a run may still write, and the most that are on the disk at once, with those that stand now."""

    saves: int
    at_once: int


def saves_ahead(config: RunConfig, done: int, steps: int, standing: Sequence[int] = ()) -> SavesAhead:
    """The saves after step `done` up to step `steps`; standing: the steps of the checkpoints on the disk, in order.

    Every evaluation may bring the best loss, and the best is saved. The old ones go after the new one was verified.
    """
    due = {steps} if done < steps else set()
    for every in (config.training.checkpoint_every, config.evaluation.every):
        if every is not None:
            due |= set(range((done // every + 1) * every, steps, every))
    kept, best = config.checkpoints, int(config.evaluation.every is not None)
    newest, older = deque(standing), 0  # older: those that stay whatever is saved
    most = len(newest)
    for step in sorted(due):
        newest.append(step)
        most = max(most, older + len(newest))
        while len(newest) > kept.keep:
            older += is_kept(newest.popleft(), kept, None)
    return SavesAhead(len(due), min(len(standing) + len(due), most + best))


def check_space(folder: Path, config: RunConfig, bytes_each: int, done: int, steps: int | None = None) -> None:
    """Raises FileError if `folder` cannot be written, or has no room for the checkpoints still to write.

    done: optimizer steps done; steps: the last one of this call, None: the run's. A byte is written and synced,
    because permissions, quotas and read-only disks cause errors only then.
    """
    standing = [step_in(path) for path in list_checkpoints(folder)]
    ahead = saves_ahead(config, done, steps_of(config) if steps is None else steps, standing)
    extra = max(ahead.at_once - len(standing), 1)
    place = next(path for path in (folder, *folder.absolute().parents) if exists(path))
    _test_write(place)
    free = shutil.disk_usage(place).free
    if free < extra * bytes_each:
        raise FileError(
            f"{folder} has {format_bytes(free)} free; "
            f"the checkpoints of this run need {format_bytes(extra * bytes_each)}",
            why=f"{extra} × {format_bytes(bytes_each)} stand there at the most, besides what is there",
            remedy="free space, keep fewer with checkpoints.keep, or choose a directory on another disk with --out",
        )


def _test_write(place: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=place) as file:  # a random name, or none: no link is followed
            file.write(b"\0")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(
            f"no checkpoint could be written to {place}",
            why=error.strerror or str(error),
            remedy="mend the permissions or the quota, or choose another directory with --out",
        ) from None
