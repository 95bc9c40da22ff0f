"""The element-wise kernels of one micro-batch by name and size, in the order in which the reference model runs them.

`memory/eager` has the same operators for their bytes. A data sheet prices them as traffic per token; a profile has
times of each. Products and attention are in `blocks.py`, for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planner.counts.flops import last_products
from planner.counts.ranks import held_tensors
from planner.counts.run import Resolved
from planner.counts.shape import blocks_with_rotary, recomputed_blocks
from planner.counts.tensors import ParameterTensor
from planner.formulas.itemsize import FP32
from planner.step_time.measured import kind_of

OUTSIDE = ("embedding", "position", "head", "norm", "embedding_norm")


@dataclass(frozen=True, slots=True)
class ElementWiseCall:
    """`times` calls of a kernel of a profile, counted under `part`; each makes a tensor of `makes` bytes."""

    part: str
    kernel: str
    kind: str
    sizes: tuple[float, ...]
    makes: float
    times: float


def element_wise_calls(run: Resolved) -> list[ElementWiseCall]:
    """All element-wise kernels of one micro-batch, forward, recomputed and backward."""
    calls = _Calls(run)
    rank = run.rank
    found = [*calls.norms(), *calls.layers(), *calls.activations(), *calls.residual(), *calls.rotary()]
    if rank is None or rank.embeds:
        found += calls.embedding()
    if rank is None or rank.has_head:
        found += calls.loss()
    return [*found, *calls.accumulated()]


class _Calls:
    """The kernels of a run: n tokens of a block's products and h of its residual stream, `c` bytes of a number."""

    def __init__(self, run: Resolved) -> None:
        self.run, self.s, self.t = run, run.shape, run.config.training
        p, recipe = run.config.parallel, run.recipe
        self.n = self.t.micro_batch * self.t.seq
        self.h = self.n / (p.tp if p.sp and run.rank else 1)
        self.c, self.kind = recipe.compute_bytes, kind_of(run)
        stream = self.c if p.shards_weights else recipe.weights_bytes_per_parameter
        self.casts_stream, self.casts_weights = stream != self.c, stream != self.c
        self.again = recomputed_blocks(self.t, self.s.layers)
        self.forward, self.backward = self.s.layers + self.again, self.s.layers
        self.norm = "layer_norm" if self.s.stat_vectors == 2 else "rms_norm"

    def cast(self, down: bool, elements: float, times: float) -> Iterator[ElementWiseCall]:
        """fp32 to bf16 (`down`) or back."""
        kernel, made = ("cast_down", self.c) if down else ("cast_up", FP32)
        yield ElementWiseCall("casts", kernel, "bf16", (elements,), elements * made, times)

    def normed(
        self, part: str, rows: float, width: float, forward: float, backward: float
    ) -> Iterator[ElementWiseCall]:
        """A norm of `width` channels, computed in fp32."""
        for way, times in (("forward", forward), ("backward", backward)):
            yield ElementWiseCall(part, f"{self.norm}_{way}", "fp32", (rows, width), rows * width * FP32, times)

    def norms(self) -> Iterator[ElementWiseCall]:
        """Those of the stream, whose results are cast, and those of queries and keys."""
        s, each = self.s, self.s.block_norms
        yield from self.normed("norms", self.h, s.hidden, self.forward * each, self.backward * each)
        if self.casts_stream:
            stream = self.h * s.hidden
            yield from self.cast(True, stream, (self.forward + self.backward) * each)
            yield from self.cast(False, stream, self.backward * each)
        for width, normed in ((s.query_width, s.normed_query), (s.key_width, s.normed_key)):
            if normed:
                yield from self.normed("norms", self.n * width / normed, normed, self.forward, self.backward)

    def layers(self) -> Iterator[ElementWiseCall]:
        """Of the linear layers: casts of weights and of their gradients, and the biases."""
        last = last_products(self.run.config)
        for tensor in held_tensors(self.run):
            name, _, what = tensor.name.rpartition(".")
            if name.partition(".")[0] in OUTSIDE:
                continue
            again = 0.0 if name in last else self.again / self.s.layers
            yield from self.layer(tensor, what == "bias", tensor.times * (1 + again))

    def layer(self, tensor: ParameterTensor, is_bias: bool, forward: float) -> Iterator[ElementWiseCall]:
        """One weight or bias: a bias is written to every row, its gradient summed over them."""
        if len(tensor.shape) > 1 and self.casts_weights:
            yield from self.cast(True, tensor.count, forward)
            yield from self.cast(False, tensor.count, tensor.times)
        elif is_bias:
            outputs = tensor.shape[0]
            yield ElementWiseCall("residual and copies", "copy", self.kind, (self.n * outputs,), 0, forward)
            yield ElementWiseCall("residual and copies", "sum_rows", self.kind, (self.n, outputs), 0, tensor.times)

    def activations(self) -> Iterator[ElementWiseCall]:
        """The activation of the MLPs; of a mixture those of a token's experts."""
        elements = self.n * active_width(self.run)
        kernel = "swiglu" if self.s.gated else "gelu"
        for way, times in (("forward", self.forward), ("backward", self.backward)):
            yield ElementWiseCall("activations", f"{kernel}_{way}", self.kind, (elements,), elements * self.c, times)

    def residual(self) -> Iterator[ElementWiseCall]:
        """Sums of the stream, and the gradients of queries, keys and values joined."""
        s, stream, layers = self.s, self.h * self.s.hidden, self.s.layers
        part = "residual and copies"
        # a recomputed block does not make its output again; backward the two ways into an MLP and a residual's join
        yield ElementWiseCall(part, "add", self.kind, (stream,), stream * FP32, 2 * layers + self.again)
        yield ElementWiseCall(part, "add", "fp32", (stream,), stream * FP32, layers * (2 + int(s.gated)))
        joined = self.n * (s.query_width + 2 * s.key_width)
        yield ElementWiseCall(part, "join", self.kind, (joined,), joined * self.c, layers)

    def rotary(self) -> Iterator[ElementWiseCall]:
        """Queries and keys turned, and turned again where attention is recomputed."""
        s, model = self.s, self.run.config.model
        turned = blocks_with_rotary(model) / s.layers
        again = s.layers if self.t.activation_checkpointing == "selective" else 0
        for heads in (s.heads, 1 if model.mla else s.kv_heads):
            elements = self.n * heads * model.rope_dim
            for way, times in (("forward", self.forward + again), ("backward", self.backward)):
                if turned:
                    made = elements * self.c
                    yield ElementWiseCall("attention", f"rotary_{way}", self.kind, (elements,), made, times * turned)

    def loss(self) -> Iterator[ElementWiseCall]:
        """The last norm and the cross-entropy, both ways, with the casts of the logits and of the head's weight."""
        s, part, stream, logits = self.s, "head and loss", self.h * self.s.hidden, self.n * self.s.vocab
        yield from self.normed(part, self.h, s.hidden, 1, 1)
        if self.casts_stream:
            for elements in (stream, s.hidden * s.vocab, logits):
                yield from self.cast(True, elements, 1)
                yield from self.cast(False, elements, 1)
        # backward makes the gradient of the log-probabilities in addition
        for way, made in (("forward", logits), ("backward", 2 * logits)):
            yield ElementWiseCall(part, f"loss_{way}", "fp32", (self.n, s.vocab), made * FP32, 1)

    def embedding(self) -> Iterator[ElementWiseCall]:
        """Look-ups and their gradients: a table of zeros to which the tokens' rows are added."""
        s, part = self.s, "embedding"
        tables = [(self.n, s.vocab)] + ([(self.t.seq, s.position_rows)] if s.learned_positions else [])
        for rows, table in tables:
            yield ElementWiseCall(part, "embedding_forward", "fp32", (rows, s.hidden), rows * s.hidden * FP32, 1)
            yield ElementWiseCall(part, "embedding_backward", "fp32", (rows, s.hidden), 0, 1)
            yield ElementWiseCall(part, "fill", "fp32", (table * s.hidden,), table * s.hidden * FP32, 1)
        stream, whole = self.n * s.hidden, s.vocab * s.hidden
        if s.learned_positions:  # added forward; summed over the sequences backward, which reads as much
            yield ElementWiseCall(part, "add", "fp32", (stream,), stream * FP32, 2)
        if s.tied:  # the gradients of the look-up and of the head are added into a third
            yield ElementWiseCall(part, "add", "fp32", (whole,), whole * FP32, 1)

    def accumulated(self) -> Iterator[ElementWiseCall]:
        """All but the first micro-batch add to gradients that exist: the mean over them."""
        times, count = self.t.accumulation, self.run.parameters.total
        if times > 1:
            yield ElementWiseCall("residual and copies", "accumulate", "fp32", (count,), 0, (times - 1) / times)


def active_width(run: Resolved) -> float:
    """Inner channels per token and block, on average: of a mixture those of the experts that a token uses."""
    s, moe = run.shape, run.config.model.moe
    if moe is None:
        return s.ffn
    active = moe.top_k * moe.expert_ffn + moe.shared_ffn
    return (s.dense_layers * s.ffn + (s.layers - s.dense_layers) * active) / s.layers


def kernels_of(run: Resolved, calls: list[ElementWiseCall]) -> float:
    """Number of kernels of a micro-batch, with the products and attention."""
    matrices = sum(
        t.times for t in held_tensors(run) if len(t.shape) > 1 and t.name.partition(".")[0] not in OUTSIDE[:2]
    )
    again = recomputed_blocks(run.config.training, run.shape.layers)
    attended = 2 * run.shape.layers + again
    if run.config.training.activation_checkpointing == "selective":
        attended += run.shape.layers
    return sum(call.times for call in calls) + matrices * (3 + again / run.shape.layers) + attended
