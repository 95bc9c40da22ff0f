"""Draws random command lines, seeded: any mixture of options that the program accepts.

`python -m tests.stability.drawing` writes commands.json anew and `expected.json` with what the program answers now.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

SEED, COUNT = 20261127, 200
HERE = Path(__file__).parent
MODELS = (
    "gpt2", "gpt2-xl", "llama-2-7b", "llama-3-8b", "llama-3.2-1b", "qwen3-8b", "mixtral-8x7b", "deepseek-v3",
    "gemma-2-2b", "pythia-1.4b", "olmo-2-7b", "smollm2-135m", "tinyllama-1.1b",
)  # fmt: skip
GPUS = ("a100-80gb", "a100-40gb", "h100-80gb", "h200", "b200", "l4", "rtx-4090", "v100-32gb")
SHAPE = {
    "layers": ("2", "5", "12", "24"),
    "hidden": ("256", "768", "1024", "2048"),
    "heads": ("4", "8", "16"),
    "ffn": ("1024", "2816", "3072"),
    "vocab": ("257", "32000", "50257", "50304"),
    "pad-vocab": ("64", "128"),
    "position": ("learned", "rotary", "alibi", "none"),
    "norm": ("layernorm", "rmsnorm"),
    "norm-placement": ("pre", "post", "both"),
    "qk-norm": ("none", "head", "full"),
    "mlp": ("gelu", "gelu-written-out", "relu", "relu2", "swiglu", "geglu"),
    "biases": ("none", "qkv", "attention", "all"),
    "sliding-window": ("128", "512"),
}
OPTIONS = {
    "seq": ("128", "512", "1024", "2048"),
    "micro-batch": ("1", "2", "3", "8", "16"),
    "gpus": ("1", "2", "8", "64"),
    "precision": ("bf16", "fp32"),
    "recipe": (
        "mixed-bf16",
        "autocast",
        "master-bf16",
        "master-bf16-grad16",
        "pure-bf16",
        "fp32",
        "tf32",
        "mixed-fp16",
        "fp8-te",
    ),
    "activation-checkpointing": ("none", "selective", "full", "offloaded"),
    "activation-checkpointing-every": ("2", "3"),
    "runtime": ("eager", "autocast", "compiled", "fused"),
    "attention": ("flash", "math", "flex"),
    "document-masking": ("no", "yes"),
    "loss-kind": ("plain", "chunked", "fused"),
    "loss-chunks": ("2", "8"),
    "dropout": ("0", "0.1"),
    "optimizer": ("adamw", "adamw8bit", "lion", "adafactor", "sgd", "muon"),
    "optimizer-implementation": ("fused", "foreach", "for-loop"),
    "state-dtype": ("fp32", "bf16"),
    "clip-value": ("1.0",),
    "schedule": ("cosine", "linear", "polynomial", "inverse_sqrt", "constant", "wsd"),
    "peak-lr": ("3e-4", "1e-3"),
    "min-lr": ("0", "1e-5", "10%"),
    "warmup-steps": ("0", "100", "2000"),
    "warmup-ratio": ("2%",),
    "cooldown-ratio": ("20%",),
    "decay-power": ("3",),
    "dataset-tokens": ("1B", "15T"),
    "allocator": ("default", "expandable"),
    "mfu": ("0.4",),
    "tflops": ("55",),
    "price-per-gpu-hour": ("2.50",),
    "checkpoint-every": ("1000",),
    "keep-checkpoints": ("2",),
    "async-save": ("yes", "no"),
    "eval-every": ("500",),
    "eval-tokens": ("131072",),
    "patience": ("3",),
    "on-spike": ("warn", "skip", "rollback"),
    "accumulation": ("1", "4", "7"),
    "global-batch-tokens": ("524288", "1048576"),
}


def command(draw: random.Random) -> list[str]:
    """One random command line, without the command's name; the program may refuse it."""
    words = ["--as-of", "2026-11-21", "--gpu", draw.choice(GPUS)]
    kind = draw.choice(("preset", "preset", "params", "shape", "shape"))
    if kind == "preset":
        words += ["--model", draw.choice(MODELS)]
    elif kind == "params":
        words += ["--params", draw.choice(("60M", "125M", "1.3B", "7B")), "--family", draw.choice(("gpt2", "llama"))]
    else:
        words += ["--family", draw.choice(("gpt2", "llama"))]
        words += _some(draw, SHAPE, 7, always=("layers", "hidden", "heads"))
        if draw.random() < 0.2:
            words += ["--experts", "8", "--top-k", "2", "--expert-ffn", draw.choice(("512", "1024"))]
        if draw.random() < 0.3:
            words.append(draw.choice(("--tied", "--untied")))
    words += draw.choice((["--tokens", "10B"], ["--tokens", "300B"], ["--steps", "5000"]))
    return words + _some(draw, OPTIONS, draw.randint(1, 9))


def _some(
    draw: random.Random, table: dict[str, tuple[str, ...]], count: int, always: tuple[str, ...] = ()
) -> list[str]:
    names = dict.fromkeys((*always, *draw.sample(list(table), count)))
    return [word for name in names for word in (f"--{name}", draw.choice(table[name]))]


def main() -> None:
    """Write commands.json and expected.json."""
    from tests.stability.answers import COMMANDS, answer, digest

    draw, found = random.Random(SEED), []
    while len(found) < COUNT:
        words = command(draw)
        if answer("estimate", words) is not None:
            found.append(words)
    (HERE / "commands.json").write_text("[\n" + ",\n".join(json.dumps(" ".join(w)) for w in found) + "\n]\n", "utf-8")
    rows = [json.dumps([digest(answer(name, words)) for name in COMMANDS]) for words in found]
    (HERE / "expected.json").write_text("[\n" + ",\n".join(rows) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main()
