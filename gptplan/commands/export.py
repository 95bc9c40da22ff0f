"""`gptplan export`: a checkpoint as a model that other tools load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, path_to_write


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_DIR|CHECKPOINT", help="A run (its newest checkpoint), or one checkpoint.")
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", parser=path_to_write, help="New directory for the two files."),
    ],
    json: AsJson = False,
) -> None:
    """Export a checkpoint as model.safetensors and config.json for Hugging Face transformers.

    The model types gpt2, gpt_neox, llama, mistral, qwen2, qwen3, olmo2 and olmo3 are supported. A model that none of
    them can express is refused; the message names the option. No tokenizer is written.
    """
    from gptplan.extras import need_torch
    from gptplan.output import log_line, show, show_json
    from planner.units import format_bytes, format_count

    need_torch("exporting")
    from reference_trainer.checkpoint.export import export as write

    done = write(source, output, log_line)
    if json:
        from dataclasses import asdict

        show_json(asdict(done))
        return
    padding = f", {done.padding_rows} rows of padding in its vocabulary kept" if done.padding_rows else ""
    show(
        f"{done.checkpoint} → {done.directory}: {done.model_type}, {format_count(done.parameters)} parameters, "
        f"{done.dtype}, step {done.step:,}, {format_bytes(done.size_bytes)}{padding}"
    )
