"""One micro-batch on the tape: the network forward and backward, its phases marked.

Blocks of one kind are alike: the first and the last of a run are walked and those between are added at once, because
every total is linear in the block's number and its maximum is therefore at an end.
"""

from __future__ import annotations

from planner import operators as op
from planner.autograd import Autograd, Storage, Tensor
from planner.network import Block, Facts, Network
from planner.tape import Ledger


def walk_micro_batch(facts: Facts, e: Autograd, whole: bool = False) -> None:
    """Forward and backward; phases forward_end, backward_start, backward_block, backward_end.

    whole: every block is walked, none is added at once.
    """
    ledger, network = e.ledger, Network(facts)
    inputs = [Tensor(_External(ledger, facts.tokens), facts.tokens, op.INDEX) for _ in range(2)]
    layers = facts.shape.layers
    walked = layers if whole else min(2, layers)
    ledger.phase("forward_end")
    x = network.embed(e, inputs[0])
    marks: list[dict[str, int]] = []
    x = op.mark(e, x, lambda: ledger.phase("backward_end"))
    before = dict(ledger.live)
    saved_before = dict(e.saved_by)
    for index in range(walked):
        block = Block(facts)
        if facts.training.activation_checkpointing == "full":
            e.label = "blocks"
            x = e.checkpoint(block, x)
        else:
            x = block(e, x)
        del block
        if index == 0 and layers > walked:
            ledger.repeat(before, layers - walked)
            for label, size in e.saved_by.items():
                e.saved_by[label] += (size - saved_before.get(label, 0)) * (layers - walked)
            x = op.mark(e, x, lambda: ledger.repeat(marks[0], layers - walked))
        if index == walked - 1:
            x = op.mark(e, x, lambda: marks.append(dict(ledger.live)))
    hidden = network.last_norm(e, x)
    del x
    loss = network.loss(e, hidden, inputs[1])
    del hidden
    ledger.phase("backward_start")
    e.backward(loss)


def walk_evaluation(facts: Facts, e: Autograd) -> None:
    """A forward pass that keeps no graph; one block suffices, because nothing of it stays."""
    network = Network(facts)
    ids, targets = (Tensor(_External(e.ledger, facts.tokens), facts.tokens, op.INDEX) for _ in range(2))
    e.recording = False
    x = network.embed(e, ids)
    for _ in range(min(2, facts.shape.layers)):
        x = Block(facts)(e, x)
    hidden = network.last_norm(e, x)
    del x
    network.loss(e, hidden, targets)
    e.recording = True


class _External(Storage):
    """Token ids and targets: there for the whole step, counted with the inputs."""

    __slots__ = ()

    def __init__(self, ledger: Ledger, tokens: int) -> None:
        self.ledger, self.size, self.component, self.saved, self.key = (
            ledger,
            tokens * op.INDEX,
            "activations",
            False,
            0,
        )

    def __del__(self) -> None:
        pass
