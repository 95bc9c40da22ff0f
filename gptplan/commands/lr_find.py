"""`gptplan lr-find`: the learning-rate range test of a config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, DataPath, DeviceName, EndOfText, TextKey, TokenizerName, path_to_write


def lr_find(
    config: Annotated[Path | None, typer.Argument(metavar="RUN_TOML", help="The config to test.")] = None,
    data: DataPath = None,
    tokenizer: TokenizerName = "byte",
    text_key: TextKey = "text",
    eot: EndOfText = None,
    device: DeviceName = None,
    low: Annotated[str, typer.Option("--from", metavar="RATE", help="Learning rate of the first step.")] = "1e-7",
    high: Annotated[str, typer.Option("--to", metavar="RATE", help="Learning rate of the last step.")] = "1e-1",
    steps: Annotated[str, typer.Option("--steps", metavar="N", help="Number of steps.")] = "100",
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", parser=path_to_write, help="Write every step as CSV; - is stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: AsJson = False,
) -> None:
    """Find a peak learning rate: raise it exponentially over 100 steps and look where the loss falls.

    The steps use the model, data and batch of the run. Their weights are discarded.
    """
    from gptplan.extras import need_torch
    from gptplan.output import log_line, show, show_json
    from gptplan.request import config_to_check, reading_of
    from planner.files import refuse_existing, write_atomically
    from planner.runs.rate_search import csv_of
    from planner.units import parse_count, parse_number

    loaded = config_to_check(config, "a range test")
    span = (
        parse_number(low, name="--from"),
        parse_number(high, name="--to"),
        parse_count(steps, name="--steps"),
    )
    to_stdout = str(csv) == "-"
    if csv is not None and not to_stdout and not force:
        refuse_existing(csv)
    need_torch("a range test")
    from reference_trainer.distributed.ranks import refuse_ranks

    refuse_ranks("lr-find")
    from reference_trainer.preflight.lr_finder import find_learning_rate

    found = find_learning_rate(loaded, data, device, span, log_line, reading_of(tokenizer, text_key, eot))
    if csv is not None and not to_stdout:
        write_atomically(csv, csv_of(found), overwrite=force)
        log_line(f"wrote {csv}")
    if to_stdout:
        show(csv_of(found).rstrip("\n"))
    elif json:
        from dataclasses import asdict

        show_json(asdict(found))
    else:
        from gptplan.commands.schedule import knows_all_characters
        from planner.report.rates import rate_search_text

        show(rate_search_text(found, width=shutil.get_terminal_size().columns, plain=not knows_all_characters()))
