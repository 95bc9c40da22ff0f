"""A profile as a source of rates: the constants that a data sheet and a fit give otherwise, read from its tables.

The model is that of `device.py`, `update.py` and `collectives.py`. Where a data sheet gives a rate for a product,
attention, or all element-wise traffic, a profile has times of the kernels themselves, at their sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2

from planner.counts.run import Resolved
from planner.formulas.itemsize import FP32
from planner.step_time.kernel_tables import GEMMS, LAUNCH, Tables

# Widening per doubling of the work beyond the table: a guess, as rates have levelled off at the largest sizes timed.
ERROR_PER_DOUBLING = 0.03
# Beyond this many times the work of its largest size a table says less than one of the same FLOPs that reaches further.
FAR = 64


@dataclass(slots=True)
class Measured:
    """The tables of a profile, and what has been read from them: seconds, and those that lie beyond the tables.

    on_gpu: its kernels run behind the host's launches, which a processor's tables hold. guessed: parts of a step of
    which a table was of no use, so that other kernels' times stand in for it.
    """

    tables: Tables
    on_gpu: bool
    seconds_read: float = 0.0
    beyond: float = 0.0
    guessed: set[str] = field(default_factory=set)

    def read(self, kernel: str, kind: str, sizes: Sequence[float], makes: float = 0, times: float = 1.0) -> float:
        """Seconds of one kernel in the element type `kind`, "fp32" or "bf16", that makes a tensor of `makes` bytes.

        times: how often a step runs it, which weighs its doubt. Raises ConfigError for a kernel without times.
        """
        found = self.tables[kernel, kind].read([max(1, round(size)) for size in sizes])
        seconds = found.seconds
        if makes:
            # large tensors are fresh pages from the system each time; the kernels were timed without that
            seconds += self.tables["fresh", "fp32"].read((max(1, round(makes)),)).seconds
        self.seconds_read += times * seconds
        self.beyond += times * found.seconds * ERROR_PER_DOUBLING * log2(found.beyond)
        return seconds

    def beyond_of(self, kernel: str, kind: str, sizes: Sequence[float]) -> float:
        """How many times the work of the table's largest size these sizes are, 1 at least."""
        return self.tables[kernel, kind].read([max(1, round(size)) for size in sizes]).beyond

    @property
    def doubt(self) -> float:
        """What reading beyond the tables adds to the relative error of what was read."""
        return self.beyond / self.seconds_read if self.seconds_read else 0.0

    def launching(self, kernels: float) -> float:
        """Host seconds of so many kernels forward and backward: a node of autograd for each, and on a GPU a launch."""
        each = self.tables["dispatch", "fp32"].read((1,)).seconds
        if self.on_gpu:
            each += self.tables[LAUNCH].read((1,)).seconds
        return kernels * each


def kind_of(run: Resolved) -> str:
    """The element type of a run's products in a profile."""
    return "fp32" if run.recipe.compute_bytes == FP32 else "bf16"


def product_seconds_of(
    run: Resolved, measured: Measured, rows: float, inputs: int, outputs: int, times: float
) -> tuple[float, float]:
    """One product forward, and its two backward: the gradients of its input and of its weight.

    All three are as many FLOPs: for a table that ends far below these sizes the one that reaches furthest is read.
    """
    kind, c = kind_of(run), run.recipe.compute_bytes
    made, sizes = (rows * outputs * c, rows * inputs * c, inputs * outputs * c), (rows, inputs, outputs)
    reach = {name: measured.beyond_of(name, kind, sizes) for name in GEMMS}
    best = min(GEMMS, key=lambda name: reach[name])
    names = [best if reach[name] > FAR else name for name in GEMMS]
    if max(reach.values()) > FAR:
        measured.guessed.add("matrix products")
    forward, to_input, to_weight = (
        measured.read(name, kind, sizes, size, times) for name, size in zip(names, made, strict=True)
    )
    return forward, to_input + to_weight


def attention_seconds_of(run: Resolved, measured: Measured, keys: float) -> tuple[float, float]:
    """Attention of one block, forward and backward; keys: what a query's sequence sees, in sequences of its own."""
    s, t = run.shape, run.config.training
    made = t.micro_batch * t.seq * s.query_width * run.recipe.compute_bytes
    sizes = (t.micro_batch * s.heads, t.seq, s.query_width / s.heads)
    both = (measured.read(f"attention_{way}", kind_of(run), sizes, made, s.layers) for way in ("forward", "backward"))
    forward, backward = both
    return forward * keys, backward * keys
