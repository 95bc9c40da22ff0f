"""Simulates all phases of a run on one device: init, first step, steady step, evaluation, save, resume.

The peaks are those of the reference trainer's loop, checked phase by phase against
`reference_trainer/measure/replay.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.counts.ranks import held_tensors
from planner.counts.run import Resolved
from planner.counts.shards import gradients_cut, optimizer_cut, weights_cut
from planner.counts.untrained import untrained_parts
from planner.formulas.itemsize import FP32
from planner.memory.coverage import not_covered
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext, simulation_context
from planner.memory.eager.graph import Storage
from planner.memory.eager.moe import balance_bytes, bias_step_bytes
from planner.memory.fully_sharded import FullySharded
from planner.memory.kernel_scratch import multiprocessors_of
from planner.memory.ledger import COMPONENTS, Ledger, LocalMaximum, Peak
from planner.memory.micro_batch import (
    PROGRAMS,
    retained_by_forward,
    sharded_blocks,
    simulate_evaluation,
    simulate_micro_batch,
)
from planner.memory.optimizer_state import updated_itemsize
from planner.memory.optimizer_step import Update
from planner.memory.pipeline import buffers_of, input_bytes, sent_bytes, stream_bytes
from planner.memory.replicas import ddp_bucket_bytes, gradients_stay

IN_FLIGHT = "micro-batches in flight"
FINITE_MASKS = 3  # bytes per element of the tensor being checked, in addition to its magnitude


@dataclass(frozen=True, slots=True)
class Simulation:
    """Peaks of the phases in order, the maximum of each component, and bytes saved for backward by operator."""

    phases: tuple[Peak, ...]
    max_by_component: dict[str, int]
    saved_by_operator: dict[str, int]


def simulate_run(run: Resolved, *, on_gpu: bool = False, events: list[tuple[int, int]] | None = None) -> Simulation:
    """Simulate two optimizer steps and the phases around them; as eager if the runtime does not cover the options.

    on_gpu: as on a CUDA device, which adds gradients in place and whose kernels have scratch tensors; else as on a CPU
    under a dispatch mode, which is what the reference replay records.
    events: if given, this list receives every allocation and release; then every block and tensor is simulated.
    """
    return _Run(run, on_gpu, events).simulate()


def local_maxima(run: Resolved) -> tuple[list[LocalMaximum], int]:
    """Every local maximum of the bytes alive on a GPU, and what a chunk of blocks retains.

    retains: from its forward to its backward pass. Chunks of a pipeline beside the running one are not simulated.
    """
    assert run.rank is None or run.rank.in_flight == 1
    whole = _Run(run, True, None)
    whole.ledger.maxima = []
    whole.simulate()
    found = whole.ledger.maxima
    whole.ledger.maxima = None
    alone = run.config.parallel.pp == 1  # no other chunk is ever in flight
    return found, 0 if alone else sum(retained_by_forward(whole.ctx, whole.e).values())


def bytes_of_micro_batches(run: Resolved) -> int:
    """Bytes that stay for the micro-batches of a step: buffers of a stage, ids and targets."""
    ctx = simulation_context(_simulated(run), cuda=True)
    return stream_bytes(ctx) * buffers_of(ctx) + input_bytes(ctx)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A GPU between two steps: weights, optimizer state, inputs and buffers are on the ledger of `e`."""

    ctx: SimulationContext
    e: Autograd


def prepared_for_passes(run: Resolved, on_gpu: bool) -> Prepared:
    """The GPU of a stage after its first update."""
    whole = _Run(run, on_gpu, None)
    whole.start()
    whole.update(first=True)
    return Prepared(whole.ctx, whole.e)


def retained_bytes(run: Resolved) -> int:
    """Bytes that a chunk of blocks keeps from forward to backward, without what only the ends of a model have.

    No peak of a step is below them and what stays, once for each chunk in flight.
    """
    whole = _Run(run, True, None)
    return sum(retained_by_forward(whole.ctx, whole.e).values())


def _simulated(run: Resolved) -> Resolved:
    """The run, as eager if its runtime does not cover the options."""
    return run if not_covered(run) is None else run.computed_with(training={"runtime": "eager"})


class _Run:
    def __init__(self, run: Resolved, on_gpu: bool, events: list[tuple[int, int]] | None) -> None:
        run = _simulated(run)
        config, recipe = run.config, run.recipe
        self.run, self.config, self.every_block = run, config, events is not None
        self.ledger = Ledger(events)
        self.e = Autograd(self.ledger, on_gpu)
        if on_gpu and config.training.runtime not in PROGRAMS:
            self.e.card = multiprocessors_of(run.gpu)
        self.e.offloading = on_gpu and config.training.activation_checkpointing == "offloaded"
        self.ctx = simulation_context(run, cuda=on_gpu)
        self.recipe = recipe
        self.counts = run.parameters
        self.tensors = held_tensors(run)
        self.sharded = None
        if config.parallel.shards_weights:
            units, _ = sharded_blocks(self.ctx, self.every_block)
            self.sharded = FullySharded(run, self.e, [index for unit in units for index in unit])
        self.gradients = gradients_cut(run).count(self.tensors) * recipe.gradients_bytes_per_parameter
        if config.parallel.zero == 2:
            cut = gradients_cut(run)
            self.e.gradient_shards, self.e.expert_shards = cut.shards, cut.of_experts
            self.e.made_itemsize = recipe.weights_bytes_per_parameter
        if self.sharded is None:
            self.e.gradient_widening = recipe.gradients_bytes_per_parameter // recipe.weights_bytes_per_parameter
        self.stay = gradients_stay(run)  # from the first step to the end, as a second micro-batch finds them
        self.kept: list[Storage] = []

    def simulate(self) -> Simulation:
        """Every phase in the order of a run."""
        ledger, e = self.ledger, self.e
        self.start()
        self.clip()
        self.update(first=True)
        saved = self.micro_batches()
        ledger.phase("optimizer_step")
        self.clip()
        self.update()
        ledger.phase("evaluation")
        simulate_evaluation(self.ctx, e, self.every_block, self.sharded)
        ledger.phase("save")
        self.check_finite()
        ledger.phase("resume")
        if not self.ctx.cuda:
            self.check_finite()  # the checkpoint read; with a GPU it is in host memory
        ledger.events = None  # what the end of this object frees is no part of the run
        return Simulation(tuple(highest(ledger.phases)), dict(ledger.max_by_component), saved)

    def start(self) -> None:
        """What lives as long as the run, and the gradients that the first update finds."""
        self.update_of = Update(self.run, self.ledger, self.keep, self.every_block)
        self.ledger.phase("init")
        self.state()
        self.keep("activations", self.inputs())
        self.keep("communication", stream_bytes(self.ctx), buffers_of(self.ctx))
        if self.every_block:
            self.micro_batches()
        self.ledger.phase("first_optimizer_step")
        if not self.every_block and not self.stay:
            self.ledger.allocate("gradients", self.gradients)  # a steady step needs more at every other moment

    def keep(self, component: str, size: int, times: int = 1) -> None:
        """Allocate bytes that stay to the end; one by one if events are recorded."""
        if self.every_block:
            self.kept += [Storage(self.ledger, size, component) for _ in range(times)]
        else:
            self.ledger.allocate(component, size * times)

    def state(self) -> None:
        """Allocate weights, and if the recipe has them master weights and permanent casts."""
        recipe = self.recipe
        for itemsize, component, cut in (
            (recipe.weights_bytes_per_parameter, "weights", weights_cut(self.run)),
            (recipe.master_weights_bytes_per_parameter, "master_weights", optimizer_cut(self.run)),
        ):
            for tensor in cut.parts(self.tensors):
                self.keep(component, tensor.count * itemsize, tensor.times)
        self.keep("weights", recipe.held_casts_bytes_per_linear_weight * self.counts.linear)
        for bucket in ddp_bucket_bytes(self.run):
            self.keep("communication", bucket)
        if self.stay:
            self.keep("gradients", self.gradients)

    def inputs(self) -> int:
        """Bytes of ids of tokens, targets and documents (document masking), rotary angles, masks that stay, loads."""
        t, model = self.config.training, self.config.model
        tables = (model.position == "rotary") + (model.local_rope_base is not None)
        rotary = FP32 * t.seq * model.rope_dim * tables
        scores, itemsize = t.seq * t.seq, self.recipe.compute_bytes
        masks = 0
        if model.position == "alibi":
            scores *= model.heads
        if model.position == "alibi" or self.ctx.masks_documents:
            masks = scores * itemsize
        if model.sliding_window is not None and model.sliding_window < t.seq:
            masks += scores * itemsize
        return input_bytes(self.ctx) + rotary + masks + balance_bytes(model)

    def micro_batches(self) -> dict[str, int]:
        """Simulate the micro-batches of one step, up to one that adds to existing gradients; returns what it saved."""
        e, t = self.e, self.config.training
        # in a pipeline the gradients of the other chunks are there too
        accumulates = t.accumulation > 1 or self.config.parallel.pp > 1 or self.stay
        if t.returns_logits and not self.every_block and self.ctx.rank.has_head:
            logits = t.micro_batch * t.seq * self.ctx.shape.vocab * self.ctx.compute_bytes
            e.previous_logits = Storage(self.ledger, logits, "logits")  # of the previous micro-batch
        if accumulates and not self.every_block and not self.stay:
            # the later one always has what the first has, and all gradients in addition
            self.ledger.allocate("gradients", self.gradients)
        for exist in (False, True) if accumulates and self.every_block and not self.stay else (accumulates,):
            e.gradients_exist = exist and self.sharded is None
            if self.sharded is not None:
                self.sharded.exist = exist
            e.saved_by_operator = {}
            waiting = self.in_flight()
            simulate_micro_batch(self.ctx, e, self.every_block, self.sharded)
            if self.sharded is not None and self.sharded.in_groups and exist:  # those of the blocks added at once
                self.ledger.release("gradients", self.ledger.live["gradients"] - self.gradients)
            for component, size in waiting.items():
                self.ledger.release(component, size)
                if component != "communication":
                    e.saved_by_operator[IN_FLIGHT] = e.saved_by_operator.get(IN_FLIGHT, 0) + size
        if untrained_parts(self.config.model):  # their parameters are in no simulated layer
            self.ledger.allocate("gradients", self.gradients - self.ledger.live["gradients"])
        assert self.ledger.live["gradients"] == self.gradients
        return e.saved_by_operator

    def in_flight(self) -> dict[str, int]:
        """Allocate what the chunks of a pipeline keep that have run forward and wait for their backward pass."""
        waiting, sent = self.ctx.rank.in_flight - 1, sent_bytes(self.ctx)
        if not waiting and not sent:
            return {}
        self.ledger.phase("forward_end")
        found = {"communication": sent} if sent else {}
        if waiting:
            found |= {c: size * waiting for c, size in retained_by_forward(self.ctx, self.e).items()}
        for component, size in found.items():
            self.ledger.allocate(component, size)
        return found

    def clip(self) -> None:
        """Simulate the gradient norm, which is logged and judged with or without clipping: one of each tensor, stacked,
        and the norm of them all. Clipping itself works in place."""
        itemsize = self.recipe.gradients_bytes_per_parameter
        norms = Storage(self.ledger, itemsize * (2 * self.counts.tensors + 1), "temporary")
        del norms

    def update(self, first: bool = False) -> None:
        """Simulate the update (the first one makes the state) and the step of the experts' bias; free the gradients."""
        self.update_of.simulate(first)
        bias = Storage(self.ledger, bias_step_bytes(self.config.model), "temporary")
        del bias
        self.e.gradients.clear()
        if self.sharded is not None:
            self.sharded.reduced.clear()
        if not self.stay:
            self.ledger.release("gradients", self.ledger.live["gradients"])

    def check_finite(self) -> None:
        """Simulate the check that all weights are finite: a mask of one tensor at a time."""
        each = updated_itemsize(self.run) + FINITE_MASKS
        cut = optimizer_cut(self.run) if self.run.recipe.master_weights_bytes_per_parameter else weights_cut(self.run)
        largest = max(t.count for t in cut.parts(self.tensors))
        mask = Storage(self.ledger, each * largest, "temporary")
        del mask


def highest(peaks: list[Peak]) -> list[Peak]:
    """The highest peak of each phase name, in order of first appearance."""
    best: dict[str, Peak] = {}
    for peak in peaks:
        assert sum(peak.at_peak[c] for c in COMPONENTS) == peak.peak_bytes
        if peak.phase not in best or peak.peak_bytes > best[peak.phase].peak_bytes:
            best[peak.phase] = peak
    return list(best.values())
