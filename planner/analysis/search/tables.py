"""What a search remembers, in bounded memory: values by key, runs as kinds of GPUs see them, kinds of GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Generic, TypeVar

from planner.config.model import ModelConfig
from planner.counts.ranks import Rank, ranks_of, run_of_rank
from planner.counts.run import Resolved

Remembered = TypeVar("Remembered")
MOST_KEPT = 4096  # values of a table: what a search needs again, it needs soon
MOST_ARRAY_BYTES = 2**25  # of its arrays
MANY_MICRO_BATCHES = 2**40  # more than any schedule keeps in flight


class Kept(dict[Any, Remembered], Generic[Remembered]):
    """A table that forgets all when it has too many values, or too many bytes in arrays."""

    _bytes: int = 0

    def __setitem__(self, key: Any, value: Remembered) -> None:
        self._bytes += getattr(value, "nbytes", 0)
        if len(self) >= MOST_KEPT or self._bytes > MOST_ARRAY_BYTES:
            self.clear()
            self._bytes = getattr(value, "nbytes", 0)
        super().__setitem__(key, value)


class LocalRuns:
    """Runs as kinds of GPUs see them, and the kinds of GPUs of a pipeline with the most chunks that each keeps."""

    def __init__(self) -> None:
        self._runs: Kept[Resolved] = Kept()
        self._ranks: Kept[tuple[Rank, ...]] = Kept()
        self._places: Kept[Rank] = Kept()

    def place(self, run: Resolved, rank: Rank) -> Rank:
        """What of a rank its parameters and work depend on: its blocks and tables; of alike blocks no matter which."""
        if rank not in self._places:
            first = 0 if has_alike_blocks(run.config.model) else rank.first_layer
            plain = replace(rank, name="", first_layer=first, chunk_layers=rank.layers, in_flight=1)
            self._places[rank] = plain
        return self._places[rank]

    def of(self, run: Resolved, rank: Rank) -> Resolved:
        """`run_of_rank`, computed once for all layouts whose GPUs hold the same."""
        p, where = run.config.parallel, self.place(run, rank)
        key = p.tp, p.cp, p.ep, where
        if key not in self._runs:
            self._runs[key] = run_of_rank(run, where)
        local = self._runs[key]
        keys = {"parallel": p, "hardware": run.config.hardware}
        return replace(local, config=local.config.model_copy(update=keys), gpu=run.gpu)

    def ranks(self, run: Resolved) -> tuple[Rank, ...]:
        """The kinds of GPUs, with the chunks that each keeps in flight if there are very many micro-batches."""
        p = run.config.parallel
        key = p.pp, p.interleave, p.pp_schedule
        if key not in self._ranks:
            many = run.computed_with(training={"accumulation": MANY_MICRO_BATCHES})
            self._ranks[key] = ranks_of(many.config)
        return self._ranks[key]


def has_alike_blocks(model: ModelConfig) -> bool:
    """Whether all blocks are of one kind."""
    moe = model.moe
    alternating = (model.full_attention_every, model.no_position_every, moe.every if moe else None)
    return not any(alternating) and not (moe and moe.first_dense_layers)
