"""What a search says where nothing is found: the limit that binds, and the layout that comes nearest."""

from __future__ import annotations

from collections.abc import Mapping

from planner.analysis.search.area import Layout
from planner.config.layout import layout_in_full
from planner.errors import InputError
from planner.inputs.search import SearchLimits
from planner.units import format_bytes, format_duration, format_fraction, format_money, told_apart


class Misses:
    """What is said where nothing is found. left_out: placements by reason. nearest: the layout that uses least."""

    def __init__(self, limits: SearchLimits, left_out: Mapping[str, int], nearest: Layout | None) -> None:
        self.limits, self.left_out, self.nearest = limits, left_out, nearest

    def error(self) -> InputError:
        """The error of a search without a result."""
        return self._empty() if self.nearest is None else self._too_large(self.nearest)

    def _empty(self) -> InputError:
        if self.left_out:
            return InputError(
                "no layout can be ranked",
                why="; ".join(sorted(self.left_out)),
                remedy="give a --gpu whose data sheet is complete, or --runtime eager",
            )
        return InputError(
            "no layout divides the batch and the model among these GPUs",
            why="sequences of a step, heads, widths and blocks are shared evenly",
            remedy="give other --gpus, or another --global-batch-tokens",
        )

    def _too_large(self, nearest: Layout) -> InputError:
        needs = " of ".join(told_apart(format_bytes, nearest.used_bytes, nearest.usable_bytes))
        room = self.limits.head_room
        if room and nearest.fraction_used <= 1:
            return InputError(
                f"--head-room {format_fraction(room)} binds: no layout leaves so much memory free",
                why=f"nearest: {described(nearest)} needs {needs}",
                remedy="give a smaller --head-room, more --gpus, or a --gpu with more memory",
            )
        return InputError(
            "memory binds: no layout fits",
            why=f"nearest: {described(nearest)} needs {needs}",
            remedy="give more --gpus, a --gpu with more memory, or a smaller --seq",
        )

    def beyond_limits(self, fastest: Layout, cheapest: Layout) -> InputError:
        """The error of a search whose layouts that fit all take too long or cost too much."""
        limits = self.limits
        quick = f"the fastest that fits, {described(fastest)}, takes {format_duration(fastest.seconds)}"
        if limits.seconds is not None and fastest.seconds > limits.seconds:
            return InputError(
                f"--within {format_duration(limits.seconds)} binds: no layout is so fast",
                why=quick,
                remedy="give more --gpus, a faster --gpu, or more time",
            )
        if cheapest.usd is None:
            return InputError(
                "--max-cost cannot be kept: no price list has these cards",
                why="an unknown price is below no limit",
                remedy="give --price-per-gpu-hour",
            )
        assert limits.usd is not None
        low = f"the cheapest that fits, {described(cheapest)}, costs {format_money(cheapest.usd)}"
        if cheapest.usd > limits.usd:
            return InputError(
                f"--max-cost {format_money(limits.usd)} binds: no layout is so cheap",
                why=low,
                remedy="give fewer or cheaper --gpus, or raise --max-cost",
            )
        dear, slow = format_money(fastest.usd), format_duration(cheapest.seconds)
        return InputError(
            "--max-cost and --within exclude each other",
            why=f"{quick} and costs {dear}; {low} and takes {slow}",
            remedy="raise one of the two",
        )


def described(layout: Layout) -> str:
    """A layout in one line."""
    c, t = layout.config, layout.config.training
    how = layout_in_full(c)
    mode = t.activation_checkpointing
    again = "" if mode == "none" else f", {mode} checkpointing"
    return f"{c.hardware.gpus:,} x {c.hardware.gpu}, {how}, micro-batch {t.micro_batch}{again}"
