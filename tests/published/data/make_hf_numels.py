"""Makes hf_numels_VERSION.json: tiny configs of every supported model_type and the parameters that transformers builds.

Run where transformers and torch are installed, neither of which the tests need: `python make_hf_numels.py`. The models
are built on the meta device, without weights; what a version of transformers does not know is left out.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

TINY = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
CONTEXT = TINY | {"max_position_embeddings": 64}
WIDE = CONTEXT | {"intermediate_size": 48, "num_key_value_heads": 2}
GPT = {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
QWEN_MOE = WIDE | {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2}
LATENT = CONTEXT | {"intermediate_size": 48, "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 10}
LATENT |= {"qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5, "moe_intermediate_size": 24}
LATENT |= {"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 2, "topk_group": 1}
CASES: dict[str, dict[str, dict[str, object]]] = {
    "gpt2": {"plain": GPT, "inner width": GPT | {"n_inner": 40}, "untied": GPT | {"tie_word_embeddings": False}},
    "gpt_bigcode": {"multi-query": GPT, "all heads": GPT | {"multi_query": False}},
    "gpt_neox": {
        "parallel": CONTEXT | {"intermediate_size": 48},
        "sequential": CONTEXT | {"intermediate_size": 48, "use_parallel_residual": False, "tie_word_embeddings": True},
    },
    "opt": {"plain": CONTEXT | {"ffn_dim": 48, "word_embed_proj_dim": 32}},
    "bloom": {"plain": {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 4}},
    "mpt": {"plain": {"vocab_size": 96, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}},
    "falcon": {
        "7b": TINY,
        "rw-1b": TINY | {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
        "all heads": TINY | {"multi_query": False},
        "40b": TINY | {"new_decoder_architecture": True, "num_kv_heads": 2},
        "11b": TINY | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        "inner width": TINY | {"ffn_hidden_size": 80, "tie_word_embeddings": False},
    },
    "stablelm": {
        "plain": WIDE,
        "bias": WIDE | {"use_qkv_bias": True},
        "parallel": WIDE | {"use_parallel_residual": True},
    },
    "starcoder2": {"plain": WIDE | {"sliding_window": 16}, "no bias": WIDE | {"use_bias": False}},
    "nemotron": {"plain": WIDE, "head": WIDE | {"head_dim": 12}},
    "llama": {
        "plain": WIDE,
        "multi-head": WIDE | {"num_key_value_heads": 4},
        "tied": WIDE | {"tie_word_embeddings": True},
        "attention bias": WIDE | {"attention_bias": True},
        "all biases": WIDE | {"attention_bias": True, "mlp_bias": True},
        "head": WIDE | {"head_dim": 12},
    },
    "mistral": {"window": WIDE | {"sliding_window": 16}, "head": WIDE | {"head_dim": 12, "sliding_window": None}},
    "qwen2": {
        "plain": WIDE,
        "tied": WIDE | {"tie_word_embeddings": True},
        "window": WIDE | {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
    },
    "qwen3": {"plain": WIDE | {"head_dim": 12}, "bias": WIDE | {"head_dim": 12, "attention_bias": True}},
    "gemma": {"plain": WIDE | {"head_dim": 12}},
    "gemma2": {"plain": WIDE | {"head_dim": 12, "sliding_window": 16}},
    "olmo": {"plain": WIDE, "tied": WIDE | {"tie_word_embeddings": True}},
    "olmo2": {"plain": WIDE},
    "phi3": {"plain": WIDE | {"pad_token_id": 0}},
    "smollm3": {
        "plain": WIDE | {"pad_token_id": 0},
        "all rotary": WIDE | {"no_rope_layers": [1, 1, 1, 1], "pad_token_id": 0},
    },
    "nanochat": {"plain": WIDE},
    "mixtral": {"plain": WIDE | {"num_local_experts": 4}},
    "qwen2_moe": {
        "plain": QWEN_MOE | {"shared_expert_intermediate_size": 40},
        "dense first": QWEN_MOE | {"shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    },
    "qwen3_moe": {"plain": QWEN_MOE | {"head_dim": 12}, "dense first": QWEN_MOE | {"mlp_only_layers": [0, 1]}},
    "olmoe": {"plain": WIDE | {"num_experts": 6, "num_experts_per_tok": 2}},
    "deepseek_v2": {
        "lite": LATENT | {"q_lora_rank": None, "first_k_dense_replace": 1},
        "plain": LATENT | {"first_k_dense_replace": 1},
    },
    "deepseek_v3": {
        "plain": LATENT | {"first_k_dense_replace": 2},
        "all dense": LATENT | {"first_k_dense_replace": 4},
    },
}  # fmt: skip


def row(kind: str, name: str, values: dict[str, object]) -> dict[str, object] | None:
    """One case, None where this version of transformers has no such model_type."""
    try:
        config = transformers.AutoConfig.for_model(kind, **values)
    except ValueError:
        return None
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    numel = sum(p.numel() for p in model.parameters())  # a shared tensor comes once
    return {"case": f"{kind} {name}", "numel": numel, "config": json.loads(config.to_json_string(use_diff=True))}


def main() -> None:
    """Write the file of this version beside this script, one case a line."""
    rows = [row(kind, name, values) for kind, variants in CASES.items() for name, values in variants.items()]
    lines = ",\n".join(json.dumps(r, sort_keys=True) for r in rows if r)
    version = transformers.__version__
    path = Path(__file__).with_name(f"hf_numels_{version}.json")
    path.write_text(f'{{"transformers": "{version}", "torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
