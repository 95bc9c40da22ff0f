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
LATENT |= {"qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
DENSE_LATENT = LATENT
LATENT = LATENT | {"moe_intermediate_size": 24}
LATENT |= {"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 2, "topk_group": 1}
GPT_NEO = {"vocab_size": 96, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 64}
DEEP = WIDE | {"num_hidden_layers": 12}
GLM_MOE = {"moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
ERNIE_MOE = {"moe_intermediate_size": 24, "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 2}
ERNIE_MOE |= {"moe_layer_end_index": 3}
LLAMA4 = {"intermediate_size_mlp": 80, "num_local_experts": 4, "head_dim": 12, "attention_chunk_size": 16}
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
        "12b": WIDE | {"use_parallel_residual": True, "qk_layernorm": True},
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
        "every other": QWEN_MOE | {"shared_expert_intermediate_size": 40, "decoder_sparse_step": 2},
        "dense first": QWEN_MOE | {"shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    },
    "qwen3_moe": {"plain": QWEN_MOE | {"head_dim": 12}, "dense first": QWEN_MOE | {"mlp_only_layers": [0, 1]}},
    "olmoe": {"plain": WIDE | {"num_experts": 6, "num_experts_per_tok": 2}},
    "phi": {"plain": WIDE | {"num_key_value_heads": None}, "normed": WIDE | {"qk_layernorm": True}},
    "gptj": {"plain": GPT | {"rotary_dim": 4}, "tied": GPT | {"rotary_dim": 8, "tie_word_embeddings": True}},
    "gpt_neo": {
        "plain": GPT_NEO | {"attention_types": [[["global", "local"], 2]]},
        "all global": GPT_NEO | {"attention_types": [[["global"], 4]], "intermediate_size": 80},
    },
    "codegen": {"plain": GPT | {"rotary_dim": 4}},
    "hunyuan_v1_dense": {"plain": WIDE | {"head_dim": 12}, "bias": WIDE | {"head_dim": 8, "attention_bias": True}},
    "minicpm3": {"plain": DENSE_LATENT, "without a latent": DENSE_LATENT | {"q_lora_rank": None}},
    "dots1": {
        "plain": WIDE | GLM_MOE | {"first_k_dense_replace": 1, "head_dim": 12, "n_shared_experts": 1},
        "bias": WIDE | GLM_MOE | {"first_k_dense_replace": 2, "attention_bias": True, "n_shared_experts": 2},
    },
    "gemma3_text": {"plain": DEEP | {"head_dim": 12, "sliding_window": 16}},
    "olmo3": {"plain": DEEP | {"num_hidden_layers": 8, "sliding_window": 16}},
    "granite": {
        "plain": WIDE,
        "biases": WIDE | {"attention_bias": True, "mlp_bias": True},
        "mlp bias": WIDE | {"mlp_bias": True},
    },
    "cohere": {"plain": WIDE, "plus": WIDE | {"use_qk_norm": True, "attention_bias": True}},
    "cohere2": {"plain": DEEP | {"num_hidden_layers": 8, "sliding_window": 16}},
    "glm": {"plain": WIDE | {"head_dim": 8, "attention_bias": True, "pad_token_id": 0}},
    "glm4": {"plain": WIDE | {"head_dim": 12, "pad_token_id": 0}},
    "exaone4": {
        "plain": DEEP | {"num_hidden_layers": 8, "sliding_window": 16},
        "small": WIDE | {"sliding_window": None, "layer_types": ["full_attention"] * 4},
    },
    "ernie4_5": {"plain": WIDE | {"head_dim": 12}, "bias": WIDE | {"use_bias": True, "tie_word_embeddings": False}},
    "seed_oss": {
        "plain": WIDE | {"head_dim": 12},
        "projection": WIDE | {"attention_bias": False, "attention_out_bias": True},
        "biases": WIDE | {"attention_out_bias": True, "mlp_bias": True},
        "queries and MLP": WIDE | {"mlp_bias": True},
    },
    "helium": {"plain": WIDE | {"head_dim": 8}, "bias": WIDE | {"head_dim": 8, "attention_bias": True}},
    "arcee": {"plain": WIDE, "bias": WIDE | {"mlp_bias": True}},
    "phimoe": {"plain": WIDE | {"num_local_experts": 4, "attention_bias": True, "lm_head_bias": True}},
    "granitemoe": {"plain": WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}},
    "glm4_moe": {
        "plain": WIDE | GLM_MOE | {"first_k_dense_replace": 1, "attention_bias": True, "head_dim": 12},
        "normed": WIDE | GLM_MOE | {"first_k_dense_replace": 2, "use_qk_norm": True, "n_shared_experts": 2},
    },
    "ernie4_5_moe": {
        "plain": WIDE | ERNIE_MOE | {"moe_layer_start_index": 1},
        "interleaved": WIDE | ERNIE_MOE | {"moe_layer_start_index": 1, "moe_layer_interval": 2},
    },
    "gpt_oss": {"plain": WIDE | {"head_dim": 12, "num_local_experts": 4, "sliding_window": 16}},
    "llama4_text": {
        "plain": WIDE | LLAMA4,
        "interleaved": WIDE | LLAMA4 | {"interleave_moe_layer_step": 2, "attention_bias": True},
    },
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
    # a shared tensor comes once; ERNIE's correction of its router is a parameter that no gradient changes
    numel = sum(p.numel() for p in model.parameters() if p.requires_grad)
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
