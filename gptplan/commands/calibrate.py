"""`gptplan calibrate`: time this machine's kernels, so that speed can be predicted."""

from __future__ import annotations

from typing import Annotated

import typer

from gptplan.flags import AsJson


def calibrate(
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="What to measure.")] = "cpu",
    seconds: Annotated[str, typer.Option("--seconds", metavar="N", help="About how long it may take.")] = "15",
    json: AsJson = False,
) -> None:
    """Measure this machine's kernels once; the profile is stored in your cache directory."""
    from gptplan.extras import need_torch
    from gptplan.output import log_line, show, show_json
    from planner.units import parse_duration

    need_torch("calibration")
    limit = parse_duration(seconds, name="--seconds")
    from planner.inputs.profile_cache import profile_path, save_profile
    from reference_trainer.device.device import pick_device
    from reference_trainer.measure.calibrate import measure_profile

    kind = pick_device(device).type
    profile = measure_profile(kind, limit, log_line)
    path = profile_path(kind)
    save_profile(profile, path)
    if json:
        show_json(profile)
    else:
        show(f"profile of {profile['device_name']} written to {path}")
