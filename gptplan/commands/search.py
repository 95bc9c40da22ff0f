"""`gptplan search`: the best layouts of a run over cards, numbers of GPUs and every way to share the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptplan.flags import AsJson, AsOf, ConfigFile, path_to_write
from planner.inputs.flags import Flags

if TYPE_CHECKING:
    from planner.analysis.search.search import SearchResult

LIMITS, SHOWN_PANEL = "What a layout must keep", "What is shown"
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", metavar="USD", help="Most dollars of the run, $10k.", rich_help_panel=LIMITS)
]
Within = Annotated[
    str | None, typer.Option("--within", metavar="TIME", help="Longest time of the run, 7d.", rich_help_panel=LIMITS)
]
HeadRoom = Annotated[
    str | None,
    typer.Option("--head-room", metavar="FRACTION", help="Usable memory that stays free, 5%.", rich_help_panel=LIMITS),
]
RankBy = Annotated[
    str,
    typer.Option(
        "--by", metavar="time|cost|energy|head-room", help="What layouts are ranked by.", rich_help_panel=SHOWN_PANEL
    ),
]
Top = Annotated[str, typer.Option("--top", metavar="N", help="Layouts shown.", rich_help_panel=SHOWN_PANEL)]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", parser=path_to_write, help="Write the winner as run.toml; - is stdout."
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        parser=path_to_write,
        help="Write the layouts as CSV; - is stdout.",
        rich_help_panel=SHOWN_PANEL,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        parser=path_to_write,
        help="Plot time against cost as .png or .svg.",
        rich_help_panel=SHOWN_PANEL,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


def search(
    flags: Flags,
    config: ConfigFile = None,
    as_of: AsOf = None,
    max_cost: MaxCost = None,
    within: Within = None,
    head_room: HeadRoom = None,
    by: RankBy = "time",
    top: Top = "10",
    output: Output = None,
    csv: Csv = None,
    plot: Plot = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Find the layout that is fastest, cheapest or has most head-room, of the same steps, among all that fit.

    --gpu takes names (h100-80gb,h200) and --gpus numbers (8..64 by doublings, 8,24). What is typed stays: --tp 8
    searches layouts with tp = 8.

    Example: gptplan search --model llama-3-8b --tokens 1T --gpu h100-80gb,h200 --gpus 8..64 --within 60d -o run.toml
    """
    from dataclasses import asdict

    from gptplan.commands.schedule import knows_all_characters
    from gptplan.functions import searched
    from gptplan.output import columns, show, show_json
    from gptplan.result_files import refuse_taken
    from planner.analysis.search.processes import usable_cores
    from planner.inputs.search import limits_of, ranking_of
    from planner.report.search import search_csv, search_document, search_text
    from planner.units import parse_count

    rank, shown = ranking_of(by), parse_count(top, name="--top")
    refuse_taken({"-o": output, "--csv": csv, "--plot": plot}, force)
    limits = limits_of(max_cost, within, head_room)
    result = searched(flags, config, as_of, limits, (rank, shown), usable_cores())
    _write(result, output, csv, plot, force)
    if str(csv) == "-":
        show(search_csv(result.best))
    elif json:
        show_json(asdict(search_document(result)))
    elif str(output) == "-":
        from planner.analysis.search.search import chosen_config
        from planner.inputs.run_toml import config_text

        show(config_text(chosen_config(result)).rstrip("\n"))
    else:
        show(search_text(result, columns(), plain=not knows_all_characters()))


def _write(result: SearchResult, output: Path | None, csv: Path | None, plot: Path | None, force: bool) -> None:
    """The winner's config, the table and the picture."""
    from gptplan.output import log_line
    from gptplan.result_files import write_files
    from planner.analysis.search.search import chosen_config
    from planner.inputs.run_toml import write_config
    from planner.report.after_saving import how_to_train
    from planner.report.search import search_csv

    contents: dict[Path, str | bytes] = {}
    if csv is not None and str(csv) != "-":
        contents[csv] = search_csv(result.best) + "\n"
    if plot is not None:
        from gptplan.plot_file import format_of, front_drawing

        contents[plot] = front_drawing(result.front, format_of(plot))
    write_files(contents, force)
    if output is not None and str(output) != "-":
        winner = chosen_config(result)
        write_config(output, winner, overwrite=force)
        log_line(f"wrote {output}; {how_to_train(winner, output)}")
        if not result.best[0].fits:
            log_line(f"it is not known to fit: {result.best[0].why_open}")
