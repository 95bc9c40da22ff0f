"""The space of a search: every way to run the same steps on the cards and numbers of GPUs that are allowed.

A placement is a card, a number of GPUs and a `[parallel]` section; in each, every micro-batch that divides the step is
combined with every choice of loss and checkpointing. What the program refuses by name is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any

from pydantic import ValidationError

from planner.config.layout import layout_problem, micro_batches_problem
from planner.config.parallel import ParallelConfig
from planner.config.run import WITH_WHOLE_MATRICES, RunConfig
from planner.counts.nodes import gpus_per_domain
from planner.inputs.runtime import runtime_is_assumed
from planner.inputs.search import SearchSpace

MOST_TOKENS = 65_536  # of one micro-batch on a GPU: no product gets faster beyond
CHUNKS = (1, 2, 3, 4, 6)  # of an interleaved pipeline
SHORTEST_PIECE = 4096  # tokens of a sequence that context parallelism leaves to a GPU
MOST_EXPERT_PARALLEL = 64
WAYS_OF_DEGREES = 12  # about so many [parallel] sections have the same degrees


@dataclass(frozen=True, slots=True)
class Choice:
    """How a micro-batch is computed: its loss, its activation checkpointing, of how many blocks one, the runtime."""

    loss: str
    mode: str
    every: int
    runtime: str

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of [training]."""
        return {
            "loss": self.loss,
            "activation_checkpointing": self.mode,
            "activation_checkpointing_every": self.every,
            "runtime": self.runtime,
        }


class Choices(tuple[Choice, ...]):
    """Choices that are a key of tables: their hash is computed once."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


@dataclass(frozen=True, slots=True)
class Placement:
    """A card, its number and a layout: the config with one micro-batch of one sequence, and the micro-batches of it.

    number: where it stands in the space; of equally good ones the first is shown.
    """

    number: tuple[int, int]
    config: RunConfig
    sequences: int
    micro_batches: tuple[int, ...]

    def with_steps(self, micro: int, choice: Choice) -> RunConfig:
        """The config of one of its layouts."""
        batch = {"micro_batch": micro, "accumulation": self.sequences // micro}
        return self.config.model_copy(update={"training": self.config.training.model_copy(update=batch | choice.keys)})


def placements(config: RunConfig, space: SearchSpace, share: tuple[int, int] = (0, 1)) -> Iterator[Placement | str]:
    """Every placement whose step has the config's sequences; and what could be typed, for each that lacks only that.

    share: (i, n) gives the i-th of n parts of the space.
    """
    t = config.training
    whole = t.micro_batch * t.accumulation * config.data_parallel
    sizes = divisors(whole)
    one = t.model_copy(update={"micro_batch": 1, "accumulation": 1})
    first = 0
    for card, gpus in product(space.cards, space.gpus):
        keys: dict[str, Any] = {"gpu": card, "gpus": gpus, "tflops": None, "mfu": None, "tokens_per_second": None}
        if card != config.hardware.gpu:  # a price and a server belong to one card
            keys |= {"usd_per_gpu_hour": None, "gpus_per_node": None}
        hardware = config.hardware.model_copy(update=keys)
        with_card = config.model_copy(update={"hardware": hardware, "profile": None, "training": one})
        degrees = _degrees(with_card, gpus, space)
        for outer, of_degrees in enumerate(degrees, first):
            if outer % share[1] != share[0]:
                continue
            for inner, parallel in enumerate(_parallels(with_card, gpus, of_degrees, space)):
                placed = with_card.model_copy(update={"parallel": parallel})
                replicas = placed.data_parallel
                if whole % replicas or space.replicas not in (None, replicas):
                    continue
                wrong = layout_problem(placed, WITH_WHOLE_MATRICES)
                if wrong:
                    if wrong.left_out:
                        yield wrong.left_out
                    continue
                found = _micro_batches(placed, space, sizes, whole // replicas, t.micro_batch)
                if found:
                    yield Placement((outer, inner), placed, whole // replicas, found)
        first += len(degrees)


def rough_number(config: RunConfig, space: SearchSpace) -> int:
    """About how many layouts a space has, without making them."""
    sequences = config.training.micro_batch * config.training.accumulation * config.data_parallel
    most = max(MOST_TOKENS, config.training.seq)
    sizes = sum(m * config.training.seq <= most for m in divisors(sequences))
    degrees = 0
    for card, gpus in product(space.cards, space.gpus):
        hardware = config.hardware.model_copy(update={"gpu": card, "gpus": gpus})
        degrees += len(_degrees(config.model_copy(update={"hardware": hardware}), gpus, space))
    return degrees * sizes * len(choices(config, space)) * WAYS_OF_DEGREES


def _micro_batches(
    config: RunConfig, space: SearchSpace, sizes: Sequence[int], each: int, typed: int
) -> tuple[int, ...]:
    """The micro-batches into which a replica's sequences can be cut. sizes: in order."""
    p, seq = config.parallel, config.training.seq
    most = max(MOST_TOKENS, seq) * p.cp
    found = [m for m in takewhile(lambda m: m * seq <= most, sizes) if each % m == 0]
    if "micro_batch" in space.kept:
        found = [m for m in found if m == typed]
    return tuple(m for m in found if micro_batches_problem(p, each // m) is None)


def choices(config: RunConfig, space: SearchSpace) -> Choices:
    """Every loss, checkpointing and runtime: what is typed, and what the config has, is among them."""
    t = config.training
    losses = ("plain", "fused", "chunked") if not t.returns_logits else ("plain",)
    # selective saves scores that are stored: worth a look where they are, or in fused kernels
    stored = t.attention_kernel == "math" or t.runtime == "fused"
    modes = ("none", *(["selective"] if stored else []), "full")
    everies = periods(config.model.layers)
    if "loss_kind" in space.kept:
        losses = (t.loss,)
    if "activation_checkpointing" in space.kept:
        modes = (t.activation_checkpointing,)
    if "activation_checkpointing_every" in space.kept:
        # of every k-th block nothing is kept without recomputation; alone, 1 says nothing
        modes = tuple(mode for mode in modes if mode in ("full", "offloaded")) or modes
        everies = (t.activation_checkpointing_every,)
    return Choices(
        Choice(loss, mode, every, runtime)
        for runtime, loss, mode in product(_runtimes(config, space), losses, modes)
        for every in (everies if mode in ("full", "offloaded") else (1,))
    )


def _runtimes(config: RunConfig, space: SearchSpace) -> tuple[str, ...]:
    """The config's own runtime; compiled and eager where nobody chose one of them."""
    own = config.training.runtime
    free = "runtime" not in space.kept and (own == "compiled" or (own == "eager" and runtime_is_assumed(config)))
    return ("compiled", "eager") if free else (own,)


def periods(layers: int) -> tuple[int, ...]:
    """Of how many blocks one is recomputed: every k with a number of recomputed blocks that no smaller one gives."""
    return tuple(k for k in range(1, layers + 1) if k == 1 or -(-layers // k) != -(-layers // (k - 1)))


def every_layout(config: RunConfig, space: SearchSpace) -> Iterator[RunConfig]:
    """Every config of the space, one by one: what the arrays of a search are compared with."""
    for placement in placements(config, space):
        if isinstance(placement, Placement):
            for micro, choice in product(placement.micro_batches, choices(config, space)):
                yield placement.with_steps(micro, choice)


def divisors(number: int) -> tuple[int, ...]:
    """All divisors in order."""
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*low, *(number // d for d in low)}))


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4 … up to `most`."""
    return tuple(2**i for i in range(most.bit_length()) if 2**i <= most)


Degrees = tuple[int, int, int, int]  # tp, pp, cp, ep


def _tried(config: RunConfig, space: SearchSpace, name: str, values: Sequence[int]) -> Sequence[int]:
    """The values of a key that are tried; one that is typed stays."""
    return (getattr(config.parallel, name),) if name in space.kept else values


def _degrees(config: RunConfig, gpus: int, space: SearchSpace) -> list[Degrees]:
    """Every tp, pp, cp and ep that divide so many GPUs."""
    model, domain = config.model, _domain(config)
    widths = [n for n in powers_of_two(min(gpus, domain, model.heads)) if model.heads % n == 0]
    rings = powers_of_two(max(1, config.training.seq // SHORTEST_PIECE))
    experts = powers_of_two(min(MOST_EXPERT_PARALLEL, model.moe.experts)) if model.moe else (1,)
    found = product(
        _tried(config, space, "tp", widths),
        _tried(config, space, "pp", [n for n in divisors(gpus) if n <= model.layers]),
        _tried(config, space, "cp", rings),
        _tried(config, space, "ep", experts),
    )
    return [(tp, pp, cp, ep) for tp, pp, cp, ep in found if not (gpus % (tp * pp * cp) or (gpus // (tp * pp)) % ep)]


def _domain(config: RunConfig) -> int:
    return config.hardware.gpus_per_node or gpus_per_domain(config.hardware.gpu)


def _parallels(config: RunConfig, gpus: int, degrees: Degrees, space: SearchSpace) -> Iterator[ParallelConfig]:
    """Every [parallel] section of so many GPUs and these degrees; what is typed stays."""
    own, (tp, pp, cp, ep) = config.parallel, degrees
    kept = [name for name in ParallelConfig.model_fields if name in space.kept]
    typed = any(name in kept for name in SHARING)
    sharings = _sharings(config, gpus // (tp * pp), pp, _domain(config) // tp, typed)
    chunked = _tried(config, space, "interleave", CHUNKS if pp > 1 else (1,))
    for sp, chunks, shared in product((True, False) if tp > 1 else (False,), chunked, sharings):
        order = own.pp_schedule if "pp_schedule" in kept else "interleaved" if chunks > 1 else "1f1b"
        keys = {"tp": tp, "sp": sp, "pp": pp, "cp": cp, "ep": ep, "interleave": chunks, "pp_schedule": order}
        try:
            found = ParallelConfig(**keys | shared)
        except ValidationError:
            continue  # two keys that exclude each other
        if all(getattr(found, name) == getattr(own, name) for name in kept):
            yield found


SHARING = ("fsdp", "reshard", "hsdp", "zero", "ddp_bucket_view")  # keys that say how replicas share their state


def _sharings(config: RunConfig, sharing: int, pp: int, beside: int, typed: bool) -> list[dict[str, Any]]:
    """Ways to share the state among replicas; beside: GPUs of a group that stand in one server."""
    own = [{name: getattr(config.parallel, name) for name in SHARING}] if typed else []
    if sharing == 1:
        return [{}, *own]
    found: list[dict[str, Any]] = [{}]
    if config.training.runtime != "fused":
        found.append({"ddp_bucket_view": True})
    if config.optimizer.name not in WITH_WHOLE_MATRICES:
        found += [one | {"zero": 1} for one in found]
        if pp == 1:
            found += [{"zero": 2}, {"fsdp": True}, {"fsdp": True, "reshard": False}]
            if 1 < beside < sharing and sharing % beside == 0:
                found.append({"fsdp": True, "hsdp": beside})
    defaults = {name: field.default for name, field in ParallelConfig.model_fields.items()}
    return [*found, *(one for one in own if all({**defaults, **f} != {**defaults, **one} for f in found))]
