"""`gptplan estimate`: the plan as a summary, or as JSON."""

from __future__ import annotations

from gptplan.flags import AsJson, AsOf, ConfigFile, Weights
from planner.typed import Typed


def estimate(
    typed: Typed, config: ConfigFile = None, as_of: AsOf = None, safetensors: Weights = None, json: AsJson = False
) -> None:
    """Predict memory, time, cost and schedule of a run, before paying for it.

    Example: gptplan estimate --params 125M --tokens 10B --gpu a100-80gb --gpus 8
    """
    from gptplan.drafting import all_findings, config_of
    from gptplan.output import show, show_json
    from planner.plan import estimate as plan_of

    plan = plan_of(config_of(typed, config, as_of))
    found = all_findings(plan, safetensors)
    if json:
        from planner.report import document

        show_json(document(plan, found))
    else:
        from planner.text import summary

        show(summary(plan, found))
