"""The memory breakdown of one device: state, activations by operator, peak of every phase, and whether the run fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.config.parallel import ParallelConfig
from planner.config.run import RunConfig
from planner.counts.ranks import Rank, held_tensors, ranks_of, run_of_rank
from planner.counts.run import Resolved
from planner.counts.shards import gradients_cut, optimizer_cut, weights_cut
from planner.counts.untrained import untrained_parts
from planner.formulas import memory
from planner.formulas.recording import whole
from planner.interval import Interval
from planner.memory.coverage import has_exact_passes, is_recomputed_in_graph, not_checked, not_covered
from planner.memory.device import Device, FitsUnknown, device_memory
from planner.memory.ledger import Peak
from planner.memory.optimizer_state import optimizer_memory, updated_itemsize
from planner.memory.phases import Simulation, simulate_run
from planner.memory.pipeline_passes import peak_of_passes
from planner.memory.verdicts import (
    least_bytes,
    of_layout,
    of_passes,
    of_recomputed_blocks,
    of_state,
    of_upper_bound,
    outside_update,
)

NO_PROFILE = "the memory of this machine is in no profile: gptplan calibrate measures it"


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Peak of one kind of GPU of a layout: its blocks, chunks of activations in flight, bytes by component at it."""

    name: str
    layers: int
    in_flight: int
    peak_requested_bytes: int
    peak_allocated_bytes: int | None
    peak_phase: str
    at_peak: dict[str, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes per device. A component's line is its own maximum; `at_peak` sums to `peak_requested_bytes`.

    Where GPUs hold different parts, those of the one that needs most; `ranks` has all kinds.
    """

    rule_14_bytes: int
    weights_bytes: int
    master_weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    temporary_bytes: int
    communication_bytes: int
    saved_bytes: int
    saved_by_operator: dict[str, int]
    peak_requested_bytes: int
    peak_allocated_bytes: Interval[int]
    peak_reserved_bytes: Interval[int]
    workspace_bytes: int | None
    context_bytes: int | None
    nccl_bytes: Interval[int]
    device_used_bytes: int | None
    usable_bytes: int | None
    fits: bool | None
    fits_by: str
    fits_unknown: FitsUnknown | None
    peak_phase: str
    at_peak: dict[str, int]
    phases: tuple[Peak, ...]
    checkpoint_bytes: int
    ranks: tuple[RankMemory, ...] = ()

    @property
    def outside_bytes(self) -> int:
        """Bytes of the device that are not PyTorch's: CUDA context and NCCL's buffers; 0 if unknown."""
        return (self.context_bytes or 0) + (self.nccl_bytes.value or 0)

    @property
    def most_outside_bytes(self) -> int:
        """The same with the most that NCCL may take."""
        return (self.context_bytes or 0) + (self.nccl_bytes.high or 0)

    @property
    def least_bytes(self) -> int:
        """Bytes of the device that the state alone takes: weights, gradients, optimizer, and what is not PyTorch's."""
        return least_bytes(self.phases, self.workspace_bytes, self.context_bytes, self.nccl_bytes)


def memory_breakdown(run: Resolved, replay: bool = True) -> Memory:
    """The memory breakdown of a run on one of its devices.

    replay: False gives allocated and reserved bytes by rule, without simulating the allocator (in a search).

    Activation bytes are those of the reference trainer's model under the config's runtime. If the options are not
    covered for that runtime (`coverage.py`), they are an upper bound with an interval around it (`_simulated`). Where
    only the bound exceeds the card, it is not known whether the run fits. If the architecture has parts that the
    reference model does not (`untrained.py`), they are those without these parts: what the allocator needs is unknown,
    and so is whether it fits, unless weights, gradients and moments alone do not.

    Of a layout whose GPUs hold different parts each kind is simulated, and the one that needs most is the answer; its
    allocated bytes follow the rule, with an interval for a layout that no run was compared with (`coverage.py`). Where
    all GPUs hold alike parts and a run was compared, the allocator is simulated as for one GPU.
    """
    if run.rank is not None or run.config.parallel.is_data_parallel:
        return _of_gpu(run, replay, run)
    kinds = ranks_of(run.config)
    replay = replay and len(kinds) == 1 and not_checked(run) is None
    found = [_of_gpu(run_of_rank(run, rank), replay, run) for rank in kinds]
    most = max(found, key=lambda memory: memory.peak_requested_bytes)
    return replace(most, ranks=tuple(map(_rank_memory, kinds, found)))


def _rank_memory(rank: Rank, memory: Memory) -> RankMemory:
    return RankMemory(
        rank.name,
        rank.layers,
        rank.in_flight,
        memory.peak_requested_bytes,
        memory.peak_allocated_bytes.value,
        memory.peak_phase,
        memory.at_peak,
    )


def _of_gpu(run: Resolved, replay: bool, whole_run: Resolved) -> Memory:
    """The memory of the GPUs that `run` is the run of; `whole_run`: with all that a checkpoint holds."""
    gpu, recipe = run.gpu, run.recipe
    # a GPU adds gradients in place; on a CPU the reference replay uses a dispatch mode, under which PyTorch does not
    shown, simulated = _simulated(run, on_gpu=gpu is not None)
    largest, saved = simulated.max_by_component, simulated.saved_by_operator
    peak = _peak(simulated)
    optimizer = optimizer_memory(run)
    usable = gpu.usable_bytes if gpu else _host_memory(run.config)
    missing, uncounted = bool(untrained_parts(run.config.model)), not_covered(run)
    replay = replay and not missing
    tensors = held_tensors(run)
    before = outside_update(simulated.phases)
    device = (
        device_memory(shown, gpu, peak.peak_bytes, replay, before_update=before)
        if gpu
        else _host(peak.peak_bytes, usable)
    )
    limits = (gpu.usable_bytes, gpu.most_usable_bytes) if gpu else (usable, usable)
    if uncounted is not None:
        device = of_upper_bound(device, simulated.phases, _second_gradients(run), limits, uncounted)
    unchecked = not_checked(run)
    if gpu and unchecked is not None:
        if has_exact_passes(run) and uncounted is None:
            device = of_passes(device, simulated.phases, peak_of_passes(run, whole_run, True), limits, unchecked)
        else:
            device = of_layout(device, simulated.phases, limits, unchecked)
    elif gpu and uncounted is None and is_recomputed_in_graph(run):
        device = of_recomputed_blocks(device, simulated.phases, limits, run.shape.layers)
    if missing:
        device = of_state(device, simulated.phases, limits[1])
    weights = whole(memory.weights_bytes(weights_cut(run).count(tensors), recipe.weights_bytes_per_parameter))
    updated = optimizer_cut(run).count(tensors)
    master = whole(memory.master_weights_bytes(updated, recipe.master_weights_bytes_per_parameter))
    reduced = gradients_cut(run).count(tensors)
    return Memory(
        rule_14_bytes=whole(memory.rule_14_bytes(run.nominal_parameters)),
        weights_bytes=largest["weights"] if recipe.held_casts_bytes_per_linear_weight or missing else weights,
        master_weights_bytes=master,
        gradients_bytes=whole(memory.gradients_bytes(reduced, recipe.gradients_bytes_per_parameter)),
        optimizer_bytes=optimizer.state_bytes,
        activations_bytes=largest["activations"],
        logits_bytes=largest["logits"],
        temporary_bytes=largest["temporary"],
        communication_bytes=largest["communication"],
        saved_bytes=sum(saved.values()),
        saved_by_operator=saved,
        peak_requested_bytes=peak.peak_bytes,
        peak_allocated_bytes=device.allocated,
        peak_reserved_bytes=device.reserved,
        workspace_bytes=device.workspace,
        context_bytes=device.context,
        nccl_bytes=device.nccl,
        device_used_bytes=device.used,
        usable_bytes=usable,
        fits=device.fits,
        fits_by=device.decided_by,
        fits_unknown=device.fits_unknown,
        peak_phase=peak.phase,
        at_peak=peak.at_peak,
        phases=simulated.phases,
        checkpoint_bytes=checkpoint_bytes_of(whole_run),
    )


def _second_gradients(run: Resolved) -> int:
    """Bytes of all new gradients, if they are alive together with the accumulated ones; 0 without accumulation."""
    if run.config.training.accumulation == 1:
        return 0
    count = weights_cut(run).count(held_tensors(run))
    return whole(memory.gradients_bytes(count, run.recipe.weights_bytes_per_parameter))


def _simulated(run: Resolved, on_gpu: bool) -> tuple[Resolved, Simulation]:
    """The run that is simulated for `run`, and its simulation: the run itself if its options are covered.

    Else the lesser of two upper bounds: the eager runtime's bytes, and those of the same runtime without activation
    checkpointing, which saves all that any checkpointing does and more.
    """
    found = run, simulate_run(run, on_gpu=on_gpu)
    if not_covered(run) is None:
        return found
    plain = run.computed_with(training={"activation_checkpointing": "none", "activation_checkpointing_every": 1})
    if not_covered(plain) is not None:
        return found
    return min(found, (plain, simulate_run(plain, on_gpu=on_gpu)), key=lambda pair: _peak(pair[1]).peak_bytes)


def _peak(simulated: Simulation) -> Peak:
    return max(simulated.phases, key=lambda p: p.peak_bytes)


def checkpoint_bytes_of(run: Resolved) -> int:
    """Bytes of a checkpoint's files: the updated weights and the optimizer state of all GPUs."""
    on_one = replace(run, config=run.config.model_copy(update={"parallel": ParallelConfig()}))
    optimizer = optimizer_memory(on_one)
    weights = whole(memory.weights_bytes(run.parameters.total, updated_itemsize(run)))
    entries = run.parameters.tensors + sum(times for _, times in optimizer.storages)
    return whole(memory.checkpoint_bytes(weights, optimizer.state_bytes, entries))


def _host(requested: int, usable: int | None) -> Device:
    """A CPU has no caching allocator; its memory is the machine's."""
    if usable is None:
        return Device(fits_unknown=FitsUnknown("no_usable_bytes", NO_PROFILE))
    return Device(fits=requested <= usable)


def _host_memory(config: RunConfig) -> int | None:
    """Memory of this machine from its profile; None without a profile."""
    found = (config.profile or {}).get("memory_bytes")
    return found if isinstance(found, int) else None
