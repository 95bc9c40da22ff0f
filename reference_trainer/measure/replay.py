"""A tracker of tensor storages, and the replay of one step on fake tensors: which bytes are alive when.

The replay needs no weights, no GPU and no memory: it runs the trainer's own step, `optimizer_step`, under
`FakeTensorMode`, whose tensors have shapes and storages but no data, so a model of any size is replayed in seconds. It
shows the allocations of a CPU run; docs/why/memory.md says where CUDA differs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from planner.config.run import RunConfig
from planner.counts.run import tokens_per_step
from reference_trainer.checkpoint.checkpoint import all_finite
from reference_trainer.data.samples import MicroBatch
from reference_trainer.distributed.replicas import reduce_in_backward
from reference_trainer.measure.measure import build_model
from reference_trainer.model.balancing import ExpertBalance
from reference_trainer.model.gpt import GPT
from reference_trainer.optim.updater import make_optimizer
from reference_trainer.step.optimizer_step import optimizer_step

StorageEvent = tuple[str, int, int]  # operator, bytes (negative: freed), bytes alive after it
Allocation = tuple[int, int]  # number of the storage, bytes (0: freed): what `planner.memory.allocator` replays


@dataclass(slots=True)
class PhasePeak:
    """The most bytes alive at one moment of a phase, and the operator that requested the last of them."""

    phase: str
    peak_bytes: int = 0
    operator: str = ""


@dataclass(slots=True)
class Track:
    """The record of a `StorageTracker`: bytes alive now, and the peak of every phase in order."""

    live_bytes: int = 0
    phases: list[PhasePeak] = field(default_factory=list)

    @property
    def peak(self) -> PhasePeak:
        """The phase with the highest peak (the first of equals)."""
        return max(self.phases, key=lambda p: p.peak_bytes)

    def by_phase(self) -> dict[str, int]:
        """Highest peak of each phase name, bytes."""
        found: dict[str, int] = {}
        for p in self.phases:
            found[p.phase] = max(found.get(p.phase, 0), p.peak_bytes)
        return found


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every distinct storage from its creation to its release.

    Views add nothing; a storage counts once, with its requested size, until it is freed.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.track = Track()
        self._device = device
        self._seen = WeakIdKeyDictionary()
        self._storages = 0
        self.events: list[StorageEvent] | None = None
        self.allocations: list[Allocation] | None = None

    def phase(self, name: str) -> None:
        """Start the phase `name`; later peaks belong to it."""
        self.track.phases.append(PhasePeak(name, self.track.live_bytes, "start"))
        if self.events is not None:
            self.events.append((f"phase {name}", 0, self.track.live_bytes))

    def add(self, *trees: Any, operator: str = "given") -> None:
        """Count the storages of the tensors in `trees` (parameters, inputs) as alive from now."""
        for tree in trees:
            for leaf in tree_iter(tree):
                if isinstance(leaf, torch.Tensor) and leaf.device.type == self._device:
                    self._count(leaf, operator)

    def _count(self, tensor: torch.Tensor, operator: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        self._storages += 1
        weakref.finalize(storage, self._free, self._storages, size)
        if self.allocations is not None and size:  # an empty tensor takes nothing, and 0 means freed
            self.allocations.append((self._storages, size))
        self.track.live_bytes += size
        if self.events is not None:
            self.events.append((operator, size, self.track.live_bytes))
        if self.track.phases and self.track.live_bytes > self.track.phases[-1].peak_bytes:
            self.track.phases[-1].peak_bytes = self.track.live_bytes
            self.track.phases[-1].operator = operator

    def _free(self, storage: int, size: int) -> None:
        if self.allocations is not None and size:
            self.allocations.append((storage, 0))
        self.track.live_bytes -= size
        if self.events is not None:
            self.events.append(("free", -size, self.track.live_bytes))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1.0  # an optimizer reads its step count or a norm; which bytes live does not depend on it
        out = func(*args, **(kwargs or {}))
        self.add(out, operator=func.__name__)
        return out


def watch_phases(model: GPT, tracker: PhaseTracker) -> list[RemovableHandle]:
    """Mark the phases of every forward and backward pass of `model`; remove the handles to stop.

    backward_start ends when the gradient of the head's input is complete, backward_block when that of the
    first block's input is.
    """

    def forward_begins(*_: object) -> None:
        tracker.phase("forward_end")

    def watch(name: str) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
        def before(_: torch.nn.Module, args: tuple[Any, ...]) -> None:
            if args[0].requires_grad and torch.is_grad_enabled():
                args[0].register_hook(lambda grad: tracker.phase(name))

        return before

    first = model.blocks[0]
    return [
        model.register_forward_pre_hook(forward_begins),
        model.last.register_forward_pre_hook(watch("backward_block")),
        first.register_forward_pre_hook(_outermost(watch("backward_end"))),
    ]


def _outermost(hook: Callable[[torch.nn.Module, tuple[Any, ...]], None]) -> Callable[..., None]:
    """Limits a hook to a block's first call in a pass: a recomputed block is called again during backward."""

    def before(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if torch._C._current_graph_task_id() == -1:  # -1: no backward pass is running
            hook(module, args)

    return before


class PhaseTracker(Protocol):
    """What `tracked_steps` needs of a tracker."""

    def phase(self, name: str) -> None:
        """Start the phase `name`; later peaks belong to it."""

    def add(self, *trees: Any) -> None:
        """Count the tensors in `trees` as alive from now on."""

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: Any, error: Any, at: Any) -> Any: ...


def tracked_steps(
    model: GPT,
    config: RunConfig,
    batches: Sequence[tuple[Tensor, ...]],
    tracker: PhaseTracker,
    replica: torch.nn.Module | None = None,
) -> None:
    """Two optimizer steps, the first and a steady one, each over `batches` (as `zero_inputs` gives them), tracked.

    Then the loss of a batch without gradients, and the check before a save. replica: what is called in training, of a
    model that several ranks train; its last micro-batch reduces.
    """
    optimizer = make_optimizer(model, config)
    tracker.phase("init")
    tracker.add(list(model.parameters()), optimizer.weights, list(model.buffers()), model.tables, batches[0])
    parts = _TrackedParts([micro_batch_of(inputs) for inputs in batches], tracker, model.balance, replica)
    handles = watch_phases(model, tracker)
    for parts.update_phase in ("first_optimizer_step", "optimizer_step"):
        with tracker:
            optimizer_step(replica or model, optimizer, config.optimizer.clip_norm, tokens_per_step(config), parts)
    for handle in handles:
        handle.remove()
    tracker.phase("evaluation")
    model.eval()
    with tracker, torch.no_grad():
        model(*batches[0])
    model.train()
    for phase in ("save", "resume"):  # a tensor is checked before it is written, and after it was read
        tracker.phase(phase)
        with tracker:
            for weight in optimizer.weights.values():
                all_finite(weight)


class _TrackedParts:
    """The step's parts for a tracker: the same micro-batches in every step, every step good, phases marked."""

    def __init__(
        self,
        batches: Sequence[MicroBatch],
        tracker: PhaseTracker,
        balance: ExpertBalance | None,
        replica: torch.nn.Module | None,
    ) -> None:
        self.batches, self.tracker, self.update_phase, self.replica = batches, tracker, "", replica
        self.micro_batches = len(batches)
        self.good = torch.ones((), dtype=torch.bool, device=batches[0].ids.device)
        self.balance = balance

    def inputs(self, micro: int) -> MicroBatch:
        """The given micro-batch."""
        if self.replica is not None:
            reduce_in_backward(self.replica, micro == self.micro_batches - 1)
        return self.batches[micro]

    def before_backward(self) -> None:
        """Forward ends here."""
        self.tracker.phase("backward_start")

    def after_backward(self, micro: int, loss: Tensor) -> None:
        """Nothing is added up."""

    def before_clip(self) -> None:
        """Backward ends here."""
        self.tracker.phase(self.update_phase)

    def judged(self, norm: Tensor) -> Tensor:
        """Always good."""
        return self.good

    def after_update(self) -> None:
        """The bias of experts moves; nothing is measured."""
        if self.balance is not None:
            self.balance.move_bias(self.good)


def micro_batch_of(inputs: tuple[Tensor, ...]) -> MicroBatch:
    """Ids, targets and, if given, documents, as the step takes them."""
    return MicroBatch(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, inputs[1].numel())


def zero_inputs(config: RunConfig, shape: tuple[int, int]) -> tuple[Tensor, ...]:
    """Zeros in the shape of a micro-batch: ids, targets, and documents under document masking."""
    many = 3 if config.training.document_masking else 2
    return tuple(torch.zeros(shape, dtype=torch.long) for _ in range(many))


def replay(
    config: RunConfig, events: list[StorageEvent] | None = None, allocations: list[Allocation] | None = None
) -> Track:
    """Peaks of the two steps on fake tensors: no weights, no memory, any size in seconds.

    events, allocations: lists to fill with every allocation and release; `allocations` also identifies the released
    storage, for the allocator. With accumulation two micro-batches are replayed: the first, and one that starts with
    gradients in memory.
    """
    tracker = StorageTracker()
    tracker.events, tracker.allocations = events, allocations
    with FakeTensorMode():
        return track_steps(config, tracker)


def track_steps(config: RunConfig, tracker: StorageTracker) -> Track:
    """Peaks of the two steps on the tensors that PyTorch makes by default: real ones, or fake ones under their mode."""
    training = config.training
    model = build_model(config)
    model.make_tables(training.seq, torch.device("cpu"))
    inputs = zero_inputs(config, (training.micro_batch, training.seq))
    tracked_steps(model, config, [inputs] * min(2, training.accumulation), tracker)
    return tracker.track
