"""A step whose backward pass was planned ahead: stages that keep bytes in forward and give them back in backward.

Eager code lets Python's names decide what lives (`autograd.py`). A compiled program, or a library of fused kernels,
decides it once: each stage keeps certain bytes, and backward runs the stages in reverse. `compiled.py` and `fused.py`
say which bytes; the order in which they come and go is here, and the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of a block, or of the ends. All sizes in bytes of one micro-batch.

    kept: storages for backward. casts: narrow copies of weights, one storage each. passing: what forward hands on and
    nobody keeps. given: what backward makes for the stage before, alive until that one has used it. narrow: gradients
    of weights as the product gives them, before they are widened; gradients: as they are handed out.
    """

    label: str
    kept: tuple[int, ...] = ()
    casts: tuple[int, ...] = ()
    passing: int = 0
    given: int = 0
    narrow: tuple[int, ...] = ()
    gradients: tuple[int, ...] = ()

    @property
    def saved(self) -> int:
        """Bytes from forward to backward."""
        return sum(self.kept) + sum(self.casts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A network as stages: before the blocks, each block, after them.

    stream: bytes of the residual stream, and of its gradient. recomputed: of each block, whether it keeps its input
    (`stream`) only. together: gradients come back beside those that exist already, all at the end of backward; else
    each is added where it is made. summed: the tied table's gradient as the head makes it and as the look-up makes
    it, both of which stand until their sum has been made; None where it is not tied.
    """

    before: Stage
    blocks: tuple[tuple[Stage, ...], ...]
    recomputed: tuple[bool, ...]
    norm: Stage
    head: Stage
    stream: int
    together: bool
    tied: tuple[int, int] | None
    logits: int = 0  # bytes of logits that the program hands out; 0: it does not

    def saved_by_operator(self) -> dict[str, int]:
        """Bytes from forward to backward, by operator, in order."""
        found: dict[str, int] = {}
        for stages, recomputed in zip(self.blocks, self.recomputed, strict=True):
            if recomputed:
                found["blocks"] = found.get("blocks", 0) + self.stream
                continue
            for stage in stages:
                found[stage.label] = found.get(stage.label, 0) + stage.saved
        ends = {stage.label: stage.saved for stage in (self.before, self.norm, self.head)}
        return {label: size for label, size in (ends | found).items() if size}


class ProgramSimulation:
    """One micro-batch of a program on the ledger of `e`."""

    def __init__(self, program: Program, e: Autograd) -> None:
        self.program, self.e = program, e
        self.made: list[Storage] = []  # gradients so far

    def forward(self) -> Callable[[], None]:
        """The forward pass; what it returns is the backward pass."""
        program = self.program
        first = self._run(program.before)
        stream = self.e.allocate(program.stream)
        blocks: list[list[list[Storage]] | None] = []
        inputs: list[Storage | None] = []
        for stages, recomputed in zip(program.blocks, program.recomputed, strict=True):
            inputs.append(self.e.allocate(program.stream, "activations") if recomputed else None)
            if recomputed:
                blocks.append(None)
                for stage in stages:
                    last = self.e.allocate(sum(stage.casts) + sum(stage.kept[:1]))  # there until the next one is
                del last
            else:
                blocks.append([self._run(stage) for stage in stages])
        norm = self._run(program.norm)
        del stream
        head = self._run(program.head, "logits")
        if program.logits:
            self.e.previous_logits = head[len(program.head.casts)]  # those of the micro-batch before go only now
        self.e.saved_by_operator = program.saved_by_operator()

        def backward() -> None:
            tied = self._head(head)
            self._norm(norm, blocks, inputs, first, tied)

        return backward

    def evaluation(self) -> None:
        """A forward pass that keeps nothing."""
        program = self.program
        stream = self.e.allocate(program.stream)
        for stage in program.blocks[0]:
            self._run(stage, "temporary")
        self._run(program.norm, "temporary")
        del stream
        self._run(program.head, "logits")

    def _run(self, stage: Stage, component: str = "activations") -> list[Storage]:
        kept = [self.e.allocate(size, component) for size in (*stage.casts, *stage.kept)]
        passing = self.e.allocate(stage.passing)
        del passing
        return kept

    def _give(self, sizes: Sequence[int]) -> None:
        """Gradients of parameters, which stand until the end of backward; or the product adds them to `.grad`."""
        e = self.e
        if self.program.together:
            self.made += [e.allocate(size, "gradients") for size in sizes]
        elif not e.gradients_exist:
            e.gradients += [e.allocate(size * e.gradient_widening, "gradients") for size in sizes]

    def _head(self, kept: list[Storage]) -> Storage | None:
        """The logits' gradient takes the place of the logits; a tied table's gradient waits for the look-up's.

        kept: the weight's cast, logits, the head's input, statistics of the softmax.
        """
        program = self.program
        # logits that were handed out have a gradient, zeros, and cannot be overwritten by that of the loss
        outside = [self.e.allocate(program.logits, "logits") for _ in range(2)] if program.logits else []
        kept.pop()
        del outside[:1]
        weight = self.e.allocate(sum(program.head.narrow))
        kept.pop()
        outside.clear()
        self.given = self.e.allocate(program.head.given)
        kept.clear()
        if program.tied is not None:
            return weight
        self._give(program.head.gradients)
        del weight
        return None

    def _norm(
        self,
        norm: list[Storage],
        blocks: list[list[list[Storage]] | None],
        inputs: list[Storage | None],
        first: list[Storage],
        tied: Storage | None,
    ) -> None:
        program, e = self.program, self.e
        stream = e.allocate(program.stream)
        self._back(program.norm, norm)
        e.ledger.phase("backward_block")
        for stages in reversed(program.blocks):
            kept = blocks.pop()
            if kept is None:
                kept = [self._run(stage) for stage in stages]
            for stage in reversed(stages):
                self._back(stage, kept.pop())
            inputs.pop()
        e.ledger.phase("backward_end")
        del self.given
        self._give(program.before.gradients)
        if program.tied is not None:
            summed = e.allocate(program.tied[1], "gradients")
            look_up = self.made.pop(program.before.gradients.index(program.tied[1]) - len(program.before.gradients))
            del tied, look_up
            self.made.append(summed)
            del summed
        first.clear()
        del stream
        self._hand_out()

    def _back(self, stage: Stage, kept: list[Storage]) -> None:
        """What was given to this stage goes when what it gives has been made; its own bytes go with it."""
        given = self.e.allocate(stage.given)
        narrow = [self.e.allocate(size) for size in stage.narrow]
        self.given = given
        del given
        kept.clear()
        self._give(stage.gradients)
        del narrow

    def _hand_out(self) -> None:
        """All gradients become `.grad`, or are added to those that are there."""
        e = self.e
        for i, made in enumerate(self.made):
            if not e.gradients_exist:
                e.gradients.append(
                    e.allocate(made.size * e.gradient_widening, "gradients") if e.gradient_widening > 1 else made
                )
            self.made[i] = e.allocate(0)
            del made
        self.made.clear()
