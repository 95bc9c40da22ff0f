"""The operators of one training step, forward and backward, written on a tape (`tape.py`).

The forward pass is in `walk_forward.py`. Gradients are `gradients` once they are in fp32 and stay; on their way
there, or where they are added to existing ones, they are `temporary`.
"""

from __future__ import annotations

from planner.tape import Handle, Ledger
from planner.walk_forward import FP32, Forward, Saved, Step


class Walk(Forward):
    """Walks one micro-batch forward and backward; the ledger holds the result."""

    unsettled: list[Handle]  # a norm's own gradients reach `.grad` after the residual sum beside it

    def gradient(self, size: int) -> Handle:
        """A finished fp32 weight gradient: it becomes `.grad`, or is added to the one there and freed later."""
        return self.ledger.new("temporary" if self.step.gradients_exist else "gradients", size)

    def settle(self, *gradients: Handle) -> None:
        """The gradients reach `.grad`: those added to existing ones are freed."""
        if self.step.gradients_exist:
            self.ledger.free(*gradients)

    def linear_backward(
        self, name: str, shape: tuple[int, int], grad: Handle | None, saved: Saved, kept_input: Handle | None
    ) -> Handle:
        """Gradients of a linear layer: input, weight, bias; then the weight's cast back to fp32.

        grad: the output's gradient, freed afterwards (None: it belongs to somebody who still needs it).
        kept_input: the saved input when this layer is the last to need it.
        """
        inputs, outputs = shape
        into, narrow = self.products(inputs, outputs)
        bias = self.bias_gradient(outputs, grad, (saved.pop(f"{name}.cast", None), kept_input))
        self.finish(narrow, bias)
        return into

    def products(self, inputs: int, outputs: int) -> tuple[Handle, Handle]:
        """Gradients of a layer's input and weight, in the order of addmm (bias) or mm (none)."""
        weight = inputs * outputs * self.c
        if self.s.mlp_bias and outputs != self.s.vocab:
            into = self.temporary(self.n * inputs * self.c)
            return into, self.temporary(weight)
        narrow = self.temporary(weight)
        return self.temporary(self.n * inputs * self.c), narrow

    def bias_gradient(self, outputs: int, grad: Handle | None, used: tuple[Handle | None, ...]) -> Handle | None:
        """Sum over tokens; then the layer's tensors are freed, recomputed ones as soon as the products are made."""
        recomputed = self.step.checkpointing == "full"
        if recomputed:
            self.ledger.free(*used)
        bias = self.temporary(outputs * self.c) if self.s.mlp_bias else None
        self.ledger.free(grad, *(() if recomputed else used))
        return bias

    def finish(self, narrow: Handle, bias: Handle | None) -> None:
        """Weight and bias gradients become fp32 and reach `.grad`."""
        for made in (narrow, bias):
            if made is None:
                continue
            if self.step.casts:
                wide = self.gradient(made[1] // self.c * FP32)
                self.ledger.free(made)
            else:
                wide = made if self.step.gradients_exist else self.ledger.move(made, "gradients")
            self.settle(wide)

    def to_stream(self, grad: Handle) -> Handle:
        """Gradient of the cast of a norm's output: back to fp32."""
        if not self.step.casts:
            return grad
        wide = self.temporary(self.stream)
        self.ledger.free(grad)
        return wide

    def norm_backward(self, name: str, grad: Handle, saved: Saved, kept_input: Handle | None) -> Handle:
        """Gradient of a norm; frees its input (the residual stream) and statistics."""
        free, n, hidden = self.ledger.free, self.n, self.s.hidden
        if self.s.stat_vectors == 2:
            out = self.temporary(self.stream)
            made = [self.gradient(hidden * FP32) for _ in range(self.s.norm_vectors)]
        else:
            normalised = self.temporary(self.stream)
            product = self.temporary(self.stream)
            made = [self.gradient(hidden * FP32)]
            free(product)
            out = self.temporary(self.stream)
            product = self.temporary(self.stream)
            shift = self.temporary(n * FP32)
            free(product, normalised, shift)
        free(grad, kept_input, saved.pop(f"{name}.stats"))
        self.unsettled = made
        return out

    def add_residual(self, grad: Handle, branch: Handle) -> Handle:
        """The gradients of a sub-layer and of the residual beside it are added into a new tensor."""
        both = self.temporary(self.stream)
        self.ledger.free(grad, branch)
        self.settle(*self.unsettled)
        return both

    def narrow_grad(self) -> Handle | None:
        """Gradient of a sub-layer's output, cast to the compute type; in fp32 it is the stream's own."""
        return self.temporary(self.n * self.s.hidden * self.c) if self.step.casts else None

    def mlp_backward(self, grad: Handle, branch: Handle | None, saved: Saved) -> Handle:
        """Backward of a block's second half; `branch` is the sub-layer's own gradient. Frees `middle`."""
        s, free = self.s, self.ledger.free
        wide = self.n * s.ffn * self.c
        out = self.linear_backward("down", (s.ffn, s.hidden), branch, saved, saved.pop("act"))
        if s.gated:
            to_silu, to_up = self.temporary(wide), self.temporary(wide)
            free(out, saved.pop("silu"), saved.pop("up.out"))
            first = self.linear_backward("up", (s.hidden, s.ffn), to_up, saved, None)
            to_gate = self.temporary(wide)
            free(to_silu, saved.pop("gate.out"))
            second = self.linear_backward_shared(first, to_gate, saved)
        else:
            to_up = self.temporary(wide)
            free(out, saved.pop("up.out"))
            second = self.linear_backward("up", (s.hidden, s.ffn), to_up, saved, saved.pop("mlp_norm.out"))
        back = self.norm_backward("mlp_norm", self.to_stream(second), saved, saved.pop("middle"))
        return self.add_residual(grad, back)

    def linear_backward_shared(self, first: Handle, grad: Handle, saved: Saved) -> Handle:
        """Gate's backward: its input gradient joins the one of `up` before the weight's cast back to fp32."""
        s = self.s
        into, narrow = self.products(s.hidden, s.ffn)
        bias = self.bias_gradient(s.ffn, grad, (saved.pop("gate.cast", None), saved.pop("mlp_norm.out")))
        both = self.temporary(self.n * s.hidden * self.c)
        self.ledger.free(first, into)
        self.finish(narrow, bias)
        return both

    def attention_backward(self, grad: Handle, saved: Saved, kept_input: Handle | None) -> Handle:
        """Backward of a block's first half; frees the block's input."""
        s, free, n = self.s, self.ledger.free, self.n
        query, key = n * s.query_width * self.c, n * s.key_width * self.c
        selective = self.step.checkpointing == "selective"
        last_use = saved.pop("attention.out") if selective else None
        out = self.linear_backward("proj", (s.query_width, s.hidden), self.narrow_grad(), saved, last_use)
        if selective:
            self.core(saved, True)
        grads = [self.temporary(size) for size in (query, key, key)]
        free(out, saved.pop("qkv"), saved.pop("lse"), saved.pop("attention.out"))
        free(saved.pop("query", None), saved.pop("key", None))
        if s.rotary_factor:
            for i, width in ((1, s.key_width), (0, s.query_width)):
                turned = self.turn(width, False)
                free(grads[i])
                grads[i] = turned
        joined = self.temporary(query + 2 * key)
        free(*grads)
        width = s.query_width + 2 * s.key_width
        back = self.linear_backward("qkv", (s.hidden, width), joined, saved, saved.pop("attention_norm.out"))
        back = self.norm_backward("attention_norm", self.to_stream(back), saved, kept_input)
        return self.add_residual(grad, back)

    def block_backward(self, grad: Handle, saved: Saved, kept_input: Handle | None) -> Handle:
        """One block, from the gradient of its output to that of its input; recomputed first where asked."""
        branch = self.narrow_grad()
        if self.step.checkpointing == "full":
            self.attention(saved, True)
            self.mlp(saved, True, stop=True)
        grad = self.mlp_backward(grad, branch, saved)
        return self.attention_backward(grad, saved, kept_input)

    def loss_backward(self, saved: Saved) -> Handle:
        """From the loss to the gradient of the head's input."""
        new, free, n = self.ledger.new, self.ledger.free, self.n
        one = self.temporary(FP32)
        to_log = new("logits", n * self.s.vocab * FP32)
        free(one)
        to_logits = new("logits", n * self.s.vocab * FP32)
        free(to_log, saved.pop("log_probabilities"))
        if self.step.casts:
            narrow = new("logits", n * self.s.vocab * self.c)
            free(to_logits)
            to_logits = narrow
        into, narrow = self.products(self.s.hidden, self.s.vocab)
        free(to_logits, saved.pop("head.cast"), saved.pop("norm.out"))
        if self.step.casts:
            weight = self.gradient(self.s.vocab * self.s.hidden * FP32)
            free(narrow)
        else:
            weight = narrow if self.step.gradients_exist else self.ledger.move(narrow, "gradients")
        if self.s.tied:
            saved["head.gradient"] = weight  # waits for the embedding's, to be added to it
        else:
            saved["head.gradient"] = None
            self.settle(weight)
        return into

    def embedding_backward(self, grad: Handle, embedded: Saved, head: Handle | None) -> None:
        """Gradients of the tables; a tied one is the sum of two, so that three exist for a moment."""
        free, s = self.ledger.free, self.s
        if s.learned_positions:
            summed = self.temporary(FP32 * self.step.seq * s.hidden)
            table = self.gradient(FP32 * s.context * s.hidden)
            free(summed, embedded["positions"])
            self.settle(table)
        size = FP32 * s.vocab * s.hidden
        if not s.tied:
            table = self.gradient(size)
            free(grad)
            self.settle(table)
            return
        looked_up = self.temporary(size)
        free(grad)
        total = self.temporary(size)
        free(looked_up, head)
        total = self.ledger.move(total, "temporary" if self.step.gradients_exist else "gradients")
        self.settle(total)


def walk_micro_batch(step: Step, ledger: Ledger) -> None:
    """Forward and backward of one micro-batch; phases forward, loss_backward, block_backward, embedding_backward."""
    walk = Walk(step, ledger)
    layers = step.shape.layers
    ledger.phase("forward")
    embedded = walk.embed()
    before = dict(ledger.live)
    first = walk.block_forward()
    if layers > 2:
        ledger.repeat(before, layers - 2)
    last = walk.block_forward() if layers > 1 else first
    ends = walk.ends_forward()

    ledger.phase("loss_backward")
    into_head = walk.loss_backward(ends)

    ledger.phase("block_backward")
    grad = walk.norm_backward("norm", walk.to_stream(into_head), ends, last.pop("x"))
    walk.settle(*walk.unsettled)
    if layers > 1:
        inner_input = first["x"]  # as large as the input of every other block
        before = dict(ledger.live)
        grad = walk.block_backward(grad, last, inner_input)
        if layers > 2:
            ledger.repeat(before, layers - 2)
    first.pop("x", None)
    grad = walk.block_backward(grad, first, embedded["x"])

    ledger.phase("embedding_backward")
    walk.embedding_backward(grad, embedded, ends["head.gradient"])
    ledger.free(ends["loss"], ends["weight"])
