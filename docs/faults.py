"""The table of docs/reference/faults.md: every fault of faults.toml with the tests that are named after it."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def faults() -> list[dict[str, Any]]:
    """The faults, by number."""
    return list(tomllib.loads((ROOT / "docs" / "faults.toml").read_text(encoding="utf-8"))["fault"])


def named_after_faults() -> dict[int, list[tuple[str, str]]]:
    """File and name of every test called test_fault_NN_…"""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"(?m)^def (test_fault_\d\d_\w+)\(", path.read_text(encoding="utf-8")):
            found[int(name.split("_")[2])].append((str(path.relative_to(ROOT)), name))
    return found


def table() -> str:
    """One line per fault."""
    tests, lines = named_after_faults(), ["| # | what happens | what is right | shown by |", "|--:|---|---|---|"]
    for fault in faults():
        links = [f"[{' '.join(name.split('_')[3:])}](../../{file})" for file, name in tests.get(fault["number"], [])]
        links += [f"`{fault['soak']}`"] if "soak" in fault else []
        shown = "; ".join(links) or f"no test: {fault['missing']}"
        lines.append(f"| {fault['number']} | {fault['what']} | {fault['right']} | {shown} |")
    return "\n".join(lines)
