"""A step of a stage of a pipeline, pass by pass, as PyTorch's schedules order them: exact, and slower than the rule.

The rule of a plan, which a search shares, takes one walk through the largest chunk with as many chunks waiting as the
schedule ever has, and with all gradients. Here the passes are simulated at which most is kept, one for each kind of
chunk and direction, with the first gradients of the chunk and with later ones.

Source: torch/distributed/pipelining of PyTorch 2.13 (schedules.py). Checked against its schedules
(tests/reference_trainer/predictions/test_pipeline.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planner.counts.ranks import Chunk, chunks_of_stage, held_named_tensors, numbered_stages
from planner.counts.run import Resolved
from planner.counts.shards import gradients_cut
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.micro_batch import kept_by_forward, simulate_micro_batch
from planner.memory.phases import Prepared, prepared_for_passes
from planner.memory.pipeline import stream_bytes

BACKWARD = ("backward_start", "backward_block", "backward_end")
ROUNDS = 4  # micro-batches per stage after which a schedule repeats itself
Pass = tuple[bool, int]  # whether forward, number of the chunk on its stage


@dataclass(frozen=True, slots=True)
class Moment:
    """A pass and what is kept meanwhile: passes of each chunk that wait for backward, chunks that have gradients, and
    whether the gradient that was sent last is there."""

    forward: bool
    chunk: int
    waiting: tuple[int, ...]
    with_gradients: tuple[bool, ...]
    sent: bool


def peak_of_passes(run: Resolved, whole: Resolved, on_gpu: bool) -> int:
    """Bytes at the highest moment of all forward and backward passes of a step, on the stage that `run` is the run of.

    whole: the run of all stages, whose schedule is 1f1b or interleaved.
    """
    stage = next(number for number, rank in numbered_stages(whole.config) if rank == run.rank)
    chunks = chunks_of_stage(whole.config, stage)
    stages = _Stage(run, prepared_for_passes(run, on_gpu), chunks)
    return max(stages.peak_at(moment) for moment in stages.heaviest(_moments(run, stage, chunks)))


# --- schedules -------------------------------------------------------------------------------------------------


def one_forward_one_backward(chunks: int, stage: int, stages: int, micro_batches: int) -> Iterator[Pass]:
    """Schedule1F1B: as many forward passes as stages are behind, then backward and forward in turn."""
    assert chunks == 1
    ahead = min(micro_batches, stages - stage)
    yield from ((True, 0) for _ in range(ahead))
    for _ in range(micro_batches - ahead):
        yield False, 0
        yield True, 0
    yield from ((False, 0) for _ in range(ahead))


def interleaved(chunks: int, stage: int, stages: int, micro_batches: int) -> Iterator[Pass]:
    """ScheduleInterleaved1F1B: chunks take turns, as many micro-batches at a time as there are stages."""
    total = micro_batches * chunks
    ahead = min(total, (chunks - 1) * stages + 2 * (stages - 1 - stage))
    for i in range(total + ahead):
        if i < total:
            yield True, i // stages % chunks
        if i >= ahead:
            yield False, chunks - 1 - (i - ahead) // stages % chunks


ORDERS = {"1f1b": one_forward_one_backward, "interleaved": interleaved}


def _moments(run: Resolved, stage: int, chunks: Sequence[Chunk]) -> Iterator[Moment]:
    """Every pass of a step on a stage, with what is kept meanwhile."""
    p = run.config.parallel
    waiting, exist = [0] * len(chunks), [False] * len(chunks)
    micro_batches = min(run.config.training.accumulation, ROUNDS * p.pp)
    for forward, chunk in ORDERS[p.pp_schedule](len(chunks), stage, p.pp, micro_batches):
        waiting[chunk] -= not forward
        sent = p.pp_schedule == "1f1b" and not chunks[chunk].embeds and exist[chunk]
        yield Moment(forward, chunk, tuple(waiting), tuple(exist), sent)
        waiting[chunk] += forward
        exist[chunk] = exist[chunk] or not forward


# --- simulation ------------------------------------------------------------------------------------------------


class _Stage:
    """A stage with weights, optimizer state, inputs and buffers, between two of its steps."""

    def __init__(self, run: Resolved, prepared: Prepared, chunks: Sequence[Chunk]) -> None:
        self.ctx: SimulationContext = prepared.ctx
        self.e: Autograd = prepared.e
        self.chunks = tuple(chunks)
        self.gradients = _gradients_of(run, chunks)
        self.kept = {chunk: kept_by_forward(self._of(chunk), self.e) for chunk in set(chunks)}

    def _of(self, chunk: Chunk) -> SimulationContext:
        """The context of one chunk."""
        ctx = self.ctx
        return replace(
            ctx,
            model=ctx.model.model_copy(update={"layers": chunk.layers}),
            shape=replace(ctx.shape, layers=chunk.layers),
            rank=replace(ctx.rank, chunk_layers=chunk.layers, embeds=chunk.embeds, has_head=chunk.has_head),
        )

    def _waiting(self, moment: Moment) -> int:
        return sum(n * sum(self.kept[chunk].values()) for chunk, n in zip(self.chunks, moment.waiting, strict=True))

    def _existing(self, moment: Moment) -> int:
        pairs = zip(self.gradients, moment.with_gradients, strict=True)
        return sum(size for size, exists in pairs if exists)

    def heaviest(self, moments: Iterator[Moment]) -> list[Moment]:
        """The moments at which most is kept: one for each kind of chunk, direction, and first or later gradients."""
        found: dict[tuple[Chunk, bool, bool], tuple[int, Moment]] = {}
        for moment in moments:
            kept = self._waiting(moment) + self._existing(moment)
            kind = self.chunks[moment.chunk], moment.forward, moment.with_gradients[moment.chunk]
            if kind not in found or kept > found[kind][0]:
                found[kind] = kept, moment
        return [moment for _, moment in found.values()]

    def peak_at(self, moment: Moment) -> int:
        """The most bytes alive in the pass of a moment."""
        ledger, e = self.e.ledger, self.e
        kept = {
            "activations": self._waiting(moment),
            "communication": stream_bytes(self.ctx) if moment.sent else 0,
            "gradients": self._existing(moment),
        }
        for component, size in kept.items():
            ledger.allocate(component, size)
        e.gradients_exist = moment.with_gradients[moment.chunk]
        ledger.phase("between")
        first = len(ledger.phases)
        simulate_micro_batch(self._of(self.chunks[moment.chunk]), e)
        ledger.phase("between")
        names = ("forward_end",) if moment.forward else BACKWARD
        peaks = [peak.peak_bytes for peak in ledger.phases[first:] if peak.phase in names]
        e.gradients.clear()
        kept["gradients"] = ledger.live["gradients"]
        for component, size in kept.items():
            ledger.release(component, size)
        return max(peaks)


def _gradients_of(run: Resolved, chunks: Sequence[Chunk]) -> tuple[int, ...]:
    """Bytes of all gradients of each chunk of a stage."""
    cut = gradients_cut(run)
    of_block = [number for number, chunk in enumerate(chunks) for _ in range(chunk.layers)]
    first = next((n for n, chunk in enumerate(chunks) if chunk.embeds), len(chunks) - 1)
    found = [0] * len(chunks)
    for tensor in held_named_tensors(run):
        kind, _, rest = tensor.name.partition(".")
        at_end = len(chunks) - 1 if kind in ("norm", "head") else first
        where = of_block[int(rest.partition(".")[0])] if kind == "blocks" else at_end
        found[where] += cut.part(tensor).count * run.recipe.gradients_bytes_per_parameter
    return tuple(found)
