"""The time of one optimizer step from measured kernel times: the operators of the reference model, added up.

`walk.py` lists the same operators for their bytes, in the order in which they run; here each is a kernel name and
its sizes, looked up in the profile's tables. One device; communication between devices is not in a profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from planner.counts.run import Resolved
from planner.formulas.itemsize import FP32
from planner.step_time.kernel_tables import LAUNCH, Tables
from planner.step_time.step_seconds import StepSeconds, sum_of_parts

PARTS = (
    "matrix products",
    "attention",
    "norms",
    "activations",
    "casts",
    "residual and copies",
    "loss",
    "embedding",
    "optimizer",
    "clipping",
    "overhead",
)
# What a sum of kernels leaves out (caches warm or cold, memory handed back and taken again). Measured:
# benchmarks/cpu_profile.py; 0.10 is the agreement asked of it.
MODEL_ERROR = 0.10
# Widening per doubling of the work beyond the table: a guess, as rates have levelled off at the largest sizes timed.
ERROR_PER_DOUBLING = 0.03
# Autograd nodes per kernel: beside it stand a view or transpose, and the accumulation of a parameter's gradient.
NODES_PER_KERNEL = 2


def step_seconds_from_profile(run: Resolved, profile: dict[str, object]) -> StepSeconds:
    """Seconds of one optimizer step on the machine that the profile was measured on.

    Every micro-batch forward and backward (blocks recomputed where checkpointing asks for it), gradients added up,
    then clipping and AdamW. The interval holds the noise seen while measuring, a stated error of the model, and more
    the further the sizes lie beyond those timed. Raises ConfigError for a profile that cannot be used.
    """
    tables = Tables(profile)
    micro = _Micro(run, tables)
    micro.walk()
    update = _Sum(tables)
    _update(run, update)
    times = run.config.training.accumulation
    parts = {name: times * micro.sum.parts[name] + update.parts[name] for name in PARTS}
    doubt = (times * micro.sum.doubt + update.doubt) / sum(parts.values())
    return sum_of_parts(parts, "profile", 1 + tables.noise + MODEL_ERROR + doubt)


class _Sum:
    """Seconds by part, and the seconds of doubt that come from reading beyond a table."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.kernels = 0
        self.doubt = 0.0

    def add(self, part: str, kernel: str, kind: str, sizes: Sequence[int], makes: int = 0, times: int = 1) -> None:
        """`times` runs of a kernel in the element type `kind`, each of which makes a tensor of `makes` bytes."""
        read = self.tables[kernel, kind].read(sizes)
        seconds = times * read.seconds
        self.doubt += seconds * ERROR_PER_DOUBLING * log2(read.beyond)
        if makes:
            # large tensors are fresh pages from the system each time; the kernels were timed without that
            seconds += times * self.tables["fresh", "fp32"].read((makes,)).seconds
        self.parts[part] += seconds
        self.kernels += times


class _Micro:
    """One micro-batch, forward and backward, as kernels. n tokens, `kind` the compute type, `c` its bytes."""

    def __init__(self, run: Resolved, tables: Tables) -> None:
        self.s, self.t, self.sum = run.shape, run.config.training, _Sum(tables)
        self.n = self.t.micro_batch * self.t.seq
        self.parameters = run.parameters.total
        self.c = run.recipe.compute_bytes
        self.casts = self.c != FP32
        self.kind = "bf16" if self.casts else "fp32"
        self.norm_kernel = "layer_norm" if self.s.stat_vectors == 2 else "rms_norm"

    def walk(self) -> None:
        """The whole micro-batch; all blocks are alike."""
        self.embedding()
        for _ in range(self.s.layers):
            self.block_forward()
        self.head_and_loss()
        for _ in range(self.s.layers):
            if self.t.activation_checkpointing == "full":
                self.block_forward(recompute=True)
            self.block_backward()
        self.overhead()
        if self.t.accumulation > 1:
            # all but the first micro-batch add to gradients that exist; here the mean over them
            share = (self.t.accumulation - 1) / self.t.accumulation
            read = self.sum.tables["accumulate", "fp32"].read((self.parameters,))
            self.sum.parts["residual and copies"] += share * read.seconds

    def overhead(self) -> None:
        """The host's part: one node forward and backward; a processor's kernels have their launches in their tables.

        A GPU's tables do not. There the host runs ahead, and a step waits for it only where it is the slower one.
        """
        nodes = NODES_PER_KERNEL * self.sum.kernels // 2
        host = nodes * self.sum.tables["dispatch", "fp32"].read((1,)).seconds
        if LAUNCH in self.sum.tables:
            host += self.sum.kernels * self.sum.tables[LAUNCH].read((1,)).seconds
            host = max(0.0, host - sum(self.sum.parts.values()))
        self.sum.parts["overhead"] += host

    # --- pieces ------------------------------------------------------------------------------------------

    def stream(self, part: str, kernel: str, kind: str = "fp32", times: int = 1) -> None:
        """An elementwise kernel over the residual stream."""
        self.wide(part, kernel, self.s.hidden, kind, times=times)

    def wide(self, part: str, kernel: str, width: int, kind: str, size: int = FP32, times: int = 1) -> None:
        """An elementwise kernel over `width` channels per token, which makes `size` bytes for each."""
        self.sum.add(part, kernel, kind, (self.n * width,), self.n * width * size, times)

    def cast(self, down: bool, elements: int) -> None:
        """fp32 to bf16 (`down`) or back; nothing in the fp32 recipe."""
        if self.casts:
            made = elements * (self.c if down else FP32)
            self.sum.add("casts", "cast_down" if down else "cast_up", "bf16", (elements,), made)

    def linear_forward(self, inputs: int, outputs: int, bias: bool) -> None:
        """Cast of the weight, the bias written to every row, the product added to it."""
        n, made = self.n, self.n * outputs * self.c
        self.cast(True, inputs * outputs)
        self.sum.add("matrix products", "gemm_forward", self.kind, (n, inputs, outputs), made)
        if bias:
            self.sum.add("residual and copies", "copy", self.kind, (n * outputs,))

    def linear_backward(self, inputs: int, outputs: int, bias: bool) -> None:
        """Gradients of input, weight and bias; the weight's is cast back to fp32."""
        n, c = self.n, self.c
        self.sum.add("matrix products", "gemm_input_gradient", self.kind, (n, inputs, outputs), n * inputs * c)
        made = inputs * outputs * c
        self.sum.add("matrix products", "gemm_weight_gradient", self.kind, (n, inputs, outputs), made)
        self.cast(False, inputs * outputs)
        if bias:
            self.sum.add("residual and copies", "sum_rows", self.kind, (n, outputs))

    def linears(self, recompute: bool = False) -> list[tuple[int, int]]:
        """Inputs and outputs of a block's linear layers; a recomputation stops before the last product."""
        s = self.s
        into_mlp = [(s.hidden, s.ffn)] * (s.mlp_matrices - 1)
        layers = [(s.hidden, s.query_width + 2 * s.key_width), (s.query_width, s.hidden), *into_mlp]
        return layers if recompute else [*layers, (s.ffn, s.hidden)]

    def core_forward(self) -> None:
        """Rotary embedding and attention."""
        s, t = self.s, self.t
        if s.rotary_factor:
            for width in (s.query_width, s.key_width):
                self.wide("attention", "rotary_forward", width, self.kind, self.c)
        sizes = (t.micro_batch * s.heads, t.seq, s.head_dim)
        self.sum.add("attention", "attention_forward", self.kind, sizes, self.n * s.query_width * self.c)

    def core_backward(self) -> None:
        """Attention, rotary embedding, and the three gradients joined into that of the projection."""
        s, t = self.s, self.t
        if t.activation_checkpointing == "selective":
            self.core_forward()
        sizes = (t.micro_batch * s.heads, t.seq, s.head_dim)
        self.sum.add("attention", "attention_backward", self.kind, sizes, self.n * s.query_width * self.c)
        if s.rotary_factor:
            for width in (s.query_width, s.key_width):
                self.wide("attention", "rotary_backward", width, self.kind, self.c)
        self.wide("residual and copies", "join", s.query_width + 2 * s.key_width, self.kind, self.c)

    def norm(self, way: str) -> None:
        made = self.n * self.s.hidden * FP32
        self.sum.add("norms", f"{self.norm_kernel}_{way}", "fp32", (self.n, self.s.hidden), made)

    # --- the model -----------------------------------------------------------------------------------------

    def block_forward(self, recompute: bool = False) -> None:
        """A block; `recompute`: up to the last tensor that backward needs."""
        for _ in range(2):
            self.norm("forward")
            self.cast(True, self.n * self.s.hidden)
        for inputs, outputs in self.linears(recompute):
            self.linear_forward(inputs, outputs, bool(self.s.mlp_bias))
        self.core_forward()
        self.wide("activations", f"{self._activation}_forward", self.s.ffn, self.kind, self.c)
        self.stream("residual and copies", "add", self.kind, times=1 if recompute else 2)

    @property
    def _activation(self) -> str:
        return "swiglu" if self.s.gated else "gelu"

    def block_backward(self) -> None:
        """A block's gradients, from its output to its input."""
        for _ in range(2):
            self.cast(True, self.n * self.s.hidden)
            self.cast(False, self.n * self.s.hidden)
            self.norm("backward")
        for inputs, outputs in self.linears():
            self.linear_backward(inputs, outputs, bool(self.s.mlp_bias))
        self.core_backward()
        self.wide("activations", f"{self._activation}_backward", self.s.ffn, self.kind, self.c)
        # the two ways into the MLP join, then each half's gradient joins that of the residual beside it
        self.stream("residual and copies", "add", times=2 + int(self.s.gated))

    def head_and_loss(self) -> None:
        """Final norm, head and cross-entropy, both ways."""
        s, n = self.s, self.n
        logits = n * s.vocab * FP32
        self.norm("forward")
        self.cast(True, n * s.hidden)
        self.linear_forward(s.hidden, s.vocab, False)
        self.cast(False, n * s.vocab)
        self.sum.add("loss", "loss_forward", "fp32", (n, s.vocab), logits)
        self.sum.add("loss", "loss_backward", "fp32", (n, s.vocab), logits)
        # the second of the two tensors that backward makes: the gradient of the log-probabilities
        self.sum.parts["loss"] += self.sum.tables["fresh", "fp32"].read((logits,)).seconds
        self.cast(True, n * s.vocab)
        self.linear_backward(s.hidden, s.vocab, False)
        self.cast(False, n * s.hidden)
        self.norm("backward")

    def embedding(self) -> None:
        """Look-ups and their gradients: a table of zeros to which the tokens' rows are added."""
        s, n = self.s, self.n
        rows = [(n, s.vocab)] + ([(self.t.seq, s.position_rows)] if s.learned_positions else [])
        for looked_up, table in rows:
            made = looked_up * s.hidden * FP32
            self.sum.add("embedding", "embedding_forward", "fp32", (looked_up, s.hidden), made)
            self.sum.add("embedding", "embedding_backward", "fp32", (looked_up, s.hidden))
            self.sum.add("embedding", "fill", "fp32", (table * s.hidden,), table * s.hidden * FP32)
        if s.learned_positions:
            # added forward; summed over the sequences backward, which reads as much
            self.stream("embedding", "add", times=2)
        if s.tied:
            # the gradients of the look-up and of the head are added into a third
            self.sum.add("embedding", "add", "fp32", (s.vocab * s.hidden,), s.vocab * s.hidden * FP32)


def _update(run: Resolved, total: _Sum) -> None:
    """Clipping and AdamW: a time for all parameters, and a cost of each tensor."""
    counts, optimizer = run.parameters, run.config.optimizer
    # half of the clip's traffic is the norm, half the scaling: without limits the norm is taken all the same. Cutting
    # values reads and writes twice as the scaling does once, and the limit of the norm then wants the norm of the rest
    norm, value = optimizer.clip_norm is not None, optimizer.clip_value is not None
    halves = 1 + norm + value * (2 + norm)
    for part, kernel in (("clipping", "clip"), ("optimizer", "adamw")):
        total.add(part, kernel, "fp32", (counts.total,))
        total.add(part, f"{kernel}_tensors", "fp32", (counts.tensors,))
    total.parts["clipping"] *= halves / 2
