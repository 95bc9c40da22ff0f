"""Exact parameter counts of a model: the formulas of `params.py`, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from planner.config.model import ModelConfig, MoeConfig
from planner.counts.by_model import by_model
from planner.counts.shape import Shape, shape_of
from planner.counts.tensors import parameter_tensors
from planner.formulas import params
from planner.formulas.recording import is_recording, whole


@dataclass(frozen=True, slots=True)
class Parameters:
    """Exact counts. `active` is what one token uses: all of a dense model, some experts of a mixture.

    `linear` are the weights of all linear layers and the head; `active_linear` those that one token meets.
    `tensors` is the number of parameter tensors of the reference model, `largest` the elements of the largest one.
    """

    total: int
    active: int
    embedding: int
    non_embedding: int
    linear: int
    active_linear: int
    tensors: int
    largest: int


@dataclass(frozen=True, slots=True)
class Part:
    """Counts of one sub-layer: parameters, and the weights of its linear layers."""

    total: int
    linear: int


def parameters_of(model: ModelConfig) -> Parameters:
    """Exact counts of a model, all blocks, tables and norms. Counted once, but where the calls are recorded."""
    return _count(model) if is_recording() else _counted_before(model)


def _count(model: ModelConfig) -> Parameters:
    s = shape_of(model)
    attention, dense = attention_part(model, s), mlp_part(s, s.ffn)
    experts = active = moe_part(model, s) if model.moe else dense
    if model.moe:
        active = active_moe_part(model, s)
    qk = whole(params.qk_norm_parameters(s.normed_query, s.normed_key, s.qk_norm_vectors))
    sinks = s.layers * whole(params.attention_sink_parameters(s.heads)) if s.attention_sinks else 0
    biases = whole(params.head_bias_parameters(s.vocab)) if s.head_bias else 0

    def blocks(mlp: Part) -> int:
        moe_layers = s.layers - s.dense_layers
        first, second = (
            whole(params.block_parameters(attention.total, qk, part.total, s.block_norms, s.norm_vectors, s.hidden))
            for part in (dense, mlp)
        )
        return s.dense_layers * first + moe_layers * second

    def linear(mlp: Part) -> int:
        per_kind = s.dense_layers * dense.linear + (s.layers - s.dense_layers) * mlp.linear
        return whole(params.linear_parameters(s.layers * attention.linear + per_kind, s.vocab, s.hidden))

    tables = whole(
        params.embedding_parameters(s.vocab, s.hidden, s.embedding_tables, s.position_rows, s.learned_positions)
    )
    tensors = parameter_tensors(model)
    more = sinks + biases  # in neither a block's formula nor the tables
    total = whole(params.total_parameters(blocks(experts) + more, tables, s.end_norms, s.norm_vectors, s.hidden))
    used = whole(params.total_parameters(blocks(active) + more, tables, s.end_norms, s.norm_vectors, s.hidden))
    return Parameters(
        total=total,
        active=used,
        embedding=tables,
        non_embedding=whole(params.non_embedding_parameters(total, tables)),
        linear=linear(experts),
        active_linear=linear(active),
        tensors=sum(t.times for t in tensors),
        largest=max(t.count for t in tensors),
    )


_counted_before = by_model(_count)


def attention_part(model: ModelConfig, s: Shape) -> Part:
    """One block's attention without the norms of queries and keys (those of latent attention included)."""
    mla = model.mla
    if mla is None:
        total = whole(params.attention_parameters(s.hidden, s.query_width, s.key_width, s.qkv_bias, s.proj_bias))
        return Part(
            total=total,
            linear=total - s.qkv_bias * (s.query_width + 2 * s.key_width) - s.proj_bias * s.hidden,
        )
    rank = mla.q_lora_rank
    queries = (
        params.latent_query_parameters(s.hidden, rank, s.query_width)
        if rank
        else params.direct_query_parameters(s.hidden, s.query_width)
    )
    total = whole(
        params.latent_attention_parameters(
            queries, s.hidden, mla.kv_lora_rank, s.heads, mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim
        )
    )
    return Part(total, total - mla.kv_lora_rank - (rank or 0))


def mlp_part(s: Shape, ffn: int) -> Part:
    """One block's ordinary MLP."""
    return Part(
        total=whole(params.mlp_parameters(s.hidden, ffn, s.mlp_matrices, s.mlp_bias)),
        linear=s.mlp_matrices * s.hidden * ffn,
    )


def moe_part(model: ModelConfig, s: Shape) -> Part:
    """One block's experts, all of them; the reference model holds each matrix of all experts in one tensor."""
    m = model.moe
    assert m is not None
    total = whole(
        params.moe_parameters(s.hidden, m.experts, m.expert_ffn, s.mlp_matrices, m.shared_ffn, int(m.shared_gate))
    )
    return Part(total + _expert_biases(m, s, m.experts), total)


def _expert_biases(m: MoeConfig, s: Shape, met: int) -> int:
    """Biases of a router and of `met` experts."""
    found = whole(params.router_bias_parameters(m.experts)) if m.router_bias else 0
    if m.expert_biases:
        found += whole(params.expert_bias_parameters(s.hidden, met, m.expert_ffn, s.mlp_matrices))
    return found


def active_moe_part(model: ModelConfig, s: Shape) -> Part:
    """What one token uses of one block's experts."""
    m = model.moe
    assert m is not None
    total = whole(
        params.active_moe_parameters(
            s.hidden, m.experts, m.top_k, m.expert_ffn, s.mlp_matrices, m.shared_ffn, int(m.shared_gate)
        )
    )
    return Part(total + _expert_biases(m, s, m.top_k), total)


def compute_parameters(model: ModelConfig) -> int:
    """The parameters that rules of size go by: the number typed, else the exact count; of experts those in use.

    One token of a mixture of experts meets its `active` parameters: the N of 6*N*D. A batch and a peak rate follow the
    compute of a run (DeepSeek LLM, arXiv 2401.02954, section 3.1), and so do tokens per parameter (arXiv 2203.15556).
    """
    if model.moe is not None:
        return parameters_of(model).active
    return model.nominal_parameters or parameters_of(model).total
