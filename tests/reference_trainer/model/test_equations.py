"""Options of the reference model against their equations, computed slowly, pair by pair and token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.config.model import ModelConfig
from planner.config.rope import RopeScalingConfig
from planner.errors import ConfigError
from reference_trainer.model.attention import Attention, LatentAttention
from reference_trainer.model.balancing import ExpertBalance
from reference_trainer.model.gpt import TransformerBlock
from reference_trainer.model.layers import Dropout, make_norm
from reference_trainer.model.mlp import ACTIVATIONS, MoE
from reference_trainer.model.positions import PositionTables, alibi_slopes, make_tables
from reference_trainer.model.rotary import rotary_angles
from tests.reference_trainer.model.test_gpt import LLAMA, MLA, MOE, ROTARY, batch, built, gradients, sections

LENGTH = 12


def randomised(module: nn.Module) -> nn.Module:
    """Every parameter far from its initial value, so that none is without effect."""
    torch.manual_seed(4)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.3, std=0.4)
    return module


def tables_of(model: ModelConfig) -> PositionTables:
    return make_tables(model, LENGTH, torch.float32, torch.device("cpu"))


def stream(width: int = 32) -> Tensor:
    return torch.randn(2, LENGTH, width, generator=torch.Generator().manual_seed(5))


def turned(x: Tensor, width: int, base: float = 10_000.0) -> Tensor:
    """Rotary embedding of [B, T, heads, d] with complex numbers: pair (i, i + r/2) by the angle t * base^(-2i/r)."""
    out = x.clone()
    for t in range(x.shape[1]):
        for i in range(width // 2):
            angle = torch.tensor(t * base ** (-2 * i / width))
            z = torch.complex(x[:, t, :, i], x[:, t, :, i + width // 2]) * torch.polar(torch.ones(()), angle)
            out[:, t, :, i], out[:, t, :, i + width // 2] = z.real, z.imag
    return out


def attended(query: Tensor, key: Tensor, value: Tensor, model: ModelConfig, window: int | None) -> Tensor:
    """Attention of [B, T, a, d], one head and one query after the other."""
    group, slopes = query.shape[2] // key.shape[2], alibi_slopes(model.heads)
    out = query.new_zeros(*query.shape[:3], value.shape[3])
    for head in range(query.shape[2]):
        for i in range(LENGTH):
            seen = [j for j in range(i + 1) if window is None or j > i - window]
            scores = torch.einsum("bd,bjd->bj", query[:, i, head], key[:, seen, head // group])
            scores = scores / math.sqrt(query.shape[3])
            if model.position == "alibi":
                scores = scores - slopes[head] * torch.tensor([float(i - j) for j in seen])
            out[:, i, head] = torch.einsum("bj,bjd->bd", scores.softmax(-1), value[:, seen, head // group])
    return out


ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": ROTARY | {"heads": 4, "kv_heads": 2, "head_dim": 8},
    "partial": ROTARY | {"rotary_dim": 6},
    "another base": ROTARY | {"rope_base": 50.0},
    "alibi": {"position": "alibi", "heads": 3, "kv_heads": 1},
    "window": ROTARY | {"sliding_window": 3},
    "wide window": ROTARY | {"sliding_window": LENGTH},
    "window and alibi": {"position": "alibi", "sliding_window": 5},
    "head norm": LLAMA | {"qk_norm": "head", "kv_heads": 1},
    "full norm": ROTARY | {"qk_norm": "full", "kv_heads": 1},
    "full block": ROTARY | {"sliding_window": 3, "full_attention_every": 2},
    "block without position": ROTARY | {"no_position_every": 2},
}


def attention_of_equations(attention: Attention, model: ModelConfig, x: Tensor, block: int) -> Tensor:
    """The output of plain or grouped attention for x [B, T, h], by its equations."""
    heads = attention.qkv(x).view(2, LENGTH, -1, model.head_dim)
    query, key, value = heads.split([model.heads, model.kv_heads, model.kv_heads], dim=2)
    if attention.query_norm is not None and attention.key_norm is not None:
        whole = model.qk_norm == "full"
        query = attention.query_norm(query.flatten(2) if whole else query).view_as(query)
        key = attention.key_norm(key.flatten(2) if whole else key).view_as(key)
    second = block == 1
    if model.position == "rotary" and not (second and model.no_position_every):
        query, key = (turned(x, model.rope_dim, model.rope_base) for x in (query, key))
    window = None if second and model.full_attention_every else model.sliding_window
    out: Tensor = attention.proj(attended(query, key, value, model, window).flatten(2))
    return out


@pytest.mark.parametrize("kernel", ["flash", "math"])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case: str, block: int, kernel: str) -> None:
    model, training = sections(ATTENTION[case] | {"attention_kernel": kernel})
    attention = randomised(Attention(model, training, block))
    assert isinstance(attention, Attention)
    with torch.no_grad():
        made = attention(stream(), tables_of(model))
        slow = attention_of_equations(attention, model, stream(), block)
    assert torch.allclose(made, slow, atol=2e-4)


def slowed(wave: float, scaling: RopeScalingConfig) -> float:
    """The length of a wave, in tokens, after Llama 3.1's scaling (transformers' llama3), by its own words."""
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_context
    assert low is not None and high is not None and original is not None
    if wave < original / high:
        return wave
    if wave > original / low:
        return wave * scaling.factor
    smooth = (original / wave - low) / (high - low)
    return 1 / ((1 - smooth) / (wave * scaling.factor) + smooth / wave)


def test_scaled_angles() -> None:
    model = sections(ROTARY | {"head_dim": 64, "rope_base": 5e5})[0]
    waves = 2 * math.pi * 5e5 ** (torch.arange(32) / 32)
    llama = RopeScalingConfig(
        kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
    )
    linear = RopeScalingConfig(kind="linear", factor=3.0)
    slow = [torch.tensor([slowed(float(wave), llama) for wave in waves]), 3 * waves]
    between = (waves > 8192 / 4) & (waves < 8192)
    assert between.any() and (slow[0] == waves).any() and (slow[0] == 8 * waves).any()  # all three ranges
    for scaling, expected in zip((llama, linear), slow, strict=True):
        cos, sin = rotary_angles(model.model_copy(update={"rope_scaling": scaling}), 100, torch.device("cpu"))
        angle = torch.arange(100)[:, None] * 2 * math.pi / expected
        assert torch.allclose(cos[:, 0], angle.cos(), atol=1e-4) and torch.allclose(sin[:, 0], angle.sin(), atol=1e-4)
    other = model.model_copy(update={"rope_scaling": RopeScalingConfig(kind="by-layer", factor=4.0)})
    with pytest.raises(ConfigError, match="by-layer"):
        rotary_angles(other, 100, torch.device("cpu"))


def latent_attention_of_equations(attention: LatentAttention, model: ModelConfig, stream: Tensor) -> Tensor:
    """The output of latent attention for the stream [B, T, h], by its equations."""
    assert model.mla is not None
    nope, rope, wide = model.mla.qk_nope_head_dim, model.mla.qk_rope_head_dim, model.mla.v_head_dim
    x = stream
    if attention.query_norm is not None and attention.query_down is not None:
        x = attention.query_norm(attention.query_down(x))
    query = attention.query(x).view(2, LENGTH, model.heads, nope + rope)
    query = torch.cat([query[..., :nope], turned(query[..., nope:], rope)], -1)
    down = attention.kv_down(stream)
    shared = turned(down[:, :, None, model.mla.kv_lora_rank :], rope)
    up = attention.kv_up(attention.kv_norm(down[..., : model.mla.kv_lora_rank]))
    up = up.view(2, LENGTH, model.heads, nope + wide)
    key = torch.cat([up[..., :nope], shared.repeat(1, 1, model.heads, 1)], -1)
    out: Tensor = attention.proj(attended(query, key, up[..., nope:], model, None).flatten(2))
    return out


@pytest.mark.parametrize("kernel", ["flash", "math"])
@pytest.mark.parametrize("more", [{}, {"q_lora_rank": 20}, {"v_head_dim": 20}])
def test_latent_attention(more: dict[str, int], kernel: str) -> None:
    model, training = sections(LLAMA | {"mla": MLA | more, "attention_kernel": kernel})
    attention = randomised(LatentAttention(model, training, 0))
    assert isinstance(attention, LatentAttention)
    with torch.no_grad():
        made = attention(stream(), tables_of(model))
        slow = latent_attention_of_equations(attention, model, stream())
    assert torch.allclose(made, slow, atol=2e-4)


@pytest.mark.parametrize("shared", [{}, {"shared_ffn": 16}, {"shared_ffn": 16, "shared_gate": True}])
@pytest.mark.parametrize("mlp", ["swiglu", "relu2"])
def test_experts(mlp: str, shared: dict[str, Any]) -> None:
    model, training = sections(LLAMA | {"mlp": mlp, "moe": MOE | shared})
    moe = randomised(MoE(model, training, torch.float32, ExpertBalance(model), 0))
    assert isinstance(moe, MoE)
    x = stream().requires_grad_()
    slow = torch.zeros(2, LENGTH, 32)
    for b in range(2):
        for t in range(LENGTH):
            token, out = x[b, t], torch.zeros(32)
            share = moe.router(token).softmax(-1)
            best = sorted(range(4), key=lambda e: -share[e].item())[:2]
            for e in best:
                inner = token @ moe.experts.up[e]
                gate = moe.experts.gate
                act = ACTIVATIONS[mlp](inner) if gate is None else F.silu(token @ gate[e]) * inner
                out = out + share[e] / share[best].sum() * (act @ moe.experts.down[e])
            if moe.shared is not None:
                beside = moe.shared(token)
                out = out + (beside if moe.shared_gate is None else moe.shared_gate(token).sigmoid() * beside)
            slow[b, t] = out
    made = moe(x)
    assert torch.allclose(made, slow, rtol=1e-4, atol=1e-4)
    wanted = [x, *moe.parameters()]
    seed = torch.randn(2, LENGTH, 32)
    for a, b in zip(torch.autograd.grad(made, wanted, seed), torch.autograd.grad(slow, wanted, seed), strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()


def test_one_expert_is_the_dense_mlp() -> None:
    dense = built(LLAMA)
    sparse = built(LLAMA | {"moe": {"experts": 1, "top_k": 1, "expert_ffn": 64}})
    state = sparse.state_dict()
    for name, value in dense.state_dict().items():
        for matrix in ("gate", "up", "down"):
            if name.endswith(f"mlp.{matrix}.weight"):
                name, value = name.replace(f"{matrix}.weight", f"experts.{matrix}"), value.t()[None]
        state[name] = value
    sparse.load_state_dict(state)
    assert gradients(sparse)[0] == pytest.approx(gradients(dense)[0], rel=1e-6)


def test_an_expert_without_tokens_has_no_gradient() -> None:
    model, training = sections(LLAMA | {"moe": MOE})
    moe = MoE(model, training, torch.float32, ExpertBalance(model), 0)
    with torch.no_grad():
        moe.experts.up.fill_(0.1), moe.experts.down.fill_(0.1)
        moe.router.weight.copy_(torch.tensor([3.0, 2.0, 1.0, 0.0])[:, None].expand(4, 32))
        assert moe.experts.gate is not None
        moe.experts.gate.fill_(0.1)
    moe(stream().abs()).sum().backward()
    grad = moe.experts.up.grad
    assert grad is not None
    assert [bool(g.any()) for g in grad] == [True, True, False, False]


@pytest.mark.parametrize("residual", ["sequential", "parallel", "parallel-one-norm"])
def test_residuals(residual: str) -> None:
    model, training = sections(LLAMA | {"residual": residual})
    block, tables, x = TransformerBlock(model, training, torch.float32, 0), tables_of(model), stream()
    attended_to = x + block.attention(block.attention_norm(x), tables)
    before = {
        "sequential": lambda: block.mlp_norm(attended_to),
        "parallel": lambda: block.mlp_norm(x),
        "parallel-one-norm": lambda: block.attention_norm(x),
    }[residual]()
    assert torch.allclose(block(x, tables), attended_to + block.mlp(before), atol=1e-6)


@pytest.mark.parametrize("place", ["pre", "post", "both"])
def test_norm_placement(place: str) -> None:
    model, training = sections(LLAMA | {"norm_placement": place})
    block, tables, x = randomised(TransformerBlock(model, training, torch.float32, 0)), tables_of(model), stream()
    assert isinstance(block, TransformerBlock)
    y = block.attention(block.attention_norm(x) if place != "post" else x, tables)
    x2 = x + (block.attention_post_norm(y) if place != "pre" else y)
    y = block.mlp(block.mlp_norm(x2) if place != "post" else x2)
    assert torch.allclose(block(x, tables), x2 + (block.mlp_post_norm(y) if place != "pre" else y), rtol=1e-4)


NORMS = [
    ("layernorm", "gain+bias"),
    ("layernorm", "gain"),
    ("layernorm", "none"),
    ("rmsnorm", "gain"),
    ("rmsnorm", "none"),
]


@pytest.mark.parametrize(("kind", "parameters"), NORMS)
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms(kind: str, parameters: str, dtype: torch.dtype, eps: float) -> None:
    norm = randomised(make_norm(sections({"norm": kind, "norm_parameters": parameters, "norm_eps": eps})[0], 32))
    x = stream().to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    centred = wide - wide.mean(-1, keepdim=True) if kind == "layernorm" else wide
    right = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    right = right * getattr(norm, "weight", None) if parameters != "none" else right
    right = right + norm.bias if parameters == "gain+bias" else right
    made = norm(x)
    share = 1e-5 if dtype == torch.float32 else 1e-2
    assert made.dtype == dtype
    assert torch.allclose(made.float(), right, rtol=share, atol=share)
    seed = torch.randn(2, LENGTH, 32).to(dtype)
    here = torch.autograd.grad(made, [x, *norm.parameters()], seed)
    there = torch.autograd.grad(right, [wide, *norm.parameters()], seed.float())
    for a, b in zip(here, there, strict=True):
        assert (a.float() - b).norm() <= share * b.norm()


def test_activations() -> None:
    x = torch.linspace(-3, 3, 13)
    tanh_gelu = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    right = {"gelu": tanh_gelu, "gelu-written-out": tanh_gelu, "geglu": tanh_gelu, "swiglu": x / (1 + torch.exp(-x))}
    right |= {"relu": x.clamp(min=0), "relu2": x.clamp(min=0) ** 2}
    assert right.keys() == ACTIVATIONS.keys()
    for name, values in right.items():
        assert torch.allclose(ACTIVATIONS[name](x.clone()), values, atol=1e-6), name


def test_alibi_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(12)[8:] == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])  # BLOOM's and MPT's rule


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(6)
    dropout, x = Dropout(0.25), torch.ones(40_000)
    dropped = dropout(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.max().item() == pytest.approx(4 / 3)
    assert dropout.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_changes_training_only() -> None:
    ids, targets = batch()
    plain, dropping = built({}), built({"dropout": 0.3})
    assert plain(ids, targets).item() != dropping(ids, targets).item()
    assert plain.eval()(ids, targets).item() == dropping.eval()(ids, targets).item()


def test_logits_are_capped() -> None:
    ids, _ = batch()
    plain, capped = built({}), built({"logit_softcap": 0.2})
    with torch.no_grad():
        assert torch.allclose(capped.logits(ids), 0.2 * torch.tanh(plain.logits(ids) / 0.2), atol=1e-6)
