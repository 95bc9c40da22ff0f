"""`gptplan batch`: the batch, its legal neighbours, its steps and epochs, and the rate of another batch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from gptplan.flags import AsJson, ConfigFile
from planner.config.options import RATE
from planner.inputs.flags import Flags

Tuned = Annotated[
    str | None,
    typer.Option(
        "--tuned-batch", metavar="TOKENS", help="Tokens per step at which --peak-lr was tuned.", rich_help_panel=RATE
    ),
]
Critical = Annotated[
    str | None,
    typer.Option("--critical-batch", metavar="TOKENS", help="Critical batch, if measured,", rich_help_panel=RATE),
]
Loss = Annotated[
    str | None,
    typer.Option("--loss", metavar="NATS", help="or the loss per token to predict it from.", rich_help_panel=RATE),
]


def batch(
    flags: Flags,
    config: ConfigFile = None,
    tuned_batch: Tuned = None,
    critical_batch: Critical = None,
    loss: Loss = None,
    json: AsJson = False,
) -> None:
    """Compute what follows from a batch: valid sizes, steps, epochs, and the learning rate for another batch size.

    Example: gptplan batch --peak-lr 3e-4 --tuned-batch 512Ki --global-batch-tokens 1Mi
    """
    from gptplan.output import columns, show, show_json
    from planner.analysis.batch import facts_of, facts_of_flags, names_a_model, report_of, with_critical
    from planner.errors import InputError
    from planner.units import parse_count

    if config is not None or names_a_model(flags):
        from gptplan.drafting import config_of

        facts = facts_of(config_of(flags, config))
    else:
        facts = facts_of_flags(flags)
    facts = with_critical(facts, critical_batch, loss)
    found = report_of(facts, None if tuned_batch is None else parse_count(tuned_batch, name="--tuned-batch"))
    if not any(asdict(found).values()):
        raise InputError(
            "nothing can be said about this batch",
            why="too few facts were typed",
            remedy="give --global-batch-tokens, or --micro-batch and --accumulation, or --dataset-tokens, or a model",
        )
    if json:
        show_json(asdict(found))
    else:
        from planner.report.batch import batch_summary

        show(batch_summary(facts, found, columns()))
