"""A model as plain numbers: every branch on a choice of its architecture (gated? tied?) ends here."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.by_model import by_model


@dataclass(frozen=True, slots=True)
class Shape:
    """A model as numbers; names and meanings are those of `quantities.py`."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    query_width: int
    key_width: int
    value_width: int
    ffn: int
    vocab: int
    context: int
    position_rows: int
    mlp_matrices: int
    norm_vectors: int
    block_norms: int
    end_norms: int
    qkv_bias: int
    proj_bias: int
    mlp_bias: int
    normed_query: int
    normed_key: int
    learned_positions: int
    rotary_factor: int
    stat_vectors: int
    embedding_tables: int
    dense_layers: int
    qk_norm_vectors: int
    head_bias: int
    attention_sinks: int

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate."""
        return self.mlp_matrices == 3

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding table."""
        return self.embedding_tables == 1


VECTORS = {"gain+bias": 2, "gain": 1, "none": 0}
BLOCK_NORMS = {"pre": 2, "post": 2, "both": 4}
GATED = ("swiglu", "geglu")
BIASED = {  # of the places qkv, proj, mlp
    "none": (), "qkv": ("qkv",), "proj": ("proj",), "mlp": ("mlp",), "attention": ("qkv", "proj"),
    "qkv+mlp": ("qkv", "mlp"), "proj+mlp": ("proj", "mlp"), "all": ("qkv", "proj", "mlp"),
}  # fmt: skip


def is_kth_block(block: int, every: int | None) -> bool:
    """Whether block `block`, counted from 0, is one of "every k-th block", which counts from 1; False without a k."""
    return every is not None and (block + 1) % every == 0


def is_recomputed(training: TrainingConfig, block: int) -> bool:
    """Whether block `block`, counted from 0, keeps only its input: the first of every k blocks, so that block 0 is."""
    whole = training.activation_checkpointing in ("full", "offloaded")
    return whole and block % training.activation_checkpointing_every == 0


def recomputed_blocks(training: TrainingConfig, layers: int) -> int:
    """Number of blocks, of `layers`, for which `is_recomputed`."""
    whole = training.activation_checkpointing in ("full", "offloaded")
    return -(-layers // training.activation_checkpointing_every) if whole else 0


def alternation(model: ModelConfig, training: TrainingConfig) -> int:
    """Number of blocks after which the kinds of blocks repeat."""
    everies = [model.no_position_every, model.full_attention_every, model.moe.every if model.moe else None]
    return lcm(training.activation_checkpointing_every, *(every for every in everies if every))


def has_window(model: ModelConfig, block: int) -> bool:
    """Whether attention in this block sees a sliding window, or a chunk, of keys only."""
    return _window(model) is not None and not is_kth_block(block, model.full_attention_every)


def has_experts(model: ModelConfig, block: int) -> bool:
    """Whether this block has experts in place of the MLP."""
    moe = model.moe
    after = moe is not None and block >= moe.first_dense_layers
    return after and (moe is None or moe.every is None or is_kth_block(block, moe.every))


def blocks_with_experts(model: ModelConfig) -> int:
    """Number of blocks for which `has_experts`."""
    return model.layers - shape_of(model).dense_layers


def _window(model: ModelConfig) -> int | None:
    """Keys that a query sees at most, in the blocks with a sliding window or with chunks."""
    return model.attention_chunk if model.sliding_window is None else model.sliding_window


def has_rotary(model: ModelConfig, block: int) -> bool:
    """Whether this block has rotary embedding."""
    return model.position == "rotary" and not is_kth_block(block, model.no_position_every)


def blocks_with_rotary(model: ModelConfig) -> int:
    """Number of blocks for which `has_rotary`."""
    every = model.no_position_every
    return 0 if model.position != "rotary" else model.layers - (model.layers // every if every else 0)


@by_model
def shape_of(model: ModelConfig) -> Shape:
    """The numbers of a model."""
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    one_norm = model.residual == "parallel-one-norm"
    qk, biased, vectors = model.qk_norm, BIASED[model.biases], VECTORS[model.norm_parameters]
    return Shape(
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        query_width=query,
        key_width=key,
        value_width=model.heads * (model.mla.v_head_dim if model.mla else model.head_dim),
        ffn=model.ffn,
        vocab=model.vocab,
        context=model.context,
        position_rows=model.position_rows or model.context,
        mlp_matrices=3 if model.mlp in GATED else 2,
        norm_vectors=vectors,
        block_norms=1 if one_norm else BLOCK_NORMS[model.norm_placement],
        end_norms=1 + model.embedding_norm,
        qkv_bias=int("qkv" in biased),
        proj_bias=int("proj" in biased),
        mlp_bias=int("mlp" in biased),
        normed_query={"none": 0, "head": model.head_dim, "each-head": query, "full": query}[qk],
        normed_key={"none": 0, "head": model.head_dim, "each-head": key, "full": key}[qk],
        learned_positions=int(model.position == "learned"),
        rotary_factor=int(model.position == "rotary"),
        stat_vectors=2 if model.norm == "layernorm" else 1,
        embedding_tables=1 if model.tied_embeddings else 2,
        dense_layers=sum(not has_experts(model, block) for block in range(model.layers)),
        qk_norm_vectors=1 if qk == "each-head" else vectors,
        head_bias=int(model.head_bias),
        attention_sinks=int(model.attention_sinks),
    )


def attended_keys(model: ModelConfig, seq: int) -> int:
    """Keys that one query's scores are counted against, summed over the blocks, causal mask aside."""
    window = _window(model)
    if window is None:
        return model.layers * seq
    full = model.layers // model.full_attention_every if model.full_attention_every else 0
    return full * seq + (model.layers - full) * min(seq, window)
