"""The largest micro-batch, sequence and model of a run whose peak fits, everything else as it is.

Each grows in steps that the layout and the architecture divide; the peak grows with it, so that halving finds the last
that fits. The verdict is the rule for reserved bytes: to simulate the allocator of hundreds of blocks takes minutes.
The plan itself has the verdict of its simulated allocator, which the largest never contradicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm

from planner.analysis.changes import FittingChange
from planner.analysis.fitting import close_peak, predicted_peak, what_fits
from planner.config.model import ModelConfig
from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import Resolved, resolve
from planner.errors import InputError
from planner.memory.breakdown import memory_breakdown

MOST_SEQUENCES, MOST_TOKENS, MOST_LAYERS, MOST_WIDTH = 65_536, 16 * 2**20, 2048, 131_072
ROUNDED_TO = 64  # tokens of a sequence, channels of an MLP: what kernels are built for
Grown = Callable[[int], RunConfig | None]


@dataclass(frozen=True, slots=True)
class LargestThatFits:
    """One quantity of a run: what it is, and the largest that fits; None where even the least does not.

    parameters: of the model at it. by: "memory", or what else bounds it. flags: as they are typed.
    """

    quantity: str
    now: int
    largest: int | None
    by: str
    parameters: int
    flags: str


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a run fits as it is, the cheapest change with which it does, and the largest that fits of each quantity.

    change: None where none was found. Bytes: what the run takes of the usable ones.
    """

    fits_as_it_is: bool
    change: FittingChange | None
    needed_bytes: int
    usable_bytes: int
    largest: tuple[LargestThatFits, ...]


def fit_of(run: Resolved) -> Fit:
    """What fits on the run's device. Raises InputError where its memory is not known."""
    memory = memory_breakdown(run, replay=False)
    if memory.usable_bytes is None:
        raise InputError(
            f"what fits on {run.config.hardware.gpu} is not known",
            why="its usable memory is not known",
            remedy="give a --gpu whose memory is known, or measure this machine with gptplan calibrate",
        )
    capacity = memory.usable_bytes - memory.outside_bytes

    def fits(config: RunConfig) -> bool:
        return predicted_peak(resolve(config)) <= capacity

    needed = close_peak(capacity)(run)
    as_it_is = needed <= capacity
    change = FittingChange(run, (), needed, 1.0) if as_it_is else what_fits(run)
    found = tuple(
        one for one in (_largest(each, fits, as_it_is) for each in _quantities(run.config)) if one is not None
    )
    return Fit(as_it_is, change, needed + memory.outside_bytes, memory.usable_bytes, found)


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A quantity that grows in steps: its value now, the step, the most that is tried and why, the run with another."""

    name: str
    now: int
    step: int
    most: int
    bound: str
    grown: Callable[[int], RunConfig]
    flags: Callable[[int], str]


def _largest(q: _Quantity, fits: Callable[[RunConfig], bool], as_it_is: bool) -> LargestThatFits | None:
    """The largest by `fits`; at least what the plan has if that fits (`as_it_is`), else less than it."""
    if q.most < q.step:
        return None
    low, high = 0, 1  # in steps: `low` fits, or is none; `high` may
    last = q.most // q.step
    while high < last and fits(q.grown(high * q.step)):
        low, high = high, high * 2
    high = min(high, last)
    if high == last and low < last and fits(q.grown(last * q.step)):
        low = last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(q.grown(middle * q.step)) else (low, middle)
    below = (q.now - 1) // q.step * q.step
    found = (max(low * q.step, q.now) if as_it_is else min(low * q.step, below)) or None
    by = q.bound if low == last else "memory"
    size = parameters_of(q.grown(found or q.now).model).total
    return LargestThatFits(q.name, q.now, found, by, size, q.flags(found) if found else "")


def _quantities(config: RunConfig) -> list[_Quantity]:
    t, p, model = config.training, config.parallel, config.model

    def training(**keys: int) -> RunConfig:
        return config.model_copy(update={"training": t.model_copy(update=keys)})

    def shaped(**keys: int) -> RunConfig:
        return config.model_copy(update={"model": model.model_copy(update=keys)})

    learned = model.position == "learned"
    found = [
        _Quantity(
            "micro-batch",
            t.micro_batch,
            1,
            MOST_SEQUENCES,
            "the most that is tried",
            lambda n: training(micro_batch=n),
            lambda n: f"--micro-batch {n}",
        ),
        _Quantity(
            "sequence",
            t.seq,
            lcm(ROUNDED_TO, p.tp * p.cp * 2),
            model.context if learned else MOST_TOKENS,
            "the learned positions" if learned else "the most that is tried",
            lambda n: training(seq=n),
            lambda n: f"--seq {n}",
        ),
        _Quantity(
            "layers",
            model.layers,
            p.pp * p.interleave,
            MOST_LAYERS,
            "the most that is tried",
            lambda n: shaped(layers=n),
            lambda n: f"--layers {n}",
        ),
    ]
    if model.mla is None:
        found.append(_width(config))
    return found


def _width(config: RunConfig) -> _Quantity:
    """The hidden width by more heads of the same size; the MLP grows with it, and key heads as query heads do."""
    model, tp = config.model, config.parallel.tp
    shared = model.heads // model.kv_heads if model.heads % model.kv_heads == 0 else model.heads
    heads = lcm(shared if model.kv_heads > 1 else 1, tp * (shared if model.kv_heads > 1 else 1))
    each = model.hidden // model.heads if model.hidden % model.heads == 0 else model.head_dim

    def grown(width: int) -> RunConfig:
        return config.model_copy(update={"model": with_heads(model, width // each, tp)})

    def flags(width: int) -> str:
        wide = grown(width).model
        typed = {"hidden": wide.hidden, "heads": wide.heads, "kv-heads": wide.kv_heads, "ffn": wide.ffn}
        return " ".join(f"--{name} {value}" for name, value in typed.items())

    most = MOST_WIDTH // (heads * each) * heads * each
    return _Quantity("hidden", model.hidden, heads * each, most, "the most that is tried", grown, flags)


def with_heads(model: ModelConfig, heads: int, tp: int = 1) -> ModelConfig:
    """The model with another number of query heads: its widths in proportion, rounded up to what `tp` GPUs share."""

    def scaled(width: int) -> int:
        unit = ROUNDED_TO * tp
        return -(-width * heads // (model.heads * unit)) * unit if width else 0

    moe = model.moe
    widths = {"expert_ffn": scaled(moe.expert_ffn), "shared_ffn": scaled(moe.shared_ffn)} if moe else {}
    each = model.hidden // model.heads if model.hidden % model.heads == 0 else model.head_dim
    return model.model_copy(
        update={
            "heads": heads,
            "kv_heads": 1 if model.kv_heads == 1 else max(1, model.kv_heads * heads // model.heads),
            "hidden": heads * each,
            "ffn": scaled(model.ffn),
            "moe": moe.model_copy(update=widths) if moe else None,
        }
    )
