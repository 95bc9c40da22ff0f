"""Every field that a user may type: its panel, its placeholder, its sentence, and its short name. One table.

Read by the command's `--help`, by the form of the terminal planner, and by whatever asks line by line. No imports:
`gptplan --help` reads it.
"""

from __future__ import annotations

MODEL, RUN, BATCH, NUMERICS, RATE = "Model", "Run", "Batch", "Numerics", "Learning rate"
HARDWARE, LOOP = "Hardware and price", "Training loop"

SWITCHES = {"tied": ("tied", "untied")}  # flags that stand alone, and the text that each stands for

# what every plan is asked first, in this order
MAIN = (
    "params", "model", "tokens", "seq", "gpu", "gpus", "micro_batch", "global_batch_tokens", "precision",
    "activation_checkpointing", "peak_lr", "warmup_steps", "price_per_gpu_hour",
)  # fmt: skip

# field of Typed: (panel, placeholder, help)
FLAGS: dict[str, tuple[str, str, str]] = {
    "params": (MODEL, "N", "Parameters, such as 125M: a GPT-2 shape is picked by a stated rule, N stays as typed."),
    "model": (MODEL, "NAME", "Model preset, such as gpt2 or llama-2-7b."),
    "hf_config": (MODEL, "FILE", "Hugging Face config.json of a gpt2, llama, qwen3, mixtral … model."),
    "family": (MODEL, "gpt2|llama", "Style of a shape given by flags (default gpt2)."),
    "layers": (MODEL, "N", "Transformer blocks."),
    "hidden": (MODEL, "N", "Width of the residual stream."),
    "heads": (MODEL, "N", "Query heads."),
    "kv_heads": (MODEL, "N", "Key-value heads (grouped-query attention)."),
    "head_dim": (MODEL, "N", "Width of one head."),
    "ffn": (MODEL, "N", "Inner width of the MLP."),
    "vocab": (MODEL, "N", "Vocabulary, padding included."),
    "pad_vocab": (MODEL, "MULTIPLE", "Round the vocabulary up, to 64 or 128; the tokenizer's stays known."),
    "position": (MODEL, "learned|rotary|alibi|none", "How a token's position is told."),
    "rotary_dim": (MODEL, "N", "Channels of a head that rotary embedding turns."),
    "norm": (MODEL, "layernorm|rmsnorm", "Kind of normalisation."),
    "norm_placement": (MODEL, "pre|post|both", "Before a sub-layer, on its output, or both."),
    "qk_norm": (MODEL, "none|head|full", "Norm of queries and keys: each head's, or the full width's."),
    "mlp": (MODEL, "gelu|gelu-written-out|relu|relu2|swiglu|geglu", "Activation; the last two have a gate."),
    "biases": (MODEL, "none|qkv|attention|all", "Linear layers with a bias."),
    "tied": (MODEL, "", "The output head is the embedding table, or is not."),
    "sliding_window": (MODEL, "N", "Keys that a query sees; 0: all before it."),
    "experts": (MODEL, "N", "Routed experts in place of the MLP."),
    "top_k": (MODEL, "N", "Routed experts that each token uses."),
    "expert_ffn": (MODEL, "N", "Inner width of one expert."),
    "shared_ffn": (MODEL, "N", "Inner width of all shared experts; 0: none."),
    "tokens": (RUN, "N", "Training tokens, such as 10B."),
    "steps": (RUN, "N", "Optimizer steps, instead of --tokens."),
    "dataset_tokens": (RUN, "N", "Distinct tokens of the data set, for the epochs."),
    "seed": (RUN, "N", "Of initialisation and data order."),
    "seq": (BATCH, "N", "Tokens per sequence."),
    "micro_batch": (BATCH, "N", "Sequences per device in one pass."),
    "accumulation": (BATCH, "N", "Micro-batches per device and step."),
    "global_batch_tokens": (BATCH, "N", "Tokens per optimizer step, instead of --accumulation."),
    "precision": (NUMERICS, "bf16|fp32", "Type of the matrix products."),
    "recipe": (NUMERICS, "NAME", "Types of weights, gradients, products, such as mixed-bf16 or master-bf16."),
    "activation_checkpointing": (NUMERICS, "none|selective|full|offloaded", "What backward computes again."),
    "activation_checkpointing_every": (NUMERICS, "K", "Full or offloaded: one of every K blocks."),
    "runtime": (NUMERICS, "eager|autocast|compiled|fused", "How the model's code runs (default eager)."),
    "attention": (NUMERICS, "flash|math|flex", "Attention kernel (default flash)."),
    "document_masking": (NUMERICS, "yes|no", "Attention stays within a document of a sequence (default no)."),
    "loss_kind": (NUMERICS, "plain|chunked|fused", "Whether all logits are held at once (default plain)."),
    "loss_chunks": (NUMERICS, "N", "Chunks of tokens of such a loss (default 8)."),
    "dropout": (NUMERICS, "SHARE", "Dropout, 0.1 or 10% (default 0)."),
    "optimizer": (NUMERICS, "NAME", "adamw (default), adamw8bit, lion, adafactor, sgd or muon."),
    "optimizer_implementation": (NUMERICS, "fused|foreach|for-loop", "How its update runs."),
    "state_dtype": (NUMERICS, "fp32|bf16", "Type of the moments of adamw and lion; default the weights'."),
    "clip_value": (NUMERICS, "X", "Largest gradient element; larger ones are cut, before the norm is."),
    "schedule": (RATE, "KIND", "cosine, linear, polynomial, inverse_sqrt, constant or wsd (default cosine)."),
    "peak_lr": (RATE, "RATE", "Rate at the end of warm-up."),
    "min_lr": (RATE, "RATE", "Floor of the decay, 3e-5 or 10% of the peak."),
    "decay_power": (RATE, "N", "Exponent of a polynomial decay (default 2)."),
    "warmup_steps": (RATE, "N", "Warm-up in steps,"),
    "warmup_tokens": (RATE, "N", "or in tokens,"),
    "warmup_ratio": (RATE, "SHARE", "or as a share of the run, 0.02 or 2%."),
    "cooldown_steps": (RATE, "N", "Cooldown at the end of a wsd schedule in steps,"),
    "cooldown_tokens": (RATE, "N", "or in tokens,"),
    "cooldown_ratio": (RATE, "SHARE", "or as a share of the run, 0.2 or 20%."),
    "gpu": (HARDWARE, "NAME", "GPU preset, such as a100-80gb, or cpu for this machine's processor."),
    "gpus": (HARDWARE, "N", "Data-parallel GPUs."),
    "allocator": (HARDWARE, "default|expandable", "PyTorch's caching allocator: fixed or expandable segments."),
    "tflops": (HARDWARE, "X", "Achieved TFLOP/s per GPU in the 6ND convention, if known."),
    "mfu": (HARDWARE, "SHARE", "Model FLOPs utilisation, if known, 0.4 or 40%."),
    "price_per_gpu_hour": (HARDWARE, "USD", "Your price, such as 2.50."),
    "checkpoint_every": (LOOP, "STEPS", "Steps between checkpoints."),
    "keep_checkpoints": (LOOP, "N", "Newest checkpoints kept (default 3)."),
    "async_save": (LOOP, "yes|no", "Write checkpoints while training goes on (default no)."),
    "eval_every": (LOOP, "STEPS", "Steps between evaluations on held-out data (default none)."),
    "eval_tokens": (LOOP, "N", "Validation tokens of one evaluation (default 65,536)."),
    "patience": (LOOP, "N", "Evaluations without a better loss before training stops."),
    "on_spike": (LOOP, "warn|skip|rollback", "What a spike of the loss does (default warn)."),
}

# field of Typed: its name in a form, where that is not the field's own name with blanks
LABELS: dict[str, str] = {
    "params": "parameters",
    "hf_config": "config.json",
    "kv_heads": "key-value heads",
    "ffn": "FFN width",
    "vocab": "vocabulary",
    "pad_vocab": "pad vocabulary to",
    "qk_norm": "QK norm",
    "mlp": "MLP",
    "tied": "embeddings",
    "top_k": "experts per token",
    "expert_ffn": "expert width",
    "shared_ffn": "shared expert width",
    "tokens": "training tokens",
    "dataset_tokens": "data set tokens",
    "seq": "sequence length",
    "micro_batch": "micro-batch",
    "global_batch_tokens": "global batch, tokens",
    "activation_checkpointing": "act. checkpointing",
    "activation_checkpointing_every": "one of K blocks",
    "attention": "attention kernel",
    "loss_kind": "loss",
    "optimizer_implementation": "its update",
    "state_dtype": "moments",
    "peak_lr": "peak learning rate",
    "min_lr": "floor of the rate",
    "decay_power": "decay exponent",
    "warmup_steps": "warm-up steps",
    "warmup_tokens": "warm-up tokens",
    "warmup_ratio": "warm-up share",
    "cooldown_ratio": "cooldown share",
    "gpu": "GPU",
    "gpus": "number of GPUs",
    "tflops": "TFLOP/s per GPU",
    "mfu": "MFU",
    "price_per_gpu_hour": "USD per GPU-hour",
    "checkpoint_every": "checkpoint every",
    "async_save": "save in background",
    "eval_every": "evaluate every",
    "eval_tokens": "evaluation tokens",
    "on_spike": "on a spike",
}


def label(name: str) -> str:
    """What a form calls a field."""
    return LABELS.get(name) or name.replace("_", " ")


def panels() -> dict[str, tuple[str, ...]]:
    """The fields of each panel, panels and fields in the table's order."""
    found: dict[str, list[str]] = {}
    for name, (panel, _, _) in FLAGS.items():
        found.setdefault(panel, []).append(name)
    return {panel: tuple(names) for panel, names in found.items()}
