"""The scores of predicted speed and of predicted GPU-hours as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.accuracy_text import aligned, groups_table, percent, reasons_table


def speed_report(found: Mapping[str, Any]) -> str:
    """Groups, intervals, classes, rows left out, rows outside their interval, then every row where asked for."""
    parts = [groups_table(found), _intervals(found)]
    parts += [_classes(name, rows) for name, rows in found.get("by", {}).items()]
    parts.append(reasons_table(found))
    if found["outside"]:
        parts.append(_rows("outside the interval", found["outside"]))
    if "rows" in found:
        parts.append(_rows("row", found["rows"]))
    return "\n\n".join(part for part in parts if part)


def _intervals(found: Mapping[str, Any]) -> str:
    lines = [f"inside the interval: {percent(found['coverage'])}; median half-width {percent(found['median_width'])}"]
    if "median" in found:
        lines.append(f"median of all rows {percent(found['median'])}; {found['within_10_percent']} within 10 %")
        own = found["published_layouts"]
        lines.append(f"rows whose layout the run's own config says: {own['n']}, median {percent(own['median'])}")
    core = found.get("quality_a_dense_pretraining")
    if core:
        lines.append(
            f"quality-A dense pre-training rows: {core['n']}, of them {core['expressible']} on one device or as "
            f"replicas; {core['expressible_kept']} of these scored"
        )
    return "\n".join(lines)


def _classes(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [(name, "rows", "median", "bias", "inside")]
    for row in rows:
        lines.append(
            (row["class"], str(row["n"]), percent(row["median"]), percent(row["bias"], "+"), percent(row["coverage"]))
        )
    return aligned(lines, 1) if rows else ""


def _rows(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [(title, "mapping", "low", "predicted", "high", "measured", "error")]
    for row in rows:
        if "excluded" in row:
            lines.append((row["id"], f"{row['excluded']}: {row['detail']}".rstrip(": "), "", "", "", "", ""))
        else:
            numbers = (f"{number:.4g}" for number in (*row["predicted"], row["measured"]))
            lines.append((row["id"], ", ".join(row["mapping"]), *numbers, percent(row["error"], "+")))
    return aligned(lines, 2)
