"""`gptplan import`: the files of another training engine as a run.toml, and its estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, path_to_write


def import_config(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What the engine reads: a .py, .yaml, .json, or a script with arguments."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", parser=path_to_write, help="The run.toml to write."),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ENGINE",
            help="torchtitan, nanogpt, nanochat, megatron-lm, litgpt, hf-trainer, accelerate or deepspeed; "
            "recognised if absent.",
        ),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME", help="GPU preset of the run; no engine's file names it.")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="N", help="All GPUs, where neither the file nor launch.sh says them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: AsJson = False,
) -> None:
    """Read the files of another training engine as a run.toml, list what was not understood, and estimate it."""
    from gptplan.importing import import_file

    import_file(source, output, of, gpu, gpus, force=force, as_json=json)
