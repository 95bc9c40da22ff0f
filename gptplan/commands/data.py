"""`gptplan data`: text to shards of tokens, or what such shards hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson, path_to_write

PREPARE = "Preparing"


def data(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SOURCE…", help="Text files, .jsonl files, folders of them; or tokens to describe."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", parser=path_to_write, help="Write the tokens into this new directory."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="byte|FILE|tiktoken:NAME[:FILE]",
            help="Bytes (default), a tokenizer.json, or a tiktoken vocabulary.",
            rich_help_panel=PREPARE,
        ),
    ] = None,
    text_key: Annotated[
        str | None,
        typer.Option("--text-key", metavar="KEY", help="Key of the text in a .jsonl file.", rich_help_panel=PREPARE),
    ] = None,
    eot: Annotated[
        str | None,
        typer.Option(
            "--eot", metavar="ID", help="End-of-text token; default: found by its usual names.", rich_help_panel=PREPARE
        ),
    ] = None,
    val_share: Annotated[
        str | None,
        typer.Option(
            "--val-share",
            metavar="SHARE",
            help="Fraction of documents for validation, default 1%.",
            rich_help_panel=PREPARE,
        ),
    ] = None,
    val_tokens: Annotated[
        str | None,
        typer.Option("--val-tokens", metavar="N", help="or about this number of tokens.", rich_help_panel=PREPARE),
    ] = None,
    shard_tokens: Annotated[
        str | None,
        typer.Option("--shard-tokens", metavar="N", help="Tokens per file, default 100M.", rich_help_panel=PREPARE),
    ] = None,
    json: AsJson = False,
) -> None:
    """Tokenize text into a directory for `gptplan run --data`; or describe such a directory or a .bin file.

    One document is in memory at a time. The directory appears when it is complete. Describing reads every token.
    """
    from gptplan.output import log_line, show, show_json
    from planner.errors import InputError
    from planner.units import parse_count, parse_number
    from reference_trainer.data.corpus.prepare import PrepareOptions, prepare
    from reference_trainer.data.corpus.report import tokens_report, tokens_report_text

    if not sources:
        raise InputError(
            "the source is missing",
            why="text is prepared, or tokens are described",
            remedy="gptplan data notes.txt -o prepared, then gptplan run --data prepared",
        )
    flags = {
        "tokenizer": tokenizer,
        "text_key": text_key,
        "end_of_text": None if eot is None else parse_count(eot, name="--eot", allow_zero=True),
        "val_share": None if val_share is None else parse_number(val_share, name="--val-share", allow_zero=True),
        "val_tokens": None if val_tokens is None else parse_count(val_tokens, name="--val-tokens", allow_zero=True),
        "shard_tokens": None if shard_tokens is None else parse_count(shard_tokens, name="--shard-tokens"),
    }
    given = {name: value for name, value in flags.items() if value is not None}
    if out is not None:
        prepare(PrepareOptions(sources=tuple(sources), out=out, **given), log_line)  # type: ignore[arg-type]
        sources = [out]
    elif given:
        spelled = ", ".join("--eot" if name == "end_of_text" else "--" + name.replace("_", "-") for name in given)
        raise InputError(f"{spelled}: for preparing only", why="without -o tokens are described", remedy="add -o DIR")
    reports = [tokens_report(source) for source in sources]
    if json:
        show_json(reports[0] if len(reports) == 1 else {"reports": reports})
    else:
        show("\n".join(tokens_report_text(report) for report in reports))
