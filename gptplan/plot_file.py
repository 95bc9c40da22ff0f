"""A picture of schedules, PNG or SVG, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gptplan.extras import need_matplotlib
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.analysis.schedules import Curve
    from planner.analysis.search.area import Layout

FORMATS = ("png", "svg")


def format_of(path: Path) -> str:
    """The format that a file name ends in. Raises InputError for another, MissingExtraError without matplotlib."""
    found = path.suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise InputError(
            f"--plot: {path} ends in neither .png nor .svg", why="the ending is the format", remedy="write plot.png"
        )
    need_matplotlib("a picture")
    return found


def drawing(curves: Sequence[Curve], image: str) -> bytes:
    """The picture of the curves in that format; the same bytes each time."""
    import matplotlib  # 0.3 s, wanted for a picture only
    from matplotlib.figure import Figure

    from planner.analysis.schedules import sampled_steps

    steps = sampled_steps(curves)
    with matplotlib.rc_context({"svg.hashsalt": "gptplan"}):
        figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for curve in curves:
            axes.plot(steps, [curve.rate(k) for k in steps], label=curve.label)
        axes.set(xlabel="step", ylabel="learning rate", xlim=(0, steps[-1]), ylim=(0, None))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.grid(alpha=0.3)
        axes.legend()
        found = io.BytesIO()
        figure.savefig(found, format=image, metadata={"Date": None} if image == "svg" else None)
    return found.getvalue()


def front_drawing(layouts: Sequence[Layout], image: str) -> bytes:
    """The picture of time against cost in that format; the same bytes each time."""
    import matplotlib  # 0.3 s, wanted for a picture only
    from matplotlib.figure import Figure

    from planner.units import HOUR

    with matplotlib.rc_context({"svg.hashsalt": "gptplan"}):
        figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for one in layouts:
            label = f"{one.config.hardware.gpus:,} {one.config.hardware.gpu}"
            axes.plot([one.seconds / HOUR], [one.usd or 0.0], "o", label=label)
        axes.set(xlabel="hours", ylabel="USD")
        axes.grid(alpha=0.3)
        axes.legend()
        found = io.BytesIO()
        figure.savefig(found, format=image, metadata={"Date": None} if image == "svg" else None)
    return found.getvalue()
