"""Simulates an optimizer update, allocation by allocation: what each implementation allocates, and for how long.

It follows `reference_trainer/optim/updater.py` and torch.optim (adamw.py, adam.py, sgd.py, _adafactor.py of
PyTorch 2.13): names that PyTorch keeps alive are kept alive here. Scalars that are read back (norms, learning rates,
step counts) are left out; step counters that stay are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from planner.counts.run import Resolved
from planner.counts.stacks import stack_sizes
from planner.formulas.itemsize import FP32
from planner.memory.eager.graph import Storage
from planner.memory.ledger import Ledger
from planner.memory.optimizer_state import (
    MUON_ITEMSIZE,
    UpdatedTensor,
    has_narrow_gradients,
    is_custom_adamw,
    moment_itemsize,
    shared_state,
    state_of_tensor,
    update_groups,
    updated_itemsize,
    widened_bytes,
)

KeepBytes = Callable[[str, int, int], None]
Group = Sequence[UpdatedTensor]


class Update:
    """The run's update. `keep` receives what stays (component, bytes, times); scratch goes through the ledger."""

    def __init__(self, run: Resolved, ledger: Ledger, keep: KeepBytes, every_block: bool) -> None:
        self.config, self.ledger, self.keep = run.config, ledger, keep
        self.itemsize, self.moment = updated_itemsize(run), moment_itemsize(run)
        self.groups, self.every_block = update_groups(run, every_block), every_block
        self.one_by_one, self.custom_adamw = has_narrow_gradients(run.recipe), is_custom_adamw(run)
        self.widened = widened_bytes(run)

    def simulate(self, first: bool) -> None:
        """One update of all tensors; the first one makes the state."""
        if first:
            for size in shared_state(self.config):
                self.keep("optimizer", size, 1)
        whole = self.temporary(self.widened) if self.widened else None
        for kind, decays, group in self.groups:
            each = self.one_by_one and not self.widened
            gradient = self.temporary(FP32 * group[0].count) if each else None
            self._update(kind, decays, group, first)
            del gradient
        del whole

    def temporary(self, size: int) -> Storage:
        """Scratch bytes, alive as long as a name refers to the result."""
        return Storage(self.ledger, size, "temporary")

    def _update(self, kind: str, decays: bool, group: Group, first: bool) -> None:
        way = self.config.optimizer.implementation
        if kind == "sgd":
            self._sgd(way, decays, group, first)
            return
        if first:
            self._make_state(group)
        if kind == "muon":
            self._muon(group)
        elif kind == "lion":
            self._in_stacks(group, *self._lion_bytes())
        elif kind == "adafactor":
            self._adafactor_foreach(group) if way == "foreach" else self._adafactor(group)
        elif self.custom_adamw:
            self._in_stacks(group, *self._own_adamw_bytes())
        elif kind == "adamw":
            self._adamw(way, group)

    def _make_state(self, group: Group) -> None:
        """Allocate a group's state, before its first tensor is updated."""
        made = [(size, t.times) for t in group for size in state_of_tensor(self.config.optimizer, self.moment, t)]
        if not self.every_block:  # nothing comes between
            made = [(sum(size * times for size, times in made), 1)]
        for size, times in made:
            self.keep("optimizer", size, times)

    def _in_stacks(self, group: Group, each: int, narrow: int) -> None:
        """The trainer's own: scratch bytes `each` per element of a stack, and `narrow` of the tensor being rounded."""
        for shape, number in self._numbers(group).items():
            for size in sorted(set(stack_sizes(prod(shape), number))):
                copies = self.temporary((each * size + narrow) * prod(shape))
                del copies

    def _numbers(self, group: Group) -> dict[tuple[int, ...], int]:
        """How many tensors of each shape are updated together; stacks of one size need the same bytes."""
        numbers: dict[tuple[int, ...], int] = {}
        for tensor in group:
            numbers[tensor.shape] = numbers.get(tensor.shape, 0) + (1 if self.one_by_one else tensor.times)
        return numbers

    def _lion_bytes(self) -> tuple[int, int]:
        """New values; with mixed types also the widened narrow operand, and narrow new weights."""
        if self.moment == self.itemsize:
            return self.itemsize, 0
        return 2 * FP32, self.itemsize if self.itemsize < self.moment else 0

    def _own_adamw_bytes(self) -> tuple[int, int]:
        """A new fp32 moment, an fp32 copy of a narrow gradient; a narrow copy of the moment."""
        return FP32 + (FP32 if self.itemsize < FP32 else 0), self.moment if self.moment < FP32 else 0

    def _adamw(self, way: str, group: Group) -> None:
        """fused: no scratch. foreach: roots of all second moments. for-loop: root, quotient and the last quotient."""
        if way == "foreach":
            roots = self._like(group)
            del roots
        if way == "for-loop":
            denominator = None
            for tensor in group:
                root = self.temporary(self.itemsize * tensor.count)
                quotient = self.temporary(self.itemsize * tensor.count)
                del root
                denominator = quotient
                del quotient
            del denominator

    def _like(self, group: Group) -> list[Storage]:
        """A copy of each tensor of a group; of one tensor if tensors are updated one by one."""
        return [self.temporary(self.itemsize * t.count * (1 if self.one_by_one else t.times)) for t in group]

    def _sgd(self, way: str, decays: bool, group: Group, first: bool) -> None:
        """Adds weight decay to a copy of the gradient (not if fused); the first momentum, if any, is a copy."""
        if way == "for-loop":
            for tensor in group:
                gradient = self.temporary(self.itemsize * tensor.count) if decays else None
                if first:
                    self._make_state((tensor,))
                del gradient
            return
        gradients = self._like(group) if decays and way == "foreach" else []
        if first:
            self._make_state(group)
        del gradients

    def _adafactor(self, group: Group) -> None:
        """Rows, columns and the estimate of one tensor; each name keeps the last tensor's until it is set again."""
        rows = columns = squared = estimate = None
        for tensor in group:
            if len(tensor.shape) > 1:
                rows = self.temporary(self.itemsize * tensor.count // tensor.shape[-1])
                columns = self.temporary(self.itemsize * tensor.count // tensor.shape[-2])
            else:
                squared = self.temporary(self.itemsize * tensor.count)
            estimate = self.temporary(self.itemsize * tensor.count)
        del rows, columns, squared, estimate

    def _adafactor_foreach(self, group: Group) -> None:
        """The estimates of all tensors of a group at once; matrices and vectors separately."""
        matrices = [t for t in group if len(t.shape) > 1]
        vectors = [t for t in group if len(t.shape) == 1]
        if matrices:
            estimates = self._like(matrices)
            means = self.temporary(
                self.itemsize * sum(t.times * t.count // (t.shape[-1] * t.shape[-2]) for t in matrices)
            )
            del estimates, means
        if vectors:
            squared = self._like(vectors)
            del squared
            estimates = self._like(vectors)
            del estimates

    def _muon(self, group: Group) -> None:
        """Stacks of equal matrices, one after the other; stacks of one size need the same, so each size comes once."""
        for (rows, columns), number in self._numbers(group).items():
            for size in sorted(set(stack_sizes(rows * columns, number))):
                self._muon_stack(size, rows * columns, min(rows, columns))

    def _muon_stack(self, number: int, count: int, side: int) -> None:
        """New momenta and the stack in bf16; a second stack and two of products; then the new matrices."""
        momenta = self.temporary(self.itemsize * number * count)
        stack = self.temporary(MUON_ITEMSIZE * number * count)
        del momenta
        others = [self.temporary(MUON_ITEMSIZE * number * size) for size in (count, side * side, side * side)]
        directions = others[0]
        del stack, others
        made = self.temporary(self.itemsize * number * count)
        del made, directions
