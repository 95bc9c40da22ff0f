"""Tables of measured kernel times, read between and beyond the sizes that were timed.

A profile is what `reference_trainer.measure.calibrate.measure_profile` returns: for each kernel and element type a list
of rows `[size, …, seconds]`. Between sizes the logarithm of the time is linear in the logarithms of the sizes, which
is exact for a time proportional to any power of them. Beyond the table the time grows with the work, that is at
the rate of the table's edge; below it the time of the smallest size stays, because a launch never gets cheaper.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from planner.errors import ConfigError

SCHEMA = 2
# 1: the same tables; on a GPU they ended at 4M elements, and small sizes held the host's launches
SCHEMAS = (1, SCHEMA)
GEMMS = ("gemm_forward", "gemm_input_gradient", "gemm_weight_gradient")
_PAIRS = {"attention": 3} | dict.fromkeys(("layer_norm", "rms_norm", "loss", "embedding"), 2)
_PAIRS |= dict.fromkeys(("gelu", "swiglu", "rotary"), 1)
_SINGLE = ("dispatch", "add", "accumulate", "copy", "join", "fill", "cast_down", "cast_up", "fresh")
_UPDATES = ("adamw", "adamw_tensors", "clip", "clip_tensors")
LAUNCH = ("launch", "fp32")  # the host's part of one kernel; on a GPU only, where it hides behind the kernels before
# how many sizes each kernel of a profile has
DIMENSIONS = (
    dict.fromkeys(GEMMS, 3)
    | {f"{name}_{way}": count for name, count in _PAIRS.items() for way in ("forward", "backward")}
    | dict.fromkeys((*_SINGLE, *_UPDATES), 1)
    | {"sum_rows": 2, "launch": 1}
)
# exponents of the sizes in the work of a kernel, where they are not all 1; attention: heads, tokens, head width
POWERS = {"attention_forward": (1, 2, 1), "attention_backward": (1, 2, 1)}

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """One time in seconds, and by what factor (1 at least) the work lies beyond the table."""

    seconds: float
    beyond: float


@dataclass(slots=True)
class Table:
    """The measured times of one kernel in one element type: seconds by sizes, `powers` of the sizes in the work."""

    times: dict[Sizes, float]
    powers: tuple[int, ...]
    axes: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.axes = [sorted({sizes[i] for sizes in self.times}) for i in range(len(self.powers))]

    def read(self, sizes: Sequence[int]) -> Reading:
        """Seconds of the kernel at these sizes, each at least 1."""
        assert len(sizes) == len(self.axes), f"{sizes} for a table of {len(self.axes)} sizes"
        edges = [_between(axis, size) for axis, size in zip(self.axes, sizes, strict=True)]
        seconds = 0.0
        for corner in product(*edges):
            weight = math.prod(share for _, share in corner)
            if weight:
                seconds += weight * math.log(self._corner(tuple(size for size, _ in corner)))
        beyond = 1.0
        for axis, size, power in zip(self.axes, sizes, self.powers, strict=True):
            beyond *= max(1.0, size / axis[-1]) ** power
        return Reading(math.exp(seconds) * beyond, beyond)

    def _corner(self, sizes: Sizes) -> float:
        """The time measured there; where the time box left it out, that of the nearest, scaled by the work."""
        if sizes not in self.times:
            self.times[sizes] = self.scaled(sizes)
        return self.times[sizes]

    def scaled(self, sizes: Sizes) -> float:
        """Seconds of the nearest measured sizes (in logarithms), scaled by the work; no table needed in between."""

        def far(other: Sizes) -> float:
            return sum(abs(math.log(a / b)) for a, b in zip(sizes, other, strict=True))

        near = min(self.times, key=far)
        return self.times[near] * math.prod((a / b) ** p for a, b, p in zip(sizes, near, self.powers, strict=True))


def _between(axis: list[int], size: int) -> list[tuple[int, float]]:
    """The neighbours of `size` on the axis and the weight of each; one neighbour at and beyond the ends."""
    if size <= axis[0]:
        return [(axis[0], 1.0)]
    if size >= axis[-1]:
        return [(axis[-1], 1.0)]
    above = bisect_right(axis, size)
    low, high = axis[above - 1], axis[above]
    share = math.log(size / low) / math.log(high / low)
    return [(low, 1.0 - share), (high, share)]


def powers_of(kernel: str, dimensions: int) -> tuple[int, ...]:
    """Exponents of a kernel's sizes in its work."""
    return POWERS.get(kernel, (1,) * dimensions)


class Tables:
    """All tables of a profile.

    Raises ConfigError for a profile of another schema, or one that is not made of numbers.
    """

    def __init__(self, profile: dict[str, object]) -> None:
        try:
            if profile["schema"] not in SCHEMAS:
                known = " and ".join(map(str, SCHEMAS))
                raise ValueError(f"schema {profile['schema']}, where this version reads {known}")
            kernels = profile["kernels"]
            if not isinstance(kernels, dict) or not kernels:
                raise ValueError("no kernels")
            self._tables = {
                (name, kind): _table(name, rows) for name, kinds in kernels.items() for kind, rows in kinds.items()
            }
            self.noise = float(str(profile["relative_noise"]))
            if not 0 <= self.noise < math.inf:
                raise ValueError(f"relative_noise is {self.noise}")
        except KeyError as error:
            raise _unusable(f"it has no {error.args[0]}") from error
        except (AttributeError, TypeError, ValueError, ArithmeticError, IndexError) as error:
            raise _unusable(str(error)) from error

    def __getitem__(self, key: tuple[str, str]) -> Table:
        """The table of a kernel and type ("fp32" or "bf16"). Raises ConfigError if the profile lacks it."""
        if key not in self._tables:
            raise _unusable(f"it has no times for {key[0]} in {key[1]}")
        return self._tables[key]

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the profile has times of a kernel and type."""
        return key in self._tables


def _table(name: str, rows: Sequence[Sequence[float]]) -> Table:
    times = {tuple(int(size) for size in row[:-1]): float(row[-1]) for row in rows}
    dimensions = {len(sizes) for sizes in times}
    if len(dimensions) != 1:
        raise ValueError(f"the rows of {name} differ in length, or there are none")
    if dimensions != {DIMENSIONS.get(name, *dimensions)}:
        raise ValueError(f"the rows of {name} have another number of sizes than {DIMENSIONS[name]}")
    if not all(math.isfinite(t) and t > 0 for t in times.values()):
        raise ValueError(f"{name} has a time that is not above 0")
    if not all(size >= 1 for sizes in times for size in sizes):
        raise ValueError(f"{name} has a size below 1")
    return Table(times, powers_of(name, dimensions.pop()))


def _unusable(why: str) -> ConfigError:
    return ConfigError("the machine profile cannot be used", why=why, remedy="measure it again: gptplan calibrate")
