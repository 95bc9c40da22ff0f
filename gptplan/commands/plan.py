"""`gptplan plan`: the validated run.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, AsOf, ConfigFile, Weights, path_to_write
from planner.inputs.flags import Flags

Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", parser=path_to_write, help="Output file; - is stdout.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def plan(
    flags: Flags,
    config: ConfigFile = None,
    as_of: AsOf = None,
    safetensors: Weights = None,
    output: Output = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Write the validated configuration of a run as run.toml.

    Comments explain each value and name the rule of each default.

    Example: gptplan plan --model gpt2 --tokens 10B --gpu h100-80gb -o run.toml
    """
    from gptplan.drafting import all_findings, config_of
    from gptplan.output import log_line, show, show_json
    from planner.document import document
    from planner.inputs.run_toml import config_text, write_config
    from planner.plan import estimate as plan_of
    from planner.report.after_saving import how_to_train

    whole = config_of(flags, config, as_of)
    estimated = plan_of(whole, replay=True)
    found = all_findings(estimated, safetensors)
    if output is not None and str(output) != "-":
        write_config(output, whole, overwrite=force)
        log_line(f"wrote {output}; {how_to_train(whole, output)}")
    elif not json:
        show(config_text(whole).rstrip("\n"))
    for finding in found:
        if finding.level != "note":
            log_line(f"{finding.level} [{finding.code}] {finding.message}\n  fix: {finding.remedy}")
    if json:
        show_json(document(estimated, found))
