"""Reads a prepared directory, or files of tokens, to the end and checks them against their metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from planner.activity import doing
from planner.errors import DataError
from planner.units import format_bytes, format_count_exact, format_fraction, format_number
from reference_trainer.data.corpus.directory import TokenFiles, token_files
from reference_trainer.data.corpus.formats import TokenFile, token_file
from reference_trainer.data.corpus.listing import SkippedFile, recorded_lines, skipped_lines
from reference_trainer.data.corpus.shards import READ_TOKENS


@doing("reading every token")
def tokens_report(path: Path) -> dict[str, Any]:
    """The tokens at `path`, every one of them read.

    Raises DataError for what is damaged, and for a shard that is not the one that was prepared.
    """
    try:
        files = token_files(path)
        if files is None:
            raise DataError(
                f"{str(path)!r} holds no tokens",
                why="without -o DIR a prepared directory or a .bin is described",
                remedy="prepare text with: gptplan data SOURCE -o DIR",
            )
        parts = {"train": files.train, "validation": files.validation}
        return {
            "path": str(path),
            "tokenizer": files.meta["tokenizer"] if files.meta else None,
            "split": files.meta["split"] if files.meta else None,
            # None: other tokens, or prepared by a version that did not record it
            "sources": files.meta.get("sources") if files.meta else None,
            "skipped": [asdict(one) for one in files.skipped],
            **{name: _part(part, name, files) for name, part in parts.items()},
        }
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the tokens at {str(path)!r}", why=str(error), remedy="give a directory or a .bin"
        ) from error


def _part(paths: Sequence[Path], name: str, files: TokenFiles) -> dict[str, Any]:
    found = [token_file(path) for path in paths]
    read = [_read(file) for file in found]
    stated = files.meta[name] if files.meta else None
    if stated is not None:
        for file, (largest, digest), shard in zip(found, read, stated["shards"], strict=True):
            _check_shard(file, largest, digest, shard)
    return {
        "shards": len(found),
        "tokens": sum(file.count for file in found),
        "dtype": {"<u2": "uint16", "<u4": "uint32"}[found[0].dtype] if found else None,
        "largest_token": max((largest for largest, _ in read), default=None),
        "documents": stated["documents"] if stated else None,
        "text_bytes": stated["bytes"] if stated else None,
        "bytes_per_token": stated["bytes_per_token"] if stated else None,
    }


def _read(file: TokenFile) -> tuple[int, str]:
    """The largest token, and the sha256 of all."""
    tokens, digest, largest = file.tokens(), hashlib.sha256(), 0
    for at in range(0, len(tokens), READ_TOKENS):
        part = tokens[at : at + READ_TOKENS]
        largest = max(largest, int(part.max()))
        digest.update(np.ascontiguousarray(part).data)
    return largest, digest.hexdigest()


def _check_shard(file: TokenFile, largest: int, digest: str, shard: dict[str, Any]) -> None:
    if digest != shard["sha256"]:
        raise DataError(
            f"{str(file.path)!r} is not the shard that was prepared",
            why=f"its tokens' sha256 is {digest[:16]}…, meta.json says {shard['sha256'][:16]}…; "
            f"it holds {file.count} tokens up to {largest}, there were {shard['tokens']} up to {shard['largest']}",
            remedy="prepare the data again, or take the shard from where it is whole",
        )


def tokens_report_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [report["path"]]
    tokenizer, split = report["tokenizer"], report["split"]
    if tokenizer:
        end = f"{format_count_exact(tokenizer['vocab'])} tokens, end of text is {tokenizer['end_of_text']}"
        lines.append(f"  tokenizer   {tokenizer['name']}: {end}")
    for name, title in (("train", "training"), ("validation", "validation")):
        lines.append(f"  {title:<11} {_line(report[name])}")
    if split and split["share"] and not report["validation"]["tokens"]:
        lines.append("              no document was held out: give more documents, or a larger --val-share")
    if split:
        lines.append(f"  split       {format_fraction(split['share'])}: {split['rule']}")
    if report["sources"]:
        lines += _titled("sources", recorded_lines(report["sources"]))
    lines += _titled("beside", skipped_lines([SkippedFile(**one) for one in report["skipped"]]))
    return "\n".join(lines)


def _titled(title: str, lines: list[str]) -> list[str]:
    return [f"  {title if number == 0 else '':<11} {line}" for number, line in enumerate(lines)]


def _line(part: dict[str, Any]) -> str:
    if not part["tokens"]:
        return "none"
    text = f"{format_count_exact(part['tokens'])} tokens ({part['dtype']}) in {part['shards']} files"
    text += f", the largest {part['largest_token']}"
    if part["documents"] is not None:
        text += f"; {format_count_exact(part['documents'])} documents, {format_bytes(part['text_bytes'])} of text"
        text += f", {format_number(part['bytes_per_token'])} bytes per token"
    return text
