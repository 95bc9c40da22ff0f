"""The score of `benchmarks.accuracy` as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def report(found: Mapping[str, Any]) -> str:
    """Groups, verdicts, rows left out, large under-estimates, then every row where asked for."""
    parts = [groups_table(found), _verdicts(found), reasons_table(found), _under(found)]
    if "rows" in found:
        parts.append(_rows(found["rows"]))
    return "\n\n".join(part for part in parts if part)


def percent(value: float | None, sign: str = "") -> str:
    """A fraction as a percentage, "-" where there is none."""
    return "-" if value is None else f"{value * 100:{sign}.1f} %"


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Aligned columns: the first `left` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def groups_table(found: Mapping[str, Any]) -> str:
    """Errors of each source group, and the medians of the groups."""
    if not found["groups"]:
        return f"{found['read']} rows read; none of them can be scored"
    rows = [("source group", "rows", "median", "p90", "worst")]
    for g in found["groups"]:
        rows.append((g["source_group"], str(g["n"]), *(percent(g[key]) for key in ("median", "p90", "worst"))))
    last = (percent(found["median_of_group_medians"]), percent(found["median_of_group_p90"]))
    rows.append(("median of the groups", "", *last, ""))
    return f"{found['read']} rows read, {found['scored']} scored; error = |ln(predicted / measured)|\n\n" + aligned(
        rows, 1
    )


def _verdicts(found: Mapping[str, Any]) -> str:
    lines = [f"{kind}: {v['right']} of {v['n']} right" for kind, v in found["verdicts"].items()]
    lines += [layout_verdict(kind, v) for kind, v in found["layout_verdicts"].items() if v["n"]]
    core = found["quality_a_pretraining"]
    kept = (
        f"quality-A pre-training rows: {core['n']}; {core['sharded_kept']} of {core['sharded']} sharded ones scored, "
        f"{core['unsharded_kept']} of the other {core['unsharded']}"
    )
    wrong = ", ".join(row["id"] for row in found["wrong_verdicts"])
    return "\n".join([*lines, *([f"wrong: {wrong}"] if wrong else []), kept])


def layout_verdict(kind: str, v: Mapping[str, int]) -> str:
    """The verdicts of rows with a layout that ran, or ran out of memory, in a line."""
    ran = "ran out of memory" if kind == "oom" else "ran"
    return (
        f"layouts that {ran}: {v['right']} of {v['n']} right, {v['clear_right']} of the {v['clear']} "
        f"that are over 2 % from the limit; {v['open']} left open by the plan's interval"
    )


def reasons_table(found: Mapping[str, Any]) -> str:
    """How many rows each reason left out."""
    if not found["excluded"]:
        return ""
    return aligned([("left out", "rows"), *((reason, str(n)) for reason, n in found["excluded"].items())], 1)


def _under(found: Mapping[str, Any]) -> str:
    if not found["under_estimates"]:
        return ""
    rows = [("under-estimated by more than 5 %", "predicted", "measured", "error")]
    return aligned([*rows, *((r["id"], *_sizes(r)) for r in found["under_estimates"])], 1)


def _sizes(row: Mapping[str, Any]) -> tuple[str, str, str]:
    low, high = row["actual_gib"]
    measured = f"{low:.2f} GiB" if low == high else f"{low:.2f}-{high:.2f} GiB"
    return f"{row['predicted_gib']:.2f} GiB", measured, percent(row["error"], "+")


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [("row", "quantity", "mapping", "predicted", "measured", "error")]
    for row in rows:
        if "excluded" in row:
            lines.append((row["id"], "left out", f"{row['excluded']}: {row['detail']}".rstrip(": "), "", "", ""))
        elif row["error"] is None:
            verdict = "right" if row["right"] else "wrong"
            lines.append(
                (row["id"], row["quantity"], ", ".join(row["mapping"]), f"{row['predicted_gib']:.2f} GiB", "", verdict)
            )
        else:
            lines.append((row["id"], row["quantity"], ", ".join(row["mapping"]), *_sizes(row)))
    return aligned(lines, 3)
