"""Every parameter tensor of the reference model by name and shape: what optimizers, files and clipping count.

The sums over this list are the counts of `counts.py`, which come from formulas: a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from planner.config.model import ModelConfig
from planner.counts.by_model import by_model
from planner.counts.roles import Role
from planner.counts.shape import Shape, has_experts, shape_of


@dataclass(frozen=True, slots=True)
class ParameterTensor:
    """One tensor's name without block number, its shape, its role, and how often it occurs."""

    name: str
    shape: tuple[int, ...]
    role: Role
    times: int = 1

    @property
    def count(self) -> int:
        """Elements of one of them."""
        return prod(self.shape)


@by_model
def parameter_tensors(model: ModelConfig) -> tuple[ParameterTensor, ...]:
    """The tensors of a model; those that all blocks share come once, with their number."""
    s = shape_of(model)
    moe_layers = s.layers - s.dense_layers
    found = [ParameterTensor("embedding.weight", (s.vocab, s.hidden), Role.TABLE)]
    if s.learned_positions:
        found.append(ParameterTensor("position.weight", (s.position_rows, s.hidden), Role.TABLE))
    norms = s.end_norms + s.layers * s.block_norms
    found += _vectors("norm", s.hidden, s.norm_vectors, norms)
    found += _times(_attention(model, s), s.layers)
    found += _times(_mlp("mlp", s, s.ffn), s.dense_layers)
    found += _times(_experts(model, s), moe_layers)
    if not s.tied:
        found.append(ParameterTensor("head.weight", (s.vocab, s.hidden), Role.HEAD))
    if s.head_bias:
        found.append(ParameterTensor("head.bias", (s.vocab,), Role.BIAS))
    return tuple(t for t in found if t.times)


def named_tensors(model: ModelConfig) -> Iterator[ParameterTensor]:
    """Every tensor by itself, under the name that the reference trainer and its checkpoints give it, in their order."""
    s = shape_of(model)
    before, after = model.norm_placement in ("pre", "both"), model.norm_placement in ("post", "both")
    attention, dense, moe = list(_attention(model, s)), list(_mlp("mlp", s, s.ffn)), list(_experts(model, s))

    def norm(name: str, there: bool = True) -> list[ParameterTensor]:
        return _vectors(name, s.hidden, s.norm_vectors, 1) if there else []

    yield ParameterTensor("embedding.weight", (s.vocab, s.hidden), Role.TABLE)
    yield from norm("embedding_norm", model.embedding_norm)
    if s.learned_positions:
        yield ParameterTensor("position.weight", (s.position_rows, s.hidden), Role.TABLE)
    for index in range(s.layers):
        inside = [*norm("attention_norm", before), *attention, *norm("attention_post_norm", after)]
        inside += norm("mlp_norm", before and model.residual != "parallel-one-norm")
        inside += [*(moe if has_experts(model, index) else dense), *norm("mlp_post_norm", after)]
        yield from (replace(t, name=f"blocks.{index}.{t.name}") for t in inside)
    yield from norm("norm")
    if not s.tied:
        yield ParameterTensor("head.weight", (s.vocab, s.hidden), Role.HEAD)
    if s.head_bias:
        yield ParameterTensor("head.bias", (s.vocab,), Role.BIAS)


def _times(tensors: Iterator[ParameterTensor], times: int) -> list[ParameterTensor]:
    return [replace(t, times=t.times * times) for t in tensors]


def _vectors(name: str, width: int, vectors: int, times: int) -> list[ParameterTensor]:
    parts = (("weight", Role.GAIN), ("bias", Role.BIAS))
    return [ParameterTensor(f"{name}.{part}", (width,), role, times) for part, role in parts[:vectors]]


def _linear(name: str, inputs: int, outputs: int, bias: int, role: Role = Role.MATRIX) -> Iterator[ParameterTensor]:
    yield ParameterTensor(f"{name}.weight", (outputs, inputs), role)
    if bias:
        yield ParameterTensor(f"{name}.bias", (outputs,), Role.BIAS)


def _attention(model: ModelConfig, s: Shape) -> Iterator[ParameterTensor]:
    mla = model.mla
    if mla is None:
        yield from _linear("attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias)
        if s.normed_query:
            yield from _vectors("attention.query_norm", s.normed_query, s.qk_norm_vectors, 1)
            yield from _vectors("attention.key_norm", s.normed_key, s.qk_norm_vectors, 1)
        if s.attention_sinks:
            yield ParameterTensor("attention.sinks", (s.heads,), Role.BIAS)
        yield from _linear("attention.proj", s.query_width, s.hidden, s.proj_bias, Role.RESIDUAL_MATRIX)
        return
    if mla.q_lora_rank:
        yield from _linear("attention.query_down", s.hidden, mla.q_lora_rank, 0)
        yield ParameterTensor("attention.query_norm.weight", (mla.q_lora_rank,), Role.GAIN)
        yield from _linear("attention.query", mla.q_lora_rank, s.query_width, 0)
    else:
        yield from _linear("attention.query", s.hidden, s.query_width, 0)
    latent = mla.kv_lora_rank + mla.qk_rope_head_dim
    yield from _linear("attention.kv_down", s.hidden, latent, 0)
    yield ParameterTensor("attention.kv_norm.weight", (mla.kv_lora_rank,), Role.GAIN)
    yield from _linear("attention.kv_up", mla.kv_lora_rank, s.heads * (mla.qk_nope_head_dim + mla.v_head_dim), 0)
    yield from _linear("attention.proj", s.value_width, s.hidden, 0, Role.RESIDUAL_MATRIX)


def _mlp(name: str, s: Shape, ffn: int) -> Iterator[ParameterTensor]:
    if s.gated:
        yield from _linear(f"{name}.gate", s.hidden, ffn, s.mlp_bias)
    yield from _linear(f"{name}.up", s.hidden, ffn, s.mlp_bias)
    yield from _linear(f"{name}.down", ffn, s.hidden, s.mlp_bias, Role.RESIDUAL_MATRIX)


def _experts(model: ModelConfig, s: Shape) -> Iterator[ParameterTensor]:
    moe = model.moe
    if moe is None:
        return
    yield from _linear("mlp.router", s.hidden, moe.experts, int(moe.router_bias))
    for name in ("gate", "up", "down")[0 if s.gated else 1 :]:
        sides = (moe.expert_ffn, s.hidden) if name == "down" else (s.hidden, moe.expert_ffn)
        role = Role.RESIDUAL_EXPERTS if name == "down" else Role.EXPERTS
        yield ParameterTensor(f"mlp.experts.{name}", (moe.experts, *sides), role)
        if moe.expert_biases:  # those of all experts as one vector
            yield ParameterTensor(f"mlp.experts.{name}_bias", (moe.experts * sides[1],), Role.BIAS)
    if moe.shared_ffn:
        for tensor in _mlp("mlp.shared", s, moe.shared_ffn):
            if tensor.role is not Role.BIAS:  # shared experts have no biases
                yield tensor
        if moe.shared_gate:
            yield from _linear("mlp.shared_gate", s.hidden, 1, 0)
