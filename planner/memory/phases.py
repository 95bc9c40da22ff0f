"""All phases of a run on one device, on one tape: init, first step, steady step, evaluation, save, resume.

The peaks are those of the reference trainer's loop; the witness is `reference_trainer/measure/replay.py`, phase by
phase.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import recipe_of
from planner.counts.tensors import parameter_tensors
from planner.formulas.itemsize import FP32, INT64
from planner.memory.coverage import not_covered
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import simulation_context
from planner.memory.eager.graph import Storage
from planner.memory.ledger import COMPONENTS, Ledger, Peak
from planner.memory.micro_batch import simulate_evaluation, simulate_micro_batch
from planner.memory.optimizer_state import updated_itemsize
from planner.memory.optimizer_step import Update

FINITE_MASKS = 3  # bytes per element of the tensor being checked, beside its magnitude


@dataclass(frozen=True, slots=True)
class Simulation:
    """Peaks of the phases in order, each component's own maximum, and what autograd saved, by operator."""

    phases: tuple[Peak, ...]
    max_by_component: dict[str, int]
    saved_by_operator: dict[str, int]


def simulate_run(config: RunConfig, *, on_gpu: bool = False, events: list[tuple[int, int]] | None = None) -> Simulation:
    """Walk two optimizer steps and what surrounds them; where the runtime's form does not cover the options, as eager.

    on_gpu: what a CUDA device does: gradients that meet are added in place, and its kernels' own tensors; else what a
    CPU does while a dispatch mode watches, which is how the replay sees it.
    events: filled with every allocation and release; then every block and every tensor is walked one by one.
    """
    return _Run(config, on_gpu, events).simulate()


class _Run:
    def __init__(self, config: RunConfig, on_gpu: bool, events: list[tuple[int, int]] | None) -> None:
        if not_covered(config) is not None:
            config = config.model_copy(update={"training": config.training.model_copy(update={"runtime": "eager"})})
        recipe = recipe_of(config)
        self.config, self.whole = config, events is not None
        self.ledger = Ledger(events)
        self.e = Autograd(self.ledger, on_gpu)
        self.e.offloading = on_gpu and config.training.activation_checkpointing == "offloaded"
        self.ctx = simulation_context(config, cuda=on_gpu)
        self.recipe = recipe
        self.counts = parameters_of(config.model)
        self.gradients = self.counts.total * recipe.gradients_bytes_per_parameter
        self.e.gradient_widening = recipe.gradients_bytes_per_parameter // recipe.weights_bytes_per_parameter
        self.update_of = Update(config, self.ledger, self.keep, self.whole)
        self.held: list[Storage] = []

    def simulate(self) -> Simulation:
        """Every phase in the order of a run."""
        ledger, e = self.ledger, self.e
        ledger.phase("init")
        self.state()
        self.keep("activations", self.inputs())
        if self.whole:
            self.micro_batches()
        ledger.phase("first_optimizer_step")
        if not self.whole:
            ledger.allocate("gradients", self.gradients)  # a steady step needs more at every other moment
        self.clip()
        self.update(first=True)
        saved = self.micro_batches()
        ledger.phase("optimizer_step")
        self.clip()
        self.update()
        ledger.phase("evaluation")
        simulate_evaluation(self.ctx, e, self.whole)
        ledger.phase("save")
        self.check_finite()
        ledger.phase("resume")
        if not self.ctx.cuda:
            self.check_finite()  # of what was read; on a GPU it is on the host, and the device holds the state alone
        return Simulation(tuple(highest(ledger.phases)), dict(ledger.max_by_component), saved)

    def keep(self, component: str, size: int, times: int = 1) -> None:
        """Bytes that stay until the end: one by one where events are wanted."""
        if self.whole:
            self.held += [Storage(self.ledger, size, component) for _ in range(times)]
        else:
            self.ledger.allocate(component, size * times)

    def state(self) -> None:
        """Weights, their fp32 copies where the recipe has them, and casts of them that it keeps."""
        recipe = self.recipe
        for itemsize, component in (
            (recipe.weights_bytes_per_parameter, "weights"),
            (recipe.master_weights_bytes_per_parameter, "master_weights"),
        ):
            for tensor in parameter_tensors(self.config.model):
                self.keep(component, tensor.count * itemsize, tensor.times)
        self.keep("weights", recipe.held_casts_bytes_per_linear_weight * self.counts.linear)

    def inputs(self) -> int:
        """Token ids, targets, documents where they are cut apart, and the tables: rotary angles, masks of scores."""
        t, model = self.config.training, self.config.model
        rotary = FP32 * t.seq * model.turned if model.position == "rotary" else 0
        scores, itemsize = t.seq * t.seq, self.recipe.compute_bytes
        masks = 0
        if model.position == "alibi":
            scores *= model.heads
        if model.position == "alibi" or self.ctx.masks_documents:
            masks = scores * itemsize
        if model.sliding_window is not None and model.sliding_window < t.seq:
            masks += scores * itemsize
        given = 3 if t.document_masking else 2
        return given * INT64 * t.micro_batch * t.seq + rotary + masks

    def micro_batches(self) -> dict[str, int]:
        """Micro-batches of one step up to one that finds gradients there, where there is one; what it saved."""
        e, accumulates, t = self.e, self.config.training.accumulation > 1, self.config.training
        if t.returns_logits and not self.whole:
            logits = t.micro_batch * t.seq * self.ctx.shape.vocab * self.ctx.compute_bytes
            e.previous_logits = Storage(self.ledger, logits, "logits")  # of the micro-batch before
        if accumulates and not self.whole:
            # at every moment the later one holds what the first holds, and all gradients beside it
            self.ledger.allocate("gradients", self.gradients)
        for exist in (False, True) if accumulates and self.whole else (accumulates,):
            e.gradients_exist = exist
            e.saved_by_operator = {}
            simulate_micro_batch(self.ctx, e, self.whole)
        assert self.ledger.live["gradients"] == self.gradients
        return e.saved_by_operator

    def clip(self) -> None:
        """Clipping: a norm per tensor, stacked, and the norm of them all; a limit of values is applied in place."""
        if self.config.optimizer.clip_norm is not None or self.config.optimizer.clip_value is not None:
            itemsize = self.recipe.gradients_bytes_per_parameter
            norms = Storage(self.ledger, itemsize * (2 * self.counts.tensors + 1), "temporary")
            del norms

    def update(self, first: bool = False) -> None:
        """The update, the first of which makes the state; then the gradients are dropped."""
        self.update_of.simulate(first)
        self.e.gradients.clear()
        self.ledger.release("gradients", self.ledger.live["gradients"])

    def check_finite(self) -> None:
        """A checkpoint is refused where a weight is not finite: a mask of one tensor at a time."""
        each = updated_itemsize(self.config) + FINITE_MASKS
        mask = Storage(self.ledger, each * self.counts.largest, "temporary")
        del mask


def highest(peaks: list[Peak]) -> list[Peak]:
    """One peak per phase name, the highest, in order of first appearance."""
    best: dict[str, Peak] = {}
    for peak in peaks:
        assert sum(peak.at_peak[c] for c in COMPONENTS) == peak.peak_bytes
        if peak.phase not in best or peak.peak_bytes > best[peak.phase].peak_bytes:
            best[peak.phase] = peak
    return list(best.values())
