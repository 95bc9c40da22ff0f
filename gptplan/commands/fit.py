"""`gptplan fit`: the largest micro-batch, sequence and model that fit; the cheapest change that makes a plan fit."""

from __future__ import annotations

from gptplan.flags import AsJson, AsOf, ConfigFile
from planner.inputs.flags import Flags


def fit(flags: Flags, config: ConfigFile = None, as_of: AsOf = None, json: AsJson = False) -> None:
    """Find the largest micro-batch, sequence, depth and width that fit, and the cheapest change that makes a plan fit.

    Example: gptplan fit --model llama-3-8b --tokens 20B --gpu h100-80gb --gpus 8 --fsdp --micro-batch 1
    """
    from dataclasses import asdict

    from gptplan.drafting import config_of
    from gptplan.output import columns, show, show_json
    from planner.analysis.largest import fit_of
    from planner.counts.run import resolve
    from planner.report.fit import fit_document, fit_text

    found = fit_of(resolve(config_of(flags, config, as_of)))
    if json:
        show_json(asdict(fit_document(found)))
    else:
        show(fit_text(found, columns()))
