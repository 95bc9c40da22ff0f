"""`gptplan run`: train the config with the reference trainer and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, DataPath, DeviceName, EndOfText, TextKey, TokenizerName, path_to_write


def run(
    config: Annotated[Path | None, typer.Argument(metavar="RUN_TOML", help="The config to train.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN_DIR", parser=path_to_write, help="Directory of the new run.")
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN_DIR", help="Continue this run.")] = None,
    device: DeviceName = None,
    data: DataPath = None,
    tokenizer: TokenizerName = "byte",
    text_key: TextKey = "text",
    eot: EndOfText = None,
    steps: Annotated[str | None, typer.Option("--steps", metavar="N", help="Stop after step N; resumable.")] = None,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", metavar="2h30m", help="Stop after this time; resumable.")
    ] = None,
    new_schedule: Annotated[
        bool,
        typer.Option("--new-schedule", help="With --resume: steps, tokens and schedule in config.toml may change."),
    ] = False,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Use deterministic kernels only.")] = False,
    log_every: Annotated[
        str | None,
        typer.Option(
            "--log-every", metavar="N", help="Steps per read of results from the device; default 10 on a GPU."
        ),
    ] = None,
    statistics_every: Annotated[
        str | None, typer.Option("--statistics-every", metavar="N", help="Steps between layer statistics.")
    ] = None,
    noise_scale: Annotated[bool, typer.Option("--noise-scale", help="Measure the gradient-noise scale.")] = False,
    tracker: Annotated[
        list[str] | None,
        typer.Option("--tracker", metavar="NAME", help="Log to tensorboard, trackio or wandb; may be repeated."),
    ] = None,
    eval_command: Annotated[
        str | None,
        typer.Option(
            "--eval-command", metavar="CMD", help="Shell command after evaluations and checkpoints; '' for none."
        ),
    ] = None,
    eval_timeout: Annotated[
        str | None, typer.Option("--eval-timeout", metavar="10m", help="Time limit of --eval-command.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option("--profile", metavar="FILE", help="Kernel times that gptplan calibrate measured on this machine."),
    ] = None,
    nproc: Annotated[
        str | None,
        typer.Option("--nproc", metavar="N", help="Start N ranks on this machine, one for each GPU of the config."),
    ] = None,
    rank_timeout: Annotated[
        str | None,
        typer.Option("--rank-timeout", metavar="10m", help="Time after which a rank that does not move hangs."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="Train with torchtitan instead: TP, PP, CP, EP and FSDP2."),
    ] = None,
    engine_args: Annotated[
        str | None,
        typer.Option(
            "--engine-args",
            metavar="WORDS",
            help="More of its own options, such as '--hf_assets_path DIR'; with --engine.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Train a run.toml on this machine, then compare every prediction with its measurement.

    Without --data it trains on the source files of Python's standard library; no network is needed.
    With --engine the files of another engine are written to --out, checked by it, started, and its log compared.
    """
    if engine is not None or engine_args is not None:
        from gptplan.engine_run import run_engine

        ours = {
            "--resume": resume, "--device": device, "--data": data, "--eot": eot, "--steps": steps,
            "--time-limit": time_limit, "--new-schedule": new_schedule, "--deterministic": deterministic,
            "--log-every": log_every, "--statistics-every": statistics_every, "--noise-scale": noise_scale,
            "--tracker": tracker, "--eval-command": eval_command, "--eval-timeout": eval_timeout,
            "--profile": profile, "--nproc": nproc, "--rank-timeout": rank_timeout,
        }  # fmt: skip
        raise typer.Exit(run_engine(config, out, engine, engine_args, ours, as_json=json))
    from gptplan.extras import need_torch
    from gptplan.output import json_text, log_line, show_if_possible
    from gptplan.request import profile_of_run, reading_of, request_of, restarted
    from planner.units import parse_count, parse_duration

    request = request_of(config, out, resume, steps, new_schedule)
    times = profile_of_run(profile, request.resume)
    need_torch("training")
    from reference_trainer.distributed.endings import spoken_once
    from reference_trainer.distributed.ranks import ALONE, ranks_of_environment

    ranks = ranks_of_environment()
    request = restarted(request)
    if nproc is not None and ranks is None:
        from gptplan.ranks import run_as_ranks

        raise typer.Exit(run_as_ranks(request, parse_count(nproc, name="--nproc")))
    from reference_trainer.execute import execute
    from reference_trainer.step.options import RunOptions

    options = RunOptions(
        device=device,
        data_path=data,
        reading=reading_of(tokenizer, text_key, eot),
        stop_after=request.stop_after,
        deterministic=deterministic,
        progress=True,
        time_limit=None if time_limit is None else parse_duration(time_limit, name="--time-limit"),
        new_schedule=new_schedule,
        log_every=None if log_every is None else parse_count(log_every, name="--log-every"),
        statistics_every=None if statistics_every is None else parse_count(statistics_every, name="--statistics-every"),
        noise_scale=noise_scale,
        trackers=tuple(tracker or ()),
        eval_command=eval_command,
        profile=times,
        rank_timeout=None if rank_timeout is None else parse_duration(rank_timeout, name="--rank-timeout"),
        eval_timeout=None if eval_timeout is None else parse_duration(eval_timeout, name="--eval-timeout"),
    )
    with spoken_once(ranks or ALONE, log_line):
        outcome = execute(request.config, request.directory, request.resume, options, log_line, ranks or ALONE)
    if outcome.comparison is not None:
        if json:
            from dataclasses import asdict

            show_if_possible(json_text(asdict(outcome.comparison)))
        else:
            from planner.report.comparison import comparison_lines

            show_if_possible(comparison_lines(outcome.comparison))
        log_line(f"report: {request.directory / 'report.md'}")
    raise typer.Exit(outcome.exit_code)
