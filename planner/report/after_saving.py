"""What can be done with a run.toml that was just written."""

from __future__ import annotations

from pathlib import Path

from planner.config.run import RunConfig
from planner.counts.untrained import untrained_parts
from planner.counts.untrained_layouts import missing_on_ranks


def how_to_train(config: RunConfig, path: Path | str) -> str:
    """The command that trains the config; or why the reference trainer does not, and what the file still serves for."""
    parts, gpus = untrained_parts(config.model), config.hardware.gpus
    missing = missing_on_ranks(config) if gpus > 1 else None
    if parts:
        why = f"gptplan run does not have {', '.join(parts)}"
    elif missing is not None:
        why = f"gptplan run does not run {missing.name}"
    else:
        ranks = f" --nproc {gpus}" if gpus > 1 else ""
        return f"train it with: gptplan run {path} --out RUN_DIR{ranks}"
    return f"{why}; see it again with: gptplan estimate --config {path}"
