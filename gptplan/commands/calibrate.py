"""`gptplan calibrate`: time this machine's kernels, so that speed can be predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, path_to_write


def calibrate(
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="What to measure.")] = "cpu",
    seconds: Annotated[
        str | None,
        typer.Option("--seconds", metavar="N", help="About how long one try may take; default 15, of a GPU 40."),
    ] = None,
    tries: Annotated[str, typer.Option("--tries", metavar="N", help="Measurements while the machine is busy.")] = "3",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", parser=path_to_write, help="Write it there, for --profile elsewhere."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: AsJson = False,
) -> None:
    """Measure this machine's kernels once; the profile is stored in your cache directory.

    On a busy machine it measures again. A profile that stays noisy is not kept, and the exit code is 1.
    """
    from gptplan.extras import need_torch
    from gptplan.output import log_line, show, show_json
    from planner.files import refuse_existing, write_atomically
    from planner.units import parse_count, parse_duration

    limit = None if seconds is None else parse_duration(seconds, name="--seconds")
    most = parse_count(tries, name="--tries")
    if output is not None and not force:
        refuse_existing(output)
    need_torch("calibration")
    from reference_trainer.distributed.ranks import refuse_ranks

    refuse_ranks("calibrate")
    from planner.inputs.profile_cache import profile_path, save_profile
    from planner.inputs.profile_file import profile_text
    from reference_trainer.device.device import pick_device
    from reference_trainer.measure.calibrate import DEFAULT_SECONDS, quiet_profile

    kind = pick_device(device).type
    profile = quiet_profile(kind, DEFAULT_SECONDS[kind] if limit is None else limit, most, log_line)
    if profile is None:
        raise typer.Exit(1)
    path = profile_path(kind) if output is None else output
    if output is None:
        save_profile(profile, path)
    else:
        write_atomically(path, profile_text(profile), overwrite=force)
    if json:
        show_json(profile)
    else:
        show(f"profile of {profile['device_name']} written to {path}")
