"""What the first screen of the README shows: a plan, and the recorded demo."""

from __future__ import annotations

import re

from docs.shell import AS_OF, ROOT, command, console


def estimate() -> str:
    """The first screen's estimate, without the list of defaults."""
    shown = command("estimate", "--params", "125M", "--tokens", "10B", "--as-of", AS_OF)
    body, _, defaults = shown.partition("\n\nDefaults used")
    count = len(re.findall(r"(?m)^  \S", defaults))
    rest = f"Defaults used … ({count} values, each with its rule and source)"
    return console("$ gptplan estimate --params 125M --tokens 10B", body, "", rest)


def first_screen() -> str:
    """Twelve lines of the estimate, picked by their labels."""
    shown = command("estimate", "--params", "125M", "--tokens", "10B", "--as-of", AS_OF).splitlines()
    labels = "parameters, exactly|model FLOPs|effective batch|steps|peak phase|allocated|device used|verdict|throughput"
    wanted = (*labels.split("|"), "wall clock", "cost")
    lines = [next(line for line in shown if line.strip().startswith(label)) for label in wanted]
    return console("$ gptplan estimate --params 125M --tokens 10B", shown[0], *lines, "…")


def demo() -> str:
    """The comparison of the last demo that was recorded, with its machine and date."""
    recorded = (ROOT / "benchmarks" / "results" / "demo.txt").read_text(encoding="utf-8").rstrip()
    return console("$ make demo", "…", recorded)


def demo_table() -> str:
    """The recorded demo as a table: what a newcomer looks at first."""
    names = {
        "parameters": "parameters",
        "model_flops_per_step": "FLOPs per step",
        "saved_activation_bytes": "bytes saved for backward",
        "peak_requested_bytes": "peak memory",
        "checkpoint_bytes": "checkpoint",
        "step_seconds": "step time",
        "tokens_per_second": "throughput",
    }
    recorded = (ROOT / "benchmarks" / "results" / "demo.txt").read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:] for line in recorded.splitlines() if len(cells := re.split(r"\s{2,}", line.strip())) > 4
    }
    lines = ["| | predicted | measured | measured / predicted | tolerance |", "|---|--:|--:|--:|--:|"]
    return "\n".join(lines + [f"| {label} | {' | '.join(rows[name][:4])} |" for name, label in names.items()])
