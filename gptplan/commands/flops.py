"""`gptplan flops`: FLOPs by operator, and in every convention, side by side."""

from __future__ import annotations

from gptplan.flags import AsJson, AsOf, ConfigFile
from planner.inputs.flags import Flags


def flops(flags: Flags, config: ConfigFile = None, as_of: AsOf = None, json: AsJson = False) -> None:
    """Count the FLOPs of a run by operator, and in every published convention with its users.

    Without --tokens and --steps: per token and per step only.

    Example: gptplan flops --model llama-2-7b --seq 4096 --gpu h100-80gb
    """
    from dataclasses import replace

    from gptplan.drafting import config_of
    from gptplan.output import columns, show, show_json
    from planner.analysis.flops import flops_document, flops_report

    horizon = bool(config or flags.given("tokens", "steps"))
    whole = config_of(flags if horizon else replace(flags, steps="1"), config, as_of)
    report = flops_report(whole, horizon=horizon)
    if json:
        show_json(flops_document(report))
    else:
        from planner.report.flops import flops_text

        show(flops_text(report, columns()))
