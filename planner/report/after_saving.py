"""What can be done with a run.toml that was just written."""

from __future__ import annotations

from pathlib import Path

from planner.config.run import RunConfig
from planner.counts.untrained import untrained_parts


def how_to_train(config: RunConfig, path: Path | str) -> str:
    """The command that trains the config; or why the reference trainer does not, and what the file still serves for."""
    parts = untrained_parts(config.model)
    if config.hardware.gpus > 1:
        why = f"gptplan run trains on one device, and this is for {config.hardware.gpus:,} GPUs"
    elif parts:
        why = f"gptplan run does not have {', '.join(parts)}"
    else:
        return f"train it with: gptplan run {path} --out RUN_DIR"
    return f"{why}; see it again with: gptplan estimate --config {path}"
