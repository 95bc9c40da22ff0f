"""`gptplan flops`: FLOPs by operator, and in every convention, side by side."""

from __future__ import annotations

from gptplan.flags import AsJson, AsOf, ConfigFile
from planner.typed import Typed


def flops(typed: Typed, config: ConfigFile = None, as_of: AsOf = None, json: AsJson = False) -> None:
    """Count the FLOPs of a run by operator, forward and backward, and in every convention, with who uses each.

    Without --tokens and --steps: per token and per step only.

    Example: gptplan flops --model llama-2-7b --seq 4096 --gpu h100-80gb
    """
    from dataclasses import replace

    from gptplan.drafting import config_of
    from gptplan.output import show, show_json
    from planner.flops_report import document, flops_report

    horizon = bool(config or typed.given("tokens", "steps"))
    whole = config_of(typed if horizon else replace(typed, steps="1"), config, as_of)
    report = flops_report(whole, horizon=horizon)
    if json:
        show_json(document(report))
    else:
        from planner.flops_text import flops_text

        show(flops_text(report))
