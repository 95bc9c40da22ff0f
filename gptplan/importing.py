"""What `gptplan import` does: reads an engine's files, writes a run.toml, shows its plan."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from gptplan import __version__
from gptplan.output import log_line, show, show_json


def import_file(
    source: Path, output: Path | None, of: str | None, gpu: str | None, gpus: str | None, *, force: bool, as_json: bool
) -> None:
    """Read, write if `output` is given, and show the plan with what was not understood. Raises PlanError."""
    from gptplan.result_files import refuse_taken
    from planner.analysis.findings import findings_with_remedies
    from planner.document import document
    from planner.engines.importing import engine_import
    from planner.inputs.run_toml import write_config
    from planner.plan import estimate
    from planner.report.plan import summary
    from planner.units import parse_count

    refuse_taken({"-o": output}, force)
    done = engine_import(
        source,
        engine=of,
        gpu=gpu,
        gpus=None if gpus is None else parse_count(gpus, name="--gpus"),
        as_of=date.today().isoformat(),
        version=__version__,
    )
    plan = estimate(done.config, replay=True)
    found = findings_with_remedies(plan)
    if output is not None:
        write_config(output, done.config, overwrite=force)
        log_line(f"wrote {output}")
    for one in done.unread:
        log_line(f"not read: {one}")
    if as_json:
        show_json(document(plan, found) | {"engine": done.engine, "unread": list(done.unread)})
        return
    show(f"{source}: {done.engine}, {len(done.unread)} settings without a key of run.toml\n\n{summary(plan, found)}")
