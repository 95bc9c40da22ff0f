"""Published best layouts against the winner of a search with the same software: `python -m benchmarks.layouts`.

For each the search is free in tensor and pipeline parallelism, micro-batch and chunks; what the paper's program lacked
or always did is typed. The published layout is searched with its own degrees typed: its best micro-batch and chunks.
Where no such layout is known to fit, it is the fastest with one sequence at a time that may fit: its verdict is open.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gptplan
from benchmarks.header import ROOT, header
from planner.errors import InputError

DATA = ROOT / "benchmarks" / "data" / "published_layouts.toml"
RESULT = ROOT / "benchmarks" / "results" / "layouts.json"
AS_OF = "2026-11-21"
CHUNKS = (1, 2, 4, 8)  # of an interleaved pipeline
WITHIN = 0.1  # of the winner's predicted time: what is asked of a published layout


def published() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each table of the data with one of its layouts."""
    tables = tomllib.loads(DATA.read_text(encoding="utf-8")).values()
    return [(table, layout) for table in tables for layout in table["layout"]]


def compared(table: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A published layout and the winner: degrees, predicted seconds of a step, and their ratio."""
    typed = table["typed"] | row.get("typed", {})
    run: dict[str, Any] = {
        **{key: row[key] for key in ("layers", "hidden", "heads", "gpus")},
        **typed,
        "gpu": table["card"],
        "global_batch_tokens": row["sequences"] * typed["seq"],
        "steps": 100_000,  # what a run does beside its steps is small
    }
    winner = gptplan.search(as_of=AS_OF, top=1, **run).best[0]
    seconds, is_open = published_seconds(run, row)
    return {
        "source": table["source"],
        "model": row["model"],
        "gpus": row["gpus"],
        "published": {
            **{key: row[key] for key in ("tp", "pp")},
            "cp": typed.get("cp", 1),
            "step_seconds": seconds,
            "open": is_open,
        },
        "winner": {
            **{key: getattr(winner.config.parallel, key) for key in ("tp", "pp", "interleave")},
            "micro_batch": winner.config.training.micro_batch,
            "step_seconds": winner.step_seconds,
        },
        "ratio": seconds / winner.step_seconds,
    }


def published_seconds(run: dict[str, Any], row: dict[str, Any]) -> tuple[float, bool]:
    """Predicted seconds of a step of the published layout, and whether it is open that it fits."""
    degrees = {"tp": row["tp"], "pp": row["pp"]}
    try:
        return gptplan.search(as_of=AS_OF, top=1, **run, **degrees).best[0].step_seconds, False
    except InputError:
        return min(_that_may_fit(run, degrees)), True


def _that_may_fit(run: dict[str, Any], degrees: dict[str, int]) -> Iterator[float]:
    replicas = run["gpus"] // (degrees["tp"] * degrees["pp"] * run["cp"])
    batch = {"micro_batch": 1, "accumulation": run["global_batch_tokens"] // run["seq"] // replicas}
    others = {key: value for key, value in run.items() if key != "global_batch_tokens"}
    for chunks in CHUNKS:
        order = {"interleave": chunks, "pp_schedule": "interleaved" if chunks > 1 else "1f1b"}
        plan = gptplan.estimate(as_of=AS_OF, sp=degrees["tp"] > 1, **others, **degrees, **batch, **order)
        seconds = plan.throughput.step_seconds.value
        if plan.memory.fits is not False and seconds is not None:
            yield seconds


def table_of(found: dict[str, Any]) -> str:
    """The recorded result as a table of Markdown."""
    lines = ["| model | GPUs | published | step, s | winner of the search | step, s | published over winner |"]
    lines.append("|---|--:|---|--:|---|--:|--:|")
    for row in found["layouts"]:
        ours, theirs = row["winner"], row["published"]
        chunks = f" x {ours['interleave']}" if ours["interleave"] > 1 else ""
        cut = f", cp {theirs['cp']}" if theirs["cp"] > 1 else ""
        cut += " (may fit)" if theirs["open"] else ""
        lines.append(
            f"| {row['model']} | {row['gpus']:,} "
            f"| tp {theirs['tp']}, pp {theirs['pp']}{cut} | {theirs['step_seconds']:.3g} "
            f"| tp {ours['tp']}, pp {ours['pp']}{chunks}, micro-batch {ours['micro_batch']} "
            f"| {ours['step_seconds']:.3g} | {row['ratio']:.3f} |"
        )
    near = sum(row["ratio"] <= 1 + WITHIN for row in found["layouts"])
    sources = dict.fromkeys(row["source"] for row in found["layouts"])
    lines.append(f"\n{near} of {len(found['layouts'])} are within {WITHIN:.0%} of the winner's predicted time.")
    return "\n".join([*lines, "", *(f"Source: {source}." for source in sources)])


def recorded() -> str:
    """The table of the committed result."""
    return table_of(json.loads(RESULT.read_text(encoding="utf-8")))


def main() -> None:
    """Search for every published layout, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {"header": header(), "layouts": [compared(table, row) for table, row in published()]}
    print(table_of(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
