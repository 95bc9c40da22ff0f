"""`gptplan postmortem`: what the log of a run says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson


def postmortem(
    directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run, finished or not.")],
    json: AsJson = False,
) -> None:
    """Summarize a run from its logs, problems first: loss spikes, clipping, memory, lost time."""
    from gptplan.output import show, show_json
    from reference_trainer.post_mortem import post_mortem_markdown, problems_of, summary_of

    summary = summary_of(directory)
    if json:
        from dataclasses import asdict

        show_json({"look_at_first": problems_of(summary)} | asdict(summary))
    else:
        show(post_mortem_markdown(summary).rstrip("\n"))
