"""Simulates a step as stages: each saves bytes in forward and releases them in backward.

In eager mode Python's names decide which tensors live (`eager/autograd.py`). A compiled program and a library of fused
kernels decide it in advance: each stage saves certain bytes, and backward runs the stages in reverse. `compiled.py` and
`megatron.py` list these bytes. The order of allocations and releases is the same for both and stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of a block, or what comes before or after the blocks. All sizes are bytes of one micro-batch.

    saved: storages kept for backward. weight_casts: narrow copies of weights, one storage each, kept as well.
    transient: an output that nothing keeps. input_gradient: the gradient for the stage before, alive until that stage
    has used it. compute_gradients: weight gradients in the compute type, before they are widened. weight_gradients:
    weight gradients in their final type.
    """

    label: str
    saved: tuple[int, ...] = ()
    weight_casts: tuple[int, ...] = ()
    transient: int = 0
    input_gradient: int = 0
    compute_gradients: tuple[int, ...] = ()
    weight_gradients: tuple[int, ...] = ()

    @property
    def saved_bytes(self) -> int:
        """Bytes kept from forward to backward."""
        return sum(self.saved) + sum(self.weight_casts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A network as stages: the embedding, each block, the last norm, the head.

    recomputed: for each block, whether it saves only its input. residual_bytes: the residual stream, and its gradient.
    accumulates_at_end: True if all new gradients are added to `.grad` at the end of backward; False if each is added
    when it is made. tied_gradients: the tied table's gradient as the head makes it and as the look-up makes it, both
    alive until they are summed; None if not tied. returned_logits: the logits that the program returns; 0 if none.
    """

    embedding: Stage
    blocks: tuple[tuple[Stage, ...], ...]
    recomputed: tuple[bool, ...]
    norm: Stage
    head: Stage
    residual_bytes: int
    accumulates_at_end: bool
    tied_gradients: tuple[int, int] | None
    returned_logits: int = 0

    def saved_by_operator(self) -> dict[str, int]:
        """Bytes kept from forward to backward, by operator, in order."""
        found: dict[str, int] = {}
        for stages, recomputed in zip(self.blocks, self.recomputed, strict=True):
            if recomputed:
                found["blocks"] = found.get("blocks", 0) + self.residual_bytes
                continue
            for stage in stages:
                found[stage.label] = found.get(stage.label, 0) + stage.saved_bytes
        ends = {stage.label: stage.saved_bytes for stage in (self.embedding, self.norm, self.head)}
        return {label: size for label, size in (ends | found).items() if size}


class ProgramSimulation:
    """One micro-batch of a program on the ledger of `e`."""

    def __init__(self, program: Program, e: Autograd) -> None:
        self.program, self.e = program, e
        self.made: list[Storage] = []  # gradients so far

    def forward(self) -> Callable[[], None]:
        """Simulate the forward pass; returns the function that simulates the backward pass."""
        program = self.program
        first = self._forward_stage(program.embedding)
        residual = self.e.allocate(program.residual_bytes)
        blocks: list[list[list[Storage]] | None] = []
        inputs: list[Storage | None] = []
        for stages, recomputed in zip(program.blocks, program.recomputed, strict=True):
            inputs.append(self.e.allocate(program.residual_bytes, "activations") if recomputed else None)
            if recomputed:
                blocks.append(None)
                for stage in stages:
                    # alive until the next one is made
                    last = self.e.allocate(sum(stage.weight_casts) + sum(stage.saved[:1]))
                del last
            else:
                blocks.append([self._forward_stage(stage) for stage in stages])
        norm = self._forward_stage(program.norm)
        del residual
        head = self._forward_stage(program.head, "logits")
        if program.returned_logits:
            # the previous micro-batch's are released only now
            self.e.previous_logits = head[len(program.head.weight_casts)]
        self.e.saved_by_operator = program.saved_by_operator()

        def backward() -> None:
            tied_head = self._backward_head(head)
            self._backward_blocks(norm, blocks, inputs, first, tied_head)

        return backward

    def evaluation(self) -> None:
        """Simulate a forward pass that saves nothing."""
        program = self.program
        residual = self.e.allocate(program.residual_bytes)
        for stage in program.blocks[0]:
            self._forward_stage(stage, "temporary")
        self._forward_stage(program.norm, "temporary")
        del residual
        self._forward_stage(program.head, "logits")

    def _forward_stage(self, stage: Stage, component: str = "activations") -> list[Storage]:
        saved = [self.e.allocate(size, component) for size in (*stage.weight_casts, *stage.saved)]
        transient = self.e.allocate(stage.transient)
        del transient
        return saved

    def _add_gradients(self, sizes: Sequence[int]) -> None:
        """Gradients of parameters: kept until the end of backward, or added to `.grad` by the matmul itself."""
        e = self.e
        if self.program.accumulates_at_end:
            self.made += [e.allocate(size, "gradients") for size in sizes]
        elif not e.gradients_exist:
            e.gradients += [e.allocate(e.kept_bytes(size), "gradients") for size in sizes]

    def _backward_head(self, saved: list[Storage]) -> Storage | None:
        """The logits' gradient overwrites the logits. Returns a tied table's gradient, which waits for the look-up's.

        saved: the weight's cast, logits, the head's input, statistics of the softmax.
        """
        program = self.program
        # returned logits have a gradient of their own (zeros), and the loss cannot overwrite them
        logits = program.returned_logits
        outside = [self.e.allocate(logits, "logits") for _ in range(2)] if logits else []
        saved.pop()
        del outside[:1]
        weight = self.e.allocate(sum(program.head.compute_gradients))
        saved.pop()
        outside.clear()
        self.input_gradient = self.e.allocate(program.head.input_gradient)
        saved.clear()
        if program.tied_gradients is not None:
            return weight
        self._add_gradients(program.head.weight_gradients)
        del weight
        return None

    def _backward_blocks(
        self,
        norm: list[Storage],
        blocks: list[list[list[Storage]] | None],
        inputs: list[Storage | None],
        first: list[Storage],
        tied_head: Storage | None,
    ) -> None:
        program, e = self.program, self.e
        residual = e.allocate(program.residual_bytes)
        self._backward_stage(program.norm, norm)
        e.ledger.phase("backward_block")
        for stages in reversed(program.blocks):
            saved = blocks.pop()
            if saved is None:
                saved = [self._forward_stage(stage) for stage in stages]
            for stage in reversed(stages):
                self._backward_stage(stage, saved.pop())
            inputs.pop()
        e.ledger.phase("backward_end")
        del self.input_gradient
        self._add_gradients(program.embedding.weight_gradients)
        if program.tied_gradients is not None:
            table, sizes = program.tied_gradients[1], program.embedding.weight_gradients
            summed = e.allocate(table, "gradients")
            look_up = self.made.pop(sizes.index(table) - len(sizes))
            del tied_head, look_up
            self.made.append(summed)
            del summed
        first.clear()
        del residual
        self._store_gradients()

    def _backward_stage(self, stage: Stage, saved: list[Storage]) -> None:
        """The gradient from the stage behind is released once this stage has made its own; what it saved goes too."""
        input_gradient = self.e.allocate(stage.input_gradient)
        compute_gradients = [self.e.allocate(size) for size in stage.compute_gradients]
        self.input_gradient = input_gradient
        del input_gradient
        saved.clear()
        self._add_gradients(stage.weight_gradients)
        del compute_gradients

    def _store_gradients(self) -> None:
        """All new gradients become `.grad`, or are added to it."""
        e = self.e
        for i, made in enumerate(self.made):
            if not e.gradients_exist:
                kept = e.kept_bytes(made.size)
                e.gradients.append(made if kept == made.size else e.allocate(kept, "gradients"))
            self.made[i] = e.allocate(0)
            del made
        self.made.clear()
