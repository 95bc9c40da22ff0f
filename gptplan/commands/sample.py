"""`gptplan sample`: text from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, DeviceName


def sample(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR|CHECKPOINT_DIR", help="A run (its newest complete checkpoint), or one checkpoint."
        ),
    ],
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="Text to continue.")] = "",
    tokens: Annotated[str, typer.Option("--tokens", metavar="N", help="Maximum number of new tokens.")] = "200",
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature", metavar="X", help="0: always the most likely token; 1: the model's own distribution."
        ),
    ] = "0.8",
    top_k: Annotated[
        str | None, typer.Option("--top-k", metavar="K", help="Sample from the K most likely tokens.")
    ] = None,
    top_p: Annotated[
        str | None,
        typer.Option("--top-p", metavar="P", help="Sample from the most likely tokens with total probability P."),
    ] = None,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="Sample i uses seed S + i.")] = "0",
    samples: Annotated[str, typer.Option("--samples", metavar="N", help="Number of texts.")] = "1",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="NAME", help="Tokenizer of the data, if it is not bytes.")
    ] = None,
    device: DeviceName = None,
    json: AsJson = False,
) -> None:
    """Generate text from a checkpoint; the same seed gives the same text.

    Example: gptplan sample runs/demo --prompt "def " --tokens 100 --temperature 0.5
    """
    from gptplan.extras import need_torch
    from gptplan.output import log_line, show, show_json
    from planner.units import parse_count, parse_number

    need_torch("sampling")
    from reference_trainer.distributed.ranks import refuse_ranks

    refuse_ranks("sample")
    from reference_trainer.device.device import pick_device
    from reference_trainer.sampling import Sampling
    from reference_trainer.sampling import sample as drawn

    choice = Sampling(
        tokens=parse_count(tokens, name="--tokens"),
        temperature=parse_number(temperature, name="--temperature", allow_zero=True),
        top_k=None if top_k is None else parse_count(top_k, name="--top-k"),
        top_p=None if top_p is None else parse_number(top_p, name="--top-p"),
        seed=parse_count(seed, name="--seed", allow_zero=True),
        samples=parse_count(samples, name="--samples"),
    )
    found = drawn(path, prompt, choice, pick_device(device), log_line, tokenizer)
    if json:
        from dataclasses import asdict

        show_json(asdict(found))
    else:
        from reference_trainer.sampling import drawn_line, texts_of

        log_line(drawn_line(found))
        show(texts_of(found))
