"""Published figures in their own conventions: FLOPs per token that sources imply, and those of well-known models."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from planner import presets
from planner.analysis.conventions import Convention, conventions, flops_per_token
from planner.config.model import ModelConfig
from planner.counts.parameters import parameters_of

CONVENTIONS = {c.id: c for c in conventions()}
with (Path(__file__).parent / "data" / "flops_rows.csv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))
STYLES: dict[str, dict[str, Any]] = {
    "plain": {"position": "learned", "norm": "layernorm", "norm_parameters": "gain+bias", "mlp": "gelu"}
    | {"biases": "all"},
    "gated": {"position": "rotary", "norm": "rmsnorm", "norm_parameters": "gain", "mlp": "swiglu", "biases": "none"},
}
NUMBERS = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")


def model_of(row: dict[str, str]) -> ModelConfig:
    numbers = {name: int(row[name]) for name in NUMBERS}
    tied, source = row["tied"] == "1", row["source"]
    whole: dict[str, Any] = {"name": row["model"], "context": int(row["seq"]), "tied_embeddings": tied}
    return ModelConfig(**whole, **numbers, source=source, **STYLES[row["mlp"]])


@pytest.mark.parametrize("row", ROWS, ids=[r["id"] for r in ROWS])
def test_a_published_rate_in_its_convention(row: dict[str, str]) -> None:
    """Reported FLOP/s over reported tokens/s is the convention's FLOPs per token, within 1 %."""
    counted = flops_per_token(CONVENTIONS[row["convention"]], model_of(row), int(row["seq"]))
    assert counted == pytest.approx(float(row["gflop_per_token"]) * 1e9, rel=0.01)


def test_the_rows_can_fail() -> None:
    """Most rows tell their convention from the next one: full from causal by more than 1 %, model from hardware."""
    apart = 0
    for row in ROWS:
        others = [c for c in ("6n-total", "megatron-causal", "palm-recomputed") if c != row["convention"]]
        counted = [flops_per_token(CONVENTIONS[c], model_of(row), int(row["seq"])) for c in others]
        apart += all(abs(c / float(row["gflop_per_token"]) / 1e9 - 1) > 0.01 for c in counted)
    assert apart > 0.85 * len(ROWS)


@pytest.mark.parametrize("row", [r for r in ROWS if r["convention"] == "palm"], ids=lambda r: r["id"])
def test_parameters_of_the_rows_that_count_them_all(row: dict[str, str]) -> None:
    assert parameters_of(model_of(row)).total == int(row["parameters"])


def counted(convention: str, model: str, seq: int, **changes: Any) -> float:
    found = presets.model(model)
    shape = ModelConfig(name=model, source=found.source, **(dict(found.shape) | changes))
    chosen: Convention = CONVENTIONS[convention]
    return flops_per_token(chosen, shape, seq)


@pytest.mark.parametrize(
    ("convention", "flops"),
    [
        ("6n-total", 4.043e10),
        ("megatron-causal", 4.286e10),
        ("torchtitan", 4.609e10),
        ("matmul-full", 4.608e10),
        ("palm", 4.687e10),
        ("nanogpt", 4.687e10),
        ("palm-recomputed", 6.25e10),
    ],
)
def test_llama_2_7b_at_4096(convention: str, flops: float) -> None:
    """What the tools named in the table print for the same model: 16 % apart by convention alone."""
    assert counted(convention, "llama-2-7b", 4096) == pytest.approx(flops, rel=5e-4)


@pytest.mark.parametrize(
    ("convention", "tied", "flops"),
    [
        ("6n-total", False, 1.051e12),
        ("megatron-causal", True, 1.062e12),
        ("torchtitan", True, 1.076e12),
        ("palm", True, 1.077e12),
        ("nanogpt", False, 1.080e12),
        ("megatron-sc21", True, 1.434e12),
    ],
)
def test_gpt_3_at_2048(convention: str, tied: bool, flops: float) -> None:
    """As tools print it; some count a head of its own, which GPT-3 has not."""
    assert counted(convention, "gpt-3-175b", 2048, tied_embeddings=tied) == pytest.approx(flops, rel=1e-3)


def test_gpt_3_of_the_paper() -> None:
    """Brown et al. 2020 (arXiv 2005.14165), table D.1: 3.14e23 = 6 x 174.6e9 x 300e9; with attention 3.22e23."""
    tokens = 300e9
    assert counted("6n-total", "gpt-3-175b", 2048) * tokens == pytest.approx(3.14e23, rel=5e-3)
    assert counted("matmul-full", "gpt-3-175b", 2048) * tokens == pytest.approx(3.22e23, rel=5e-3)
    assert counted("megatron-causal", "gpt-3-175b", 2048) * tokens == pytest.approx(3.19e23, rel=5e-3)


def test_deepseek_llm_of_the_paper() -> None:
    """arXiv 2401.02954, equation 2: M = 72 L h^2 + 12 L h T where the MLP is 8 h^2 and heads are plain."""
    layers, hidden, seq = 12, 768, 1024
    assert counted("deepseek-llm", "gpt2", seq) == 72 * layers * hidden**2 + 12 * layers * hidden * seq


def test_chinchilla_appendix_f() -> None:
    """Hoffmann et al. 2022, appendix F, term by term for one sequence of an untied model."""
    layers, hidden, ffn, vocab, heads, t = 12, 768, 3072, 50257, 12, 1024
    block = 2 * 3 * t * hidden * hidden + 2 * t * t * hidden + 3 * heads * t * t
    block += 2 * t * t * hidden + 2 * t * hidden * hidden + 2 * t * (2 * hidden * ffn)
    whole = 3 * (2 * t * vocab * hidden + layers * block + 2 * t * hidden * vocab)
    assert counted("chinchilla", "gpt2", t, tied_embeddings=False) == whole / t


def test_megatron_sc21_equation_3() -> None:
    """Narayanan et al. 2021 (arXiv 2104.04473), equation 3, per token: 96 L h^2 (1 + T / 6h + V / 16 L h)."""
    layers, hidden, vocab, t = 96, 12288, 50257, 2048
    published = 96 * layers * hidden**2 * (1 + t / (6 * hidden) + vocab / (16 * layers * hidden))
    assert counted("megatron-sc21", "gpt-3-175b", t) == pytest.approx(published, rel=1e-12)
