"""What `gptplan export` does: a checkpoint for transformers, or a run.toml for another engine."""

from __future__ import annotations

from pathlib import Path

from gptplan.output import log_line, show, show_json
from planner.errors import InputError


def refuse_orphans(to: str | None, launcher: str | None, force: bool) -> None:
    """Raises InputError for an option that means nothing without --to."""
    orphan = "--launcher" if launcher is not None else "--force" if force else ""
    if to is None and orphan:
        raise InputError(
            f"{orphan} needs --to",
            why="a checkpoint is engine_export into a new directory, and starts nothing",
            remedy="add --to ENGINE, or leave it out",
        )


def export_checkpoint(source: Path, output: Path, as_json: bool) -> None:
    """Write a checkpoint as transformers reads it, and say so. Raises PlanError."""
    from gptplan.extras import need_torch
    from planner.units import format_bytes, format_count

    need_torch("exporting")
    from reference_trainer.checkpoint.export import export as write

    done = write(source, output, log_line)
    if as_json:
        from dataclasses import asdict

        show_json(asdict(done))
        return
    padding = f", {done.padding_rows} rows of padding in its vocabulary kept" if done.padding_rows else ""
    show(
        f"{done.checkpoint} → {done.directory}: {done.model_type}, {format_count(done.parameters)} parameters, "
        f"{done.dtype}, step {done.step:,}, {format_bytes(done.size_bytes)}{padding}"
    )


def export_config(source: Path, output: Path, to: str, launcher: str, *, force: bool, as_json: bool) -> None:
    """Write a run.toml as the files of an engine, and say what the engine does otherwise. Raises PlanError."""
    from gptplan.result_files import write_folder
    from planner.engines.export import RECORD, engine_export
    from planner.inputs.run_toml import load_config

    done = engine_export(load_config(source), to, launcher)
    write_folder(output, done.files, force)
    if as_json:
        from dataclasses import asdict

        show_json(asdict(done) | {"files": sorted(done.files), "directory": str(output)})
        return
    lines = [f"{source} → {output}: {done.stamp}; start it with: bash {output / 'launch.sh'}"]
    lines += [f"  otherwise there: {one}" for one in done.differences]
    show("\n".join([*lines, f"  every key: {output / RECORD}"]))
