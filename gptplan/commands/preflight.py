"""`gptplan preflight`: check a run on the real machine, model and data before money is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, DataPath, DeviceName, EndOfText, TextKey, TokenizerName, path_to_write


def preflight(
    config: Annotated[Path | None, typer.Argument(metavar="RUN_TOML", help="The config to check.")] = None,
    data: DataPath = None,
    tokenizer: TokenizerName = "byte",
    text_key: TextKey = "text",
    eot: EndOfText = None,
    device: DeviceName = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="RUN_DIR", parser=path_to_write, help="Directory of the planned run; its disk is checked."
        ),
    ] = Path(),
    time_limit: Annotated[
        str, typer.Option("--time-limit", metavar="3m", help="Approximate time limit; later checks are skipped.")
    ] = "3m",
    json: AsJson = False,
) -> None:
    """Check a run before it starts: data, first loss, gradients, memory, speed, checkpoints, disk.

    It exits with 1 if a check fails, and leaves no files behind.

    Example: gptplan preflight run.toml --data corpus/ --out runs/first
    """
    from gptplan.extras import need_torch
    from gptplan.output import columns, log_line, show, show_json
    from gptplan.request import config_to_check, reading_of
    from planner.units import parse_duration

    loaded, limit = config_to_check(config, "a preflight"), parse_duration(time_limit, name="--time-limit")
    need_torch("a preflight")
    from reference_trainer.distributed.ranks import refuse_ranks

    refuse_ranks("preflight")
    from reference_trainer.preflight.preflight import PreflightOptions
    from reference_trainer.preflight.preflight import preflight as checked

    reading = reading_of(tokenizer, text_key, eot)
    report = checked(loaded, PreflightOptions(device, data, out, limit, reading), log_line)
    if json:
        from dataclasses import asdict

        show_json(asdict(report))
    else:
        from planner.report.preflight import preflight_text

        show(preflight_text(report, columns()))
    raise typer.Exit(1 if report.count("failed") else 0)
