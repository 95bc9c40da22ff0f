"""The operators of a forward pass, in order, written on a tape (`tape.py`).

Every line mirrors an allocation that eager PyTorch makes in `reference_trainer/model.py`. What is kept for
backward is `activations` (or `logits`); what lives only between two operators is `temporary`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.shape import Shape
from planner.tape import Handle, Ledger

FP32 = 4
INDEX = 8  # int64
Saved = dict[str, Handle | None]


@dataclass(frozen=True, slots=True)
class Step:
    """What a walk needs to know beside the shape: sizes in elements and bytes, and the choices."""

    shape: Shape
    tokens: int
    seq: int
    compute_bytes: int
    checkpointing: Literal["none", "selective", "full", "offloaded"]
    gradients_exist: bool

    @property
    def casts(self) -> bool:
        """Whether weights and inputs are cast to the compute type."""
        return self.compute_bytes != FP32


class Forward:
    """Walks one micro-batch forward; the ledger holds the result."""

    def __init__(self, step: Step, ledger: Ledger) -> None:
        self.step, self.ledger = step, ledger
        self.n, self.c, self.s = step.tokens, step.compute_bytes, step.shape
        self.stream = self.n * self.s.hidden * FP32  # one copy of the fp32 residual stream

    def temporary(self, size: int) -> Handle:
        return self.ledger.new("temporary", size)

    def kept(self, size: int, keep: bool = True) -> Handle:
        return self.ledger.new("activations" if keep else "temporary", size)

    def norm(self, saved: Saved, name: str, keep: bool) -> None:
        """A norm and the cast of its output; the input is the residual stream, which its maker counts."""
        free, n = self.ledger.free, self.n
        if self.s.stat_vectors == 2:
            out = self.temporary(self.stream)
            stats = [self.kept(n * FP32, keep), self.kept(n * FP32, keep)]
        else:
            square = self.temporary(self.stream)
            mean = self.temporary(n * FP32)
            free(square)
            stats = [self.kept(n * FP32, keep)]
            free(mean)
            out = self.temporary(self.stream)
        saved[f"{name}.stats"] = stats[0] if len(stats) == 1 else (stats[0][0], 2 * stats[0][1])
        if not keep:
            free(*stats)
            saved[f"{name}.stats"] = None
        if self.step.casts:
            saved[f"{name}.out"] = self.kept(n * self.s.hidden * self.c, keep)
            free(out)
        else:
            saved[f"{name}.out"] = self.ledger.move(out, "activations") if keep else out

    def linear(self, saved: Saved, name: str, shape: tuple[int, int], keep: bool, keep_out: bool) -> Handle:
        """A linear layer K x M: casts of bias and weight, then the product; returns the output."""
        inputs, outputs = shape
        bias = self.cast_bias(outputs)
        saved[f"{name}.cast"] = self.kept(inputs * outputs * self.c, keep) if self.step.casts else None
        out = self.kept(self.n * outputs * self.c, keep_out)
        if not keep:
            self.ledger.free(saved.pop(f"{name}.cast"))
        self.ledger.free(bias)
        return out

    def cast_bias(self, outputs: int) -> Handle | None:
        return self.temporary(outputs * self.c) if self.step.casts and self.s.mlp_bias else None

    def turn(self, width: int, keep: bool) -> Handle:
        """Rotary embedding of `width` channels per token: the output, and two fp32 halves at a time."""
        out = self.kept(self.n * width * self.c, keep)
        for _ in range(2):
            halves = [self.temporary(self.n * width // 2 * FP32) for _ in range(2)]
            self.ledger.free(*halves)
        return out

    def core(self, saved: Saved, keep: bool) -> None:
        """Attention core: rotary embedding, then flash attention."""
        s = self.s
        if s.rotary_factor:
            saved["query"] = self.turn(s.query_width, keep)
            saved["key"] = self.turn(s.key_width, keep)
        saved["attention.out"] = self.kept(self.n * s.query_width * self.c, keep)
        saved["lse"] = self.kept(self.n * s.heads * FP32, keep)
        if not keep:
            self.ledger.free(saved.pop("lse"), saved.pop("query", None), saved.pop("key", None))

    def attention(self, saved: Saved, keep: bool) -> None:
        """First half of a block: norm, projections and core, then the residual sum into `middle`."""
        s, free = self.s, self.ledger.free
        self.norm(saved, "attention_norm", keep)
        saved["qkv"] = self.linear(saved, "qkv", (s.hidden, s.query_width + 2 * s.key_width), keep, keep)
        core_kept = keep and self.step.checkpointing != "selective"
        self.core(saved, core_kept)
        if keep and not core_kept:
            out = saved["attention.out"]
            assert out is not None
            saved["attention.out"] = self.ledger.move(out, "activations")  # the projection's saved input
        if not keep:
            free(saved.pop("qkv"))
        out = self.linear(saved, "proj", (s.query_width, s.hidden), keep, False)
        if not keep:
            free(saved.pop("attention.out"), saved.pop("attention_norm.out"))
        saved["middle"] = self.kept(self.stream, keep)
        free(out)

    def mlp(self, saved: Saved, keep: bool, stop: bool = False) -> None:
        """Second half of a block up to the residual sum; `stop`: only what backward needs (recomputation)."""
        s, free = self.s, self.ledger.free
        self.norm(saved, "mlp_norm", keep)
        wide = self.n * s.ffn * self.c
        if s.gated:
            saved["gate.out"] = self.linear(saved, "gate", (s.hidden, s.ffn), keep, keep)
            saved["silu"] = self.kept(wide, keep)
            if not keep:
                free(saved.pop("gate.out"))
            saved["up.out"] = self.linear(saved, "up", (s.hidden, s.ffn), keep, keep)
            saved["act"] = self.kept(wide, keep)
            if not keep:
                free(saved.pop("silu"), saved.pop("up.out"))
        else:
            saved["up.out"] = self.linear(saved, "up", (s.hidden, s.ffn), keep, keep)
            saved["act"] = self.kept(wide, keep)
            if not keep:
                free(saved.pop("up.out"))
        if stop:
            # recomputation ends when the last saved tensor is there: the product itself is not made again
            bias = self.cast_bias(s.hidden)
            saved["down.cast"] = self.kept(s.ffn * s.hidden * self.c) if self.step.casts else None
            free(bias)
            return
        out = self.linear(saved, "down", (s.ffn, s.hidden), keep, False)
        if not keep:
            free(saved.pop("act"), saved.pop("mlp_norm.out"))
        saved["x"] = self.kept(self.stream)
        free(out)
        if not keep:
            free(saved.pop("middle"))

    def block_forward(self) -> Saved:
        """One block; the block's output `x` is kept, because the next norm or block needs it."""
        saved: Saved = {}
        keep = self.step.checkpointing != "full"
        self.attention(saved, keep)
        self.mlp(saved, keep)
        return saved

    def embed(self) -> Saved:
        """Embeddings; with learned positions the sum of two look-ups."""
        tokens = self.kept(self.stream)
        if not self.s.learned_positions:
            return {"x": tokens, "positions": None}
        positions = self.kept(INDEX * self.step.seq)
        looked_up = self.temporary(FP32 * self.step.seq * self.s.hidden)
        x = self.kept(self.stream)
        self.ledger.free(looked_up, tokens)
        return {"x": x, "positions": positions}

    def ends_forward(self) -> Saved:
        """Final norm, head and cross-entropy."""
        saved: Saved = {}
        new, n, vocab = self.ledger.new, self.n, self.s.vocab
        self.norm(saved, "norm", True)
        if self.step.casts:
            saved["head.cast"] = self.kept(vocab * self.s.hidden * self.c)
            narrow = new("logits", n * vocab * self.c)
            logits = new("logits", n * vocab * FP32)
            self.ledger.free(narrow)
        else:
            saved["head.cast"] = None
            logits = new("logits", n * vocab * FP32)
        saved["log_probabilities"] = new("logits", n * vocab * FP32)
        saved["loss"], saved["weight"] = new("logits", FP32), new("logits", FP32)  # the loss; its summed weight
        self.ledger.free(logits)
        return saved
