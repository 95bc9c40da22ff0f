"""`gptplan export`: a checkpoint as a model that other tools load, or a run.toml as the files of another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, path_to_write


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR|CHECKPOINT|RUN_TOML",
            help="A run (its newest checkpoint), one checkpoint, or with --to a run.toml.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", parser=path_to_write, help="New directory for the files."),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ENGINE",
            help="torchtitan, nanogpt, nanochat, megatron-lm, litgpt, hf-trainer, accelerate or deepspeed.",
        ),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option("--launcher", metavar="NAME", help="torchrun (default), slurm, skypilot or kubernetes."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of an earlier export.")] = False,
    json: AsJson = False,
) -> None:
    """Export a checkpoint for Hugging Face transformers, or a run.toml for another training engine.

    A checkpoint becomes model.safetensors and config.json. The model types gpt2, gpt_neox, llama, mistral, qwen2,
    qwen3, olmo2 and olmo3 are supported. No tokenizer is written.

    With --to a run.toml becomes the engine's own files and a launcher. What the engine cannot express is refused by its
    name; what it does otherwise is told, and stands in EXPORT.md with the version that it was written for.
    """
    from gptplan.exporting import export_checkpoint, export_config, refuse_orphans

    refuse_orphans(to, launcher, force)
    if to is None:
        export_checkpoint(source, output, json)
    else:
        export_config(source, output, to, launcher or "torchrun", force=force, as_json=json)
