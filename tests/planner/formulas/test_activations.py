"""The closed forms of saved bytes against the simulation: one number in two ways, for two common styles of model."""

from __future__ import annotations

import itertools

import pytest

from planner.config.run import RunConfig
from planner.counts.run import recipe_of, resolve
from planner.counts.shape import shape_of
from planner.formulas import activations as a
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.phases import simulate_run

CASES = list(itertools.product(("gpt2", "llama"), ("none", "selective", "full"), ("bf16", "fp32")))


def closed_forms(config: RunConfig) -> dict[str, int]:
    """Saved bytes by operator; a block's lines hold all blocks."""
    s, t, recipe = shape_of(config.model), config.training, recipe_of(config)
    n, c, cast = t.micro_batch * t.seq, recipe.compute_bytes, recipe.weight_casts_bytes_per_linear_weight
    norm = a.saved_by_norm(n, s.hidden, recipe.residual_bytes, s.stat_vectors)
    lines = {"embedding": a.saved_by_embedding(n)}
    if s.learned_positions:
        lines["position"] = a.saved_by_positions(t.seq, 1)
    if t.activation_checkpointing == "full":
        lines["blocks"] = s.layers * a.saved_by_checkpointed_block(n, s.hidden, recipe.residual_bytes)
    else:
        lines |= {f"blocks.{name}": s.layers * size for name, size in block_forms(config).items()}
    lines["norm"] = norm
    lines["head"] = a.saved_by_linear(n, s.hidden, s.vocab, c, cast)
    lines["loss"] = a.saved_by_loss(n, s.vocab)
    return {name: int(size) for name, size in lines.items() if size}


def block_forms(config: RunConfig) -> dict[str, int]:
    """The lines of one block that is not recomputed as a whole."""
    s, t, recipe = shape_of(config.model), config.training, recipe_of(config)
    n, c, cast = t.micro_batch * t.seq, recipe.compute_bytes, recipe.weight_casts_bytes_per_linear_weight
    norm = a.saved_by_norm(n, s.hidden, recipe.residual_bytes, s.stat_vectors)
    block = {
        "attention_norm": norm,
        "attention.qkv": a.saved_by_linear(n, s.hidden, s.query_width + 2 * s.key_width, c, cast),
        "attention": a.saved_by_attention(n, s.query_width, s.key_width, s.heads, s.rotary_factor, c),
        "attention.proj": a.saved_weight_cast(s.query_width, s.hidden, cast),
        "mlp_norm": norm,
        "mlp.gate" if s.gated else "mlp.up": a.saved_by_linear(n, s.hidden, s.ffn, c, cast),
        "mlp": a.saved_by_swiglu(n, s.ffn, c) if s.gated else a.saved_by_gelu(n, s.ffn, c),
        "mlp.down": a.saved_by_linear(n, s.ffn, s.hidden, c, cast),
    }
    if t.activation_checkpointing == "selective":
        block["attention"] = a.saved_by_recomputed_attention(n, s.query_width, s.key_width, c)
        block["attention.proj"] = a.saved_by_linear(n, s.query_width, s.hidden, c, cast)
    if s.gated:
        block["mlp.up"] = a.saved_weight_cast(s.hidden, s.ffn, cast)
    return block


@pytest.mark.parametrize(("family", "checkpointing", "precision"), CASES)
def test_closed_forms_are_what_the_walk_saves(family: str, checkpointing: str, precision: str) -> None:
    flags = Flags(
        family=family,
        layers="5",
        hidden="192",
        heads="6",
        kv_heads="2" if family == "llama" else None,
        vocab="777",
        seq="96",
        micro_batch="3",
        steps="10",
        precision=precision,
        activation_checkpointing=checkpointing,
        runtime="eager",
    )
    config = draft(flags, as_of="2026-11-21", version="test")
    assert closed_forms(config) == simulate_run(resolve(config)).saved_by_operator
