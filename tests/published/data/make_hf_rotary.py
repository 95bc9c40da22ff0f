"""Makes hf_rotary.json: cos and sin that transformers' rotary embedding gives for each kind of scaling.

Run where transformers and torch are installed, neither of which the tests need: `python make_hf_rotary.py`. A config
is written as files of transformers 4 or 5 have it; its tables are those of a sequence of `length`, by type of layer.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import transformers

SMALL = {
    "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": None,
}  # fmt: skip
LATENT = SMALL | {
    "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 16,
    "v_head_dim": 5, "moe_intermediate_size": 24, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 3, "n_group": 2, "topk_group": 1,
}  # fmt: skip
SHORT, LONG = [1.0, 1.05, 1.1, 1.2, 1.4, 1.8, 2.0, 2.5], [1.0, 1.3, 2.0, 4.0, 8.0, 12.0, 20.0, 32.0]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
DEEPSEEK = {
    "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
PHI = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "llama linear": ("llama", SMALL | {"rope_scaling": {"type": "linear", "factor": 4.0}}, 40),
    "llama yarn": ("llama", SMALL | {"rope_theta": 500.0, "rope_scaling": YARN}, 40),
    "qwen2 yarn, original context not said": ("qwen2", SMALL | {"rope_scaling": {"type": "yarn", "factor": 4.0}}, 40),
    "qwen3 yarn, betas and factor of its own": (
        "qwen3",
        SMALL | {"rope_parameters": YARN | {"rope_theta": 1e3, "beta_fast": 8, "beta_slow": 0.5, "truncate": False,
                                            "attention_factor": 1.25}},
        40,
    ),
    "deepseek yarn": ("deepseek_v3", LATENT | {"rope_scaling": DEEPSEEK}, 40),
    "deepseek yarn, two mscales": (
        "deepseek_v3",
        LATENT | {"rope_scaling": DEEPSEEK | {"original_max_position_embeddings": 32, "mscale_all_dim": 0.4}},
        40,
    ),
    "gpt_oss, nothing said": ("gpt_oss", SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}, 40),
    "llama dynamic, within": ("llama", SMALL | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 64),
    "llama dynamic, beyond": ("llama", SMALL | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 160),
    "phi3 long": ("phi3", SMALL | {"original_max_position_embeddings": 16, "rope_scaling": PHI}, 17),
    "phi3 short": ("phi3", SMALL | {"original_max_position_embeddings": 16, "rope_scaling": PHI}, 16),
    "phi3 part of a head": (
        "phi3",
        SMALL | {"partial_rotary_factor": 0.5, "original_max_position_embeddings": 16,
                 "rope_scaling": PHI | {"short_factor": SHORT[:4], "long_factor": LONG[:4]}},
        20,
    ),
    "phi3 su, both contexts said": (
        "phi3",
        SMALL | {"original_max_position_embeddings": 32,
                 "rope_scaling": PHI | {"type": "su", "original_max_position_embeddings": 8}},
        20,
    ),
    "llama longrope, factor said": (
        "llama", SMALL | {"rope_scaling": PHI | {"factor": 8.0, "original_max_position_embeddings": 16}}, 20,
    ),
    "gemma3 old": (
        "gemma3_text",
        SMALL | {"head_dim": 16, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
                 "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        40,
    ),
    "gemma3 nothing said": ("gemma3_text", SMALL | {"head_dim": 16}, 40),
    "gemma3 new": (
        "gemma3_text",
        SMALL | {"head_dim": 16, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        }},
        40,
    ),
    "olmo3 scaled": ("olmo3", SMALL | {"rope_theta": 5e5, "rope_scaling": YARN | {"attention_factor": 1.2}}, 40),
    "olmo3 plain": ("olmo3", SMALL | {"rope_theta": 5e5}, 40),
}  # fmt: skip


def row(name: str) -> dict[str, Any]:
    """One case: its config as written, and cos and sin at three positions of each type of layer."""
    kind, values, length = CASES[name]
    config = transformers.AutoConfig.for_model(kind, **copy.deepcopy(values))
    model = transformers.AutoModelForCausalLM.from_config(config)
    rotary, at = model.model.rotary_emb, [1, length // 2, length - 1]
    positions, x = torch.arange(length)[None], torch.zeros(1, length, 4)
    types = ("full_attention", "sliding_attention") if kind in ("gemma3_text", "olmo3") else (None,)
    tables = {}
    for each in types:
        cos, sin = rotary(x, positions) if each is None else rotary(x, positions, each)
        half = cos.shape[-1] if kind == "gpt_oss" else cos.shape[-1] // 2  # others have each angle twice
        tables[each or "full_attention"] = [table[0, at, :half].tolist() for table in (cos, sin)]
    attention = model.model.layers[0].self_attn
    width = attention.qk_head_dim if hasattr(attention, "qk_head_dim") else attention.head_dim
    scores = attention.scaling * width**0.5 if "deepseek" in kind else 1.0
    config = {"model_type": kind} | values
    return {"case": name, "length": length, "at": at, "tables": tables, "scores": scores, "config": config}


def main() -> None:
    """Write the file beside this script, one case a line."""
    lines = ",\n".join(json.dumps(row(name), sort_keys=True) for name in CASES)
    version = f'"transformers": "{transformers.__version__}", "torch": "{torch.__version__}"'
    Path(__file__).with_name("hf_rotary.json").write_text(f'{{{version}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
