"""`gptplan schedule`: the learning rate of every update, as tables, plots and files."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptplan.flags import AsJson, ConfigFile, path_to_write
from planner.inputs.flags import Flags

if TYPE_CHECKING:
    from planner.analysis.schedules import Curve

SHOWN = "What is shown"
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Short for --schedule.", rich_help_panel="Learning rate")
]
At = Annotated[
    str | None, typer.Option("--at", metavar="K,K,…", help="Print the rate of these steps.", rich_help_panel=SHOWN)
]
Every = Annotated[
    str | None, typer.Option("--every", metavar="N", help="Print the rate of every N-th step.", rich_help_panel=SHOWN)
]
Over = Annotated[
    str | None,
    typer.Option(
        "--over", metavar="FLAG=V,V,…", help="Compare curves: warmup=500,2000,5000 or kind=….", rich_help_panel=SHOWN
    ),
]
Continuity = Annotated[
    bool,
    typer.Option("--continuity", help="Show symbolically that the segments are continuous.", rich_help_panel=SHOWN),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        parser=path_to_write,
        help="Write the rates as CSV; - is stdout.",
        rich_help_panel=SHOWN,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", metavar="FILE", parser=path_to_write, help="Write a plot as .png or .svg.", rich_help_panel=SHOWN
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.", rich_help_panel=SHOWN)]


def schedule(
    flags: Flags,
    config: ConfigFile = None,
    kind: Kind = None,
    at: At = None,
    every: Every = None,
    over: Over = None,
    continuity: Continuity = False,
    csv: Csv = None,
    plot: Plot = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Show a learning-rate schedule. With the schedule's own flags no model is needed.

    Example: gptplan schedule --kind cosine --peak-lr 3e-4 --min-lr 10% --warmup-steps 2000 --steps 10000 --at 6000
    """
    from gptplan.output import show, show_json
    from planner.analysis.schedules import csv_text, curves_document, last_step, sampled_steps, steps_shown
    from planner.counts.schedule import continuity as breakpoints_of

    curves = _curves(_with_kind(flags, kind), config, over)
    steps = steps_shown(at, every, last_step(curves))
    kinds = dict.fromkeys(curve.schedule.kind for curve in curves) if continuity else {}
    breakpoints = [(name, breakpoints_of(name)) for name in kinds]
    rows = csv_text(curves, steps or sampled_steps(curves)) if csv else ""
    to_stdout = str(csv) == "-"
    _write_files(curves, None if to_stdout else csv, rows, plot, force)
    if to_stdout:
        show(rows.rstrip("\n"))
    elif json:
        show_json(curves_document(curves, steps, breakpoints))
    else:
        from planner.report.schedule import schedule_summary

        width = shutil.get_terminal_size().columns
        show(schedule_summary(curves, steps, breakpoints, width=width, plain=not knows_all_characters()))


def _write_files(curves: tuple[Curve, ...], csv: Path | None, rows: str, plot: Path | None, force: bool) -> None:
    """Both files or, where one of them may not be written, none."""
    from gptplan.result_files import refuse_taken, write_files

    refuse_taken({"--csv": csv, "--plot": plot}, force)
    contents: dict[Path, str | bytes] = {} if csv is None else {csv: rows}
    if plot is not None:
        from gptplan.plot_file import drawing, format_of

        contents[plot] = drawing(curves, format_of(plot))
    write_files(contents, force)


def _with_kind(flags: Flags, kind: str | None) -> Flags:
    from planner.errors import InputError

    if kind is None:
        return flags
    if flags.schedule is not None:
        raise InputError(
            "--kind and --schedule contradict each other", why="each is the kind", remedy="give one of them"
        )
    return replace(flags, schedule=kind)


def _curves(flags: Flags, config: Path | None, over: str | None) -> tuple[Curve, ...]:
    """One curve, or one per value of --over; of the flags alone where they name no model."""
    from planner.analysis.schedules import curve_alone, curve_of, is_alone, variants

    def curve(each: Flags, label: str = "") -> Curve:
        if config is None and is_alone(each):
            return curve_alone(each, label)
        from gptplan.drafting import config_of

        return curve_of(config_of(each, config), label)

    if over is None:
        return (curve(flags),)
    return tuple(curve(each, label) for label, each in variants(over, flags))


def knows_all_characters() -> bool:
    """Whether the terminal can show what plots are drawn with."""
    from planner.report.plot import ALL_CHARACTERS

    if os.environ.get("TERM") == "dumb":
        return False
    try:
        ALL_CHARACTERS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
