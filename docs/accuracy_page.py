"""The tables of docs/accuracy.md, from the committed results of benchmarks.fit_time and benchmarks.accuracy."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.accuracy_setup import DATA
from benchmarks.accuracy_text import layout_verdict, percent
from docs.shell import ROOT

RESULTS = ROOT / "benchmarks" / "results"
CHOICES = (
    ("literature", "from the literature, no row seen"),
    ("other groups", "fitted to all other sources"),
    ("other programs", "fitted to all other programs"),
    ("fitted to all", "fitted to all rows, as in use"),
)
KINDS = {
    "gpu": "Card",
    "size": "Parameters",
    "sequence": "Sequence",
    "software": "Software",
    "runtime": "Runtime",
    "replicas": "Devices",
}


def result(name: str) -> dict[str, Any]:
    """A committed result, with its header."""
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def causes(table: str) -> dict[str, str]:
    """Row → why it is outside its interval, from benchmarks/data/outside.toml. Raises ValueError if a row is twice."""
    entries = tomllib.loads((DATA / "outside.toml").read_text(encoding="utf-8"))[table]
    pairs = [(row, entry["cause"]) for entry in entries for row in entry["rows"]]
    if len(dict(pairs)) != len(pairs):
        raise ValueError(f"a row of [[{table}]] in outside.toml has two causes")
    return dict(pairs)


def speed_scores() -> str:
    """Errors of the speeds by what the constants have seen, and the rows inside their intervals."""
    fit, used = result("fit_time.json"), result("speed_rows.json")
    lines = ["| constants | median | 90th percentile |", "|---|--:|--:|"]
    for key, words in CHOICES:
        score = fit["scores"][key]
        lines.append(
            f"| {words} | {percent(score['median_of_group_medians'])} | {percent(score['median_of_group_p90'])} |"
        )
    covered = ", ".join(f"{percent(c['coverage'])} of {c['rows']} ({name})" for name, c in fit["coverage"].items())
    layouts = sum(one["n"] for one in used["by"]["layout"] if one["class"] not in ("replicas", "fsdp"))
    after = f"{fit['rows_used']} rows, {used['scored']} with the {layouts} of other layouts, which no fit saw."
    return "\n".join([*lines, "", f"{after} Held-out rows inside 80 % intervals: {covered}."])


def speed_classes() -> str:
    """Errors by card, size, sequence, software, runtime and devices: in use, and by constants that never saw a row."""
    fit, used = result("fit_time.json"), result("speed_rows.json")
    parts = []
    for kind, title in KINDS.items():
        seen = {one["class"]: one for one in fit["by"][kind]}
        lines = [
            f"| {title} | rows | median | bias | inside | rows of the fit | median, source unseen | program unseen |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for one in used["by"][kind]:
            unseen = seen.get(one["class"])
            held = [percent(unseen[c]["median"]) if unseen else "-" for c in ("other groups", "other programs")]
            mine = (str(one["n"]), percent(one["median"]), percent(one["bias"], "+"), percent(one["coverage"]))
            lines.append("| " + " | ".join([one["class"], *mine, str(unseen["n"] if unseen else 0), *held]) + " |")
        parts.append("\n".join(lines))
    lines = ["| Layout | rows | median | bias | inside |", "|---|--:|--:|--:|--:|"]
    for one in used["by"]["layout"]:
        cells = (percent(one["median"]), percent(one["bias"], "+"), percent(one["coverage"]))
        lines.append(f"| {one['class']} | {one['n']} | " + " | ".join(cells) + " |")
    return "\n\n".join([*parts, "\n".join(lines)])


def speed_outside() -> str:
    """Every speed outside its interval, by cause. Raises KeyError for a row without one."""
    return _outside(result("speed_rows.json")["outside"], causes("speed"), lambda speed: f"{speed:,.0f}")


def hours_outside() -> str:
    """GPU-hours of whole runs: the score, and every run outside its interval, by cause."""
    found = result("hours_rows.json")
    own = found["published_layouts"]
    score = (
        f"{found['scored']} runs: median {percent(found['median'])}, {found['within_10_percent']} within 10 %; "
        f"the {own['n']} whose layout and batch the run's own config says: median {percent(own['median'])}."
    )
    return score + "\n\n" + _outside(found["outside"], causes("hours"), lambda hours: f"{hours:,.0f}")


def memory_scores() -> str:
    """Errors of predicted peaks by source, and the verdicts of layouts."""
    found = result("memory_rows.json")
    lines = ["| source | rows | median | 90th percentile | worst |", "|---|--:|--:|--:|--:|"]
    for group in found["groups"]:
        cells = (str(group["n"]), *(percent(group[key]) for key in ("median", "p90", "worst")))
        lines.append(f"| {group['source_group']} | " + " | ".join(cells) + " |")
    lines.append(
        f"| **median of the sources** | | {percent(found['median_of_group_medians'])} "
        f"| {percent(found['median_of_group_p90'])} | |"
    )
    core = found["quality_a_pretraining"]
    kept = f"{core['sharded_kept']} of {core['sharded']} sharded pre-training rows of quality A are scored."
    verdicts = [layout_verdict(kind, v).capitalize() + "." for kind, v in found["layout_verdicts"].items()]
    return "\n".join([*lines, "", kept, *verdicts])


def memory_outside() -> str:
    """Every peak of a layout that is over 5 % off and every wrong verdict of one, by cause. Raises KeyError."""
    found = result("memory_rows.json")
    wrong = [row for row in found["wrong_verdicts"] if row["need"] is not None]
    why = causes("memory")
    by_cause: dict[str, list[str]] = {}
    for row in [*found["layouts_outside"], *wrong]:
        by_cause.setdefault(why[row["id"]], []).append(_memory_cells(row))
    parts = []
    for cause, lines in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        head = [
            f"**{cause}** ({len(lines)})",
            "",
            "| row | predicted, GiB | measured, GiB | error |",
            "|---|--:|--:|--:|",
        ]
        parts.append("\n".join([*head, *lines]))
    return "\n\n".join(parts)


def _memory_cells(row: dict[str, Any]) -> str:
    if row["error"] is None:
        left = percent(row["need"] - 1, "+")
        return f"| {row['id']} | {row['predicted_gib']:.1f} | out of memory | {left} of the card |"
    low, high = row["actual_gib"]
    measured = f"{low:.1f}" if low == high else f"{low:.1f} to {high:.1f}"
    return f"| {row['id']} | {row['predicted_gib']:.1f} | {measured} | {percent(row['error'], '+')} |"


def _outside(rows: Sequence[dict[str, Any]], why: dict[str, str], shown: Callable[[float], str]) -> str:
    by_cause: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_cause.setdefault(why[row["id"]], []).append(row)
    parts = []
    for cause, members in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        lines = [f"**{cause}** ({len(members)})", "", "| row | interval | measured | error |", "|---|--:|--:|--:|"]
        for row in members:
            low, _, high = row["predicted"]
            cells = (f"{shown(low)} to {shown(high)}", shown(row["measured"]), percent(row["error"], "+"))
            lines.append(f"| {row['id']} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
