"""Fit the constants of the predicted step time to published speeds, and score the fit on sources that it never saw.

    python -m benchmarks.fit_time FILE [--write] [--out RESULT.json]

FILE has the columns of benchmarks/speed_rows.py. The constants that may move, with literature value, width and source,
are those of presets/rules/time-fit.toml; nothing is fitted per row or per program. Each source group is predicted three
times by constants that never saw it: from the literature alone, from a fit to all other groups, and from a fit to all
other programs (groups of one program, such as llm-foundry's tables, are left out together). `--write` puts the values
fitted to all rows, and the widths of the interval (benchmarks/fit_intervals.py), into presets/rules/time.toml.
It takes four minutes.
Exit codes: 0 fitted, 2 the file cannot be used.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy_setup import source_facts
from benchmarks.accuracy_speed import CLASSES as KINDS
from benchmarks.accuracy_speed import ScoredSpeed, is_cut_up, score_speed
from benchmarks.accuracy_summary import error_groups, percentile
from benchmarks.accuracy_text import aligned, percent
from benchmarks.fit_constants import Constant, fitted_constants, logarithms, rounded, values_set, write_values
from benchmarks.fit_intervals import (
    CLASSES,
    SITUATIONS,
    Table,
    cards_unknown,
    held_out_coverage,
    in_situation,
    widths_of,
    write_widths,
)
from benchmarks.fit_map import Problem, Vector, most_probable, slopes
from benchmarks.header import write
from benchmarks.speed_rows import SpeedRow, read_speed_rows
from planner.config.run import HardwareConfig
from planner.counts.flops import Flops, flops_of
from planner.counts.run import Resolved, resolve
from planner.errors import PlanError
from planner.step_time.rates import interval_class
from planner.step_time.throughput import throughput_of

NEWEST = HardwareConfig.model_fields["software"].default


@dataclass(frozen=True, slots=True)
class Rows:
    """Scored rows, ready to be predicted again: `runs` by situation (benchmarks/fit_intervals.py), logarithms of the
    measured speeds, source groups, programs and interval classes."""

    scored: Sequence[ScoredSpeed]
    constants: Sequence[Constant]
    runs: dict[str, list[tuple[Resolved, Flops]]]
    logs: Vector
    groups: list[str]
    programs: list[str]
    classes: list[str]

    def errors(self, at: Vector, situation: str = "known") -> Vector:
        """The signed error of each row with these constants: above 0 too fast."""
        with values_set(self.constants, at), cards_unknown(situation):
            speeds = [throughput_of(run, counted).tokens_per_second_per_gpu for run, counted in self.runs[situation]]
        return np.log(np.array([float(speed or 0) for speed in speeds])) - self.logs

    def problem(self) -> Problem:
        """What is fitted."""
        sigmas, tops = (np.array([getattr(one, name) for one in self.constants]) for name in ("sigma", "top"))
        return Problem(self.errors, self.groups, sigmas, tops)


def rows_of(speeds: Sequence[SpeedRow]) -> Rows:
    """The rows that can be predicted, on one device or as replicas; each config is resolved once in each situation.

    Tensor, pipeline and context parallel rows stay unseen: they score the layouts, and are nearly all one program's.
    """
    whole = [row for row in speeds if not is_cut_up(row)]
    scored = [one for one in (score_speed(row) for row in whole) if isinstance(one, ScoredSpeed)]
    runs = {}
    for situation in SITUATIONS:
        resolved = [resolve(in_situation(one.case.config, situation, NEWEST)) for one in scored]
        runs[situation] = [(run, flops_of(run)) for run in resolved]
    return Rows(
        scored=scored,
        constants=fitted_constants(),
        runs=runs,
        logs=np.array([math.log(float(one.case.row.speed or 0)) for one in scored]),
        groups=[one.case.row.source_group for one in scored],
        programs=[program_of(one.case.row) for one in scored],
        classes=[interval_class(one.case.config) for one in scored],
    )


def program_of(row: SpeedRow) -> str:
    """The program that a row was measured with, by benchmarks/data/sources.toml; else its source group."""
    facts = source_facts(row)
    return str(facts.get("program", facts.get("match", row.source_group)))


class HeldOut:
    """Predictions by constants that never saw a row's class of sources; each choice of rows is fitted once."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.problem = rows, rows.problem()
        literature = np.zeros(len(rows.constants))
        self.first = self.problem.errors(literature), slopes(self.problem, literature)
        self.fits: dict[tuple[bool, ...], Vector] = {}

    def constants(self, used: tuple[bool, ...]) -> Vector:
        """The logarithms of the constants from the rows in `used`."""
        if used not in self.fits:
            self.fits[used] = most_probable(self.problem, used, self.first)
        return self.fits[used]

    def errors(self, names: Sequence[str], situations: Sequence[str]) -> dict[str, Vector]:
        """The error of each row, by situation, from a fit to the rows of all other names."""
        found = {situation: np.zeros(len(names)) for situation in situations}
        for one in sorted(set(names)):
            others = tuple(name != one for name in names)
            at, mine = self.constants(others), ~np.asarray(others)
            for situation in situations:
                found[situation][mine] = self.rows.errors(at, situation)[mine]
        return found


def fit(speeds: Sequence[SpeedRow]) -> tuple[dict[str, Any], Vector, Table]:
    """Everything that is reported, ready for JSON; the logarithms of the constants fitted to all rows; the widths."""
    rows = rows_of(speeds)
    held = HeldOut(rows)
    at = held.constants(tuple(True for _ in rows.groups))
    unseen = held.errors(rows.groups, tuple(SITUATIONS))
    errors = {
        "in use": rows.errors(logarithms(rows.constants)),
        "fitted to all": rows.errors(at),
        "literature": held.first[0],
        "other groups": unseen["known"],
        "other programs": held.errors(rows.programs, ("known",))["known"],
    }
    widths = widths_of(rows.classes, rows.groups, unseen)
    return (
        {
            "rows_read": len(speeds),
            "rows_used": len(rows.groups),
            "scores": {
                name: error_groups(list(zip(rows.groups, e.tolist(), strict=True))) for name, e in errors.items()
            },
            "by": {kind: _by(rows, kind, errors) for kind in KINDS if kind != "layout"},
            "coverage": held_out_coverage(rows.classes, rows.groups, unseen["known"]),
            "widths": widths,
            "constants": [
                {"path": one.path, "literature": one.literature, "sigma": one.sigma, "fitted": rounded(one, move)}
                for one, move in zip(rows.constants, at.tolist(), strict=True)
            ],
            "rows": [
                {
                    "id": one.case.row.id,
                    "group": rows.groups[i],
                    "class": rows.classes[i],
                    **{name: round(float(e[i]), 4) for name, e in errors.items()},
                    **{
                        f"not known: {name}": round(float(unseen[name][i]), 4) for name in SITUATIONS if name != "known"
                    },
                }
                for i, one in enumerate(rows.scored)
            ],
        },
        at,
        widths,
    )


def _by(rows: Rows, kind: str, errors: dict[str, Vector]) -> list[dict[str, Any]]:
    """Median and 90th percentile of the errors of each class of rows, the largest class first."""
    names = [KINDS[kind](one) for one in rows.scored]
    found = []
    for name, n in Counter(names).most_common():
        mine = [i for i, other in enumerate(names) if other == name]
        line: dict[str, Any] = {"class": name, "n": n}
        for choice, signed in errors.items():
            values = [abs(float(signed[i])) for i in mine]
            line[choice] = {"median": round(percentile(values, 0.5), 4), "p90": round(percentile(values, 0.9), 4)}
        found.append(line)
    return found


def text_of_fit(found: dict[str, Any]) -> str:
    """The constants, and the errors of each group under each choice of rows."""
    lines = [("constant", "literature", "sigma", "fitted")]
    lines += [
        (c["path"], f"{c['literature']:.4g}", f"{c['sigma']:.2g}", f"{c['fitted']:.4g}") for c in found["constants"]
    ]
    names = list(found["scores"])
    groups = [("source group", "rows", *names)]
    for i, group in enumerate(found["scores"][names[0]]["groups"]):
        medians = (percent(found["scores"][name]["groups"][i]["median"]) for name in names)
        groups.append((group["source_group"], str(group["n"]), *medians))
    for key in ("median_of_group_medians", "median_of_group_p90"):
        groups.append((key.replace("_", " "), "", *(percent(found["scores"][name][key]) for name in names)))
    covered = [("held-out rows inside 80 % intervals", "rows", "inside")]
    covered += [(name, str(c["rows"]), percent(c["coverage"])) for name, c in found["coverage"].items()]
    widths = [("width: what is not known", *CLASSES)]
    widths += [(name, *(f"{by_class[c]:.2f}" for c in CLASSES)) for name, by_class in found["widths"].items()]
    title = "median |ln(predicted / measured)|"
    return "\n\n".join([aligned(lines, 1), title, aligned(groups, 1), aligned(covered, 1), aligned(widths, 1)])


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write where asked; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="measured speeds, CSV")
    parser.add_argument("--write", action="store_true", help="put the values and widths into presets/rules/time.toml")
    parser.add_argument("--out", type=Path, metavar="RESULT.json", help="the result as JSON, with its header")
    options = parser.parse_args(argv)
    try:
        found, at, widths = fit(read_speed_rows(options.file))
    except PlanError as error:
        print(error.message(), file=sys.stderr)
        return 2
    print(text_of_fit(found))
    if options.out:  # before the values: the header names the commit that the constants came from
        write(found, options.out)
    if options.write:
        write_values(fitted_constants(), at)
        write_widths(widths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
