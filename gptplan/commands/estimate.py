"""`gptplan estimate`: the plan as a summary, or as JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from gptplan.flags import AsJson, AsOf, ConfigFile, Weights
from planner.inputs.flags import Flags

Why = Annotated[
    list[str] | None,
    typer.Option("--why", metavar="KEY", help="Explain this key of --json below the estimate; may be repeated."),
]


def estimate(
    flags: Flags,
    config: ConfigFile = None,
    as_of: AsOf = None,
    safetensors: Weights = None,
    why: Why = None,
    json: AsJson = False,
) -> None:
    """Predict memory, time, cost and schedule of a run, before paying for it.

    Example: gptplan estimate --params 125M --tokens 10B --gpu a100-80gb --gpus 8
    """
    from gptplan.drafting import all_findings, config_of
    from gptplan.output import columns, show, show_json
    from planner.plan import estimate as plan_of

    plan = plan_of(config_of(flags, config, as_of), replay=True)
    found = all_findings(plan, safetensors)
    because = []
    if why:
        from planner.analysis.explain.explain import explanations  # before anything is printed: a key may be wrong

        because = explanations(plan, why)
    if json:
        from planner.document import document

        printed = document(plan, found)
        if because:
            from planner.report.explain import as_json

            printed["why"] = [as_json(one) for one in because]
        show_json(printed)
    else:
        from planner.report.plan import summary

        show(summary(plan, found, columns()))
        if because:
            from planner.report.explain import explanation_text

            show("".join(f"\n{explanation_text(one, columns())}\n" for one in because).rstrip("\n"))
