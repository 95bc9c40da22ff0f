"""The reference model, line by line, on tensors that weigh but hold nothing: `reference_trainer/model.py`'s mirror.

Names that PyTorch's version keeps alive are kept alive here, and what it drops is dropped: that is what makes the
peaks exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner import operators as op
from planner.autograd import Autograd, Parameter, Tensor
from planner.config import RunConfig, TrainingConfig
from planner.model_config import ModelConfig
from planner.operators import FP32
from planner.shape import Shape, recipe_of, shape_of


@dataclass(frozen=True, slots=True)
class Facts:
    """What the walk knows beside the autograd: the model, the run, and the sizes that follow."""

    model: ModelConfig
    training: TrainingConfig
    shape: Shape
    compute: int  # bytes of an element in the compute type
    weights: int  # bytes of a weight

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.training.micro_batch * self.training.seq


def facts_of(config: RunConfig) -> Facts:
    """What a config says about the walk."""
    recipe = recipe_of(config)
    shape = shape_of(config.model)
    return Facts(config.model, config.training, shape, recipe.compute_bytes, recipe.weights_bytes_per_parameter)


class Linear:
    """Weight and bias of a linear layer."""

    __slots__ = ("bias", "inputs", "weight")

    def __init__(self, inputs: int, outputs: int, bias: int, item: int) -> None:
        self.inputs = inputs
        self.weight = Parameter(inputs * outputs, item)
        self.bias = Parameter(outputs, item) if bias else None

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        return op.linear(e, x, self.weight, self.bias, self.inputs)


class Norm:
    """A norm over `width` channels."""

    __slots__ = ("kind", "parameters", "width")

    def __init__(self, kind: str, width: int, vectors: int, item: int) -> None:
        self.kind, self.width = kind, width
        self.parameters = tuple(Parameter(width, item) for _ in range(vectors))

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        norm = op.layer_norm if self.kind == "layernorm" else op.rms_norm
        return norm(e, x, self.width, self.parameters)


class Attention:
    """Fused projection of q, k and v, rotary embedding, the core, and the output projection."""

    def __init__(self, f: Facts) -> None:
        s, w = f.shape, f.weights
        self.f = f
        self.qkv = Linear(s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias, w)
        self.proj = Linear(s.query_width, s.hidden, s.proj_bias, w)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = "blocks.attention.qkv"
        if self.f.training.activation_checkpointing == "selective":
            qkv = self.qkv(e, x)
            e.label = "blocks.attention"
            y = e.checkpoint(self.core, qkv)
            del qkv
        else:
            y = self.core(e, self.qkv(e, x))
        e.label = "blocks.attention.proj"
        return self.proj(e, y)

    def core(self, e: Autograd, qkv: Tensor) -> Tensor:
        e.label = "blocks.attention"
        f, s, n = self.f, self.f.shape, self.f.tokens
        query, key, value = op.split(e, qkv, (n * s.query_width, n * s.key_width, n * s.key_width))
        if f.model.position == "rotary":
            query = op.turn(e, query)
            key = op.turn(e, key)
        return op.flash_attention(e, query, key, value, n * s.heads)


class Mlp:
    """Two matrices around an activation, or three with a gate."""

    def __init__(self, f: Facts) -> None:
        s, w = f.shape, f.weights
        self.gate = Linear(s.hidden, s.ffn, s.mlp_bias, w) if s.gated else None
        self.up = Linear(s.hidden, s.ffn, s.mlp_bias, w)
        self.down = Linear(s.ffn, s.hidden, s.mlp_bias, w)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        if self.gate is None:
            e.label = "blocks.mlp.up"
            wide = self.up(e, x)
            e.label = "blocks.mlp"
            act = op.pointwise(e, wide)
            del wide
        else:
            act = self.gated(e, x)
        e.label = "blocks.mlp.down"
        return self.down(e, act)

    def gated(self, e: Autograd, x: Tensor) -> Tensor:
        assert self.gate is not None
        e.label = "blocks.mlp.gate"
        gate = self.gate(e, x)
        e.label = "blocks.mlp"
        act = op.pointwise(e, gate)
        del gate
        e.label = "blocks.mlp.up"
        up = self.up(e, x)
        e.label = "blocks.mlp"
        return op.multiply(e, act, up)


class Block:
    """One transformer block."""

    def __init__(self, f: Facts) -> None:
        s = f.shape
        self.f = f
        self.attention_norm = Norm(f.model.norm, s.hidden, s.norm_vectors, f.weights)
        self.attention = Attention(f)
        self.mlp_norm = Norm(f.model.norm, s.hidden, s.norm_vectors, f.weights)
        self.mlp = Mlp(f)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        compute = self.f.compute
        e.label = "blocks.attention_norm"
        x = op.add(e, x, self.attention(e, op.cast(e, self.attention_norm(e, x), compute)))
        e.label = "blocks.mlp_norm"
        return op.add(e, x, self.mlp(e, op.cast(e, self.mlp_norm(e, x), compute)))


class Network:
    """The whole decoder; blocks are made as they are asked for."""

    def __init__(self, f: Facts) -> None:
        s = f.shape
        self.f = f
        self.embedding = Parameter(s.vocab * s.hidden, f.weights)
        self.position = Parameter(s.context * s.hidden, f.weights) if s.learned_positions else None
        self.norm = Norm(f.model.norm, s.hidden, s.norm_vectors, f.weights)
        self.head = Linear(s.hidden, s.vocab, 0, f.weights)
        if s.tied:
            self.head.weight = self.embedding

    def embed(self, e: Autograd, ids: Tensor) -> Tensor:
        s = self.f.shape
        e.label = "embedding"
        x = op.embedding(e, ids, self.embedding, s.hidden)
        if self.position is not None:
            e.label = "position"
            positions = e.new(self.f.training.seq, op.INDEX)
            looked_up = op.embedding(e, positions, self.position, s.hidden)
            del positions
            x = op.add(e, x, looked_up)
        return x

    def last_norm(self, e: Autograd, x: Tensor) -> Tensor:
        """What the head reads."""
        e.label = "norm"
        hidden = op.cast(e, self.norm(e, x), self.f.compute)
        return op.mark(e, hidden, lambda: e.ledger.phase("backward_block"))

    def loss(self, e: Autograd, hidden: Tensor, targets: Tensor) -> Tensor:
        """Head and cross-entropy."""
        e.label = "head"
        logits = self.head(e, hidden)
        logits.call_it("logits")
        wide = op.cast(e, logits, FP32)
        del logits
        e.label = "loss"
        wide.call_it("logits")
        return op.cross_entropy(e, wide, targets)
