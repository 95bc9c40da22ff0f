"""Every option of the reference model: it runs, every parameter learns, and its size is the predicted one."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from planner.config.model import MlaConfig, ModelConfig, MoeConfig
from planner.config.run import TrainingConfig
from planner.counts.parameters import parameters_of
from planner.counts.shape import attended_keys, shape_of
from planner.errors import ConfigError
from planner.formulas.flops import model_flops_per_token
from reference_trainer.device.dtypes import DTYPES
from reference_trainer.measure.measure import build_model, model_flops_per_step, saved_bytes_by_operator
from reference_trainer.measure.replay import StorageTracker, replay, tracked_steps
from reference_trainer.model.gpt import GPT
from reference_trainer.step.precision import refuse_unrunnable
from tests.reference_trainer.conftest import MODEL, TRAINING, config_of
from tests.soak import some

# each row: options of [model] and [training] that differ from a small GPT-2's
ROTARY: dict[str, Any] = {"position": "rotary"}
LLAMA = ROTARY | {"norm": "rmsnorm", "norm_parameters": "gain", "mlp": "swiglu", "biases": "none"}
MLA: dict[str, Any] = {"kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 8}
MOE: dict[str, Any] = {"experts": 4, "top_k": 2, "expert_ffn": 24}
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": LLAMA,
    "neox": ROTARY | {"rotary_dim": 4, "residual": "parallel", "tied_embeddings": False},
    "gpt-j": ROTARY | {"rotary_dim": 8, "residual": "parallel-one-norm", "biases": "none"},
    "bloom": {"position": "alibi", "embedding_norm": True},
    "mpt": {"position": "alibi", "norm_parameters": "gain", "biases": "none", "heads": 3, "kv_heads": 1},
    "smollm3": LLAMA | {"no_position_every": 2, "kv_heads": 1},
    "no position": {"position": "none", "mlp": "relu"},
    "olmo": LLAMA | {"norm": "layernorm", "norm_parameters": "none"},
    "new gelu": {"mlp": "gelu-written-out"},
    "plain rms": {"norm": "rmsnorm", "norm_parameters": "none", "mlp": "relu2"},
    "olmo2": LLAMA | {"norm_placement": "post", "qk_norm": "full"},
    "gemma": LLAMA | {"norm_placement": "both", "mlp": "geglu", "logit_softcap": 3.0, "head_dim": 24},
    "qwen3": LLAMA | {"qk_norm": "head", "kv_heads": 1},
    "layernorm qk": ROTARY | {"qk_norm": "head"},
    "qwen2": LLAMA | {"biases": "qkv"},
    "projection biases": LLAMA | {"biases": "proj"},
    "mlp biases": {"biases": "mlp"},
    "qkv and mlp biases": LLAMA | {"biases": "qkv+mlp"},
    "projection and mlp biases": LLAMA | {"biases": "proj+mlp"},
    "attention biases": LLAMA | {"biases": "attention"},
    "mistral": LLAMA | {"sliding_window": 8},
    "gemma window": LLAMA | {"sliding_window": 8, "full_attention_every": 2},
    "window and alibi": {"position": "alibi", "sliding_window": 8, "full_attention_every": 2},
    "math": {"attention_kernel": "math"},
    "flash by name": {"attention_kernel": "flash-only"},
    "dropout": {"dropout": 0.1},
    "selective": {"activation_checkpointing": "selective"},
    "full": {"activation_checkpointing": "full"},
    "every other": {"activation_checkpointing": "full", "activation_checkpointing_every": 2},
    "offloaded": {"activation_checkpointing": "offloaded"},
    "chunked": {"loss": "chunked", "loss_chunks": 3},
    "fused": LLAMA | {"loss": "fused", "loss_chunks": 3, "tied_embeddings": False},
    "fused, capped": {"loss": "fused", "logit_softcap": 3.0},
    "chunked, autocast": {"loss": "chunked", "runtime": "autocast", "recipe": "mixed-bf16"},
    "fused, autocast": {"loss": "fused", "runtime": "autocast", "recipe": "mixed-bf16"},
    "deepseek v2 lite": LLAMA | {"mla": MLA, "init_residual": "same"},
    "deepseek v3": LLAMA
    | {"mla": MLA | {"q_lora_rank": 20}, "moe": MOE | {"shared_ffn": 24, "first_dense_layers": 1}},
    "latent, math": LLAMA | {"mla": MLA, "attention_kernel": "math"},
    "latent, selective": LLAMA | {"mla": MLA, "activation_checkpointing": "selective"},
    "wide values": LLAMA | {"mla": MLA | {"v_head_dim": 20}},
    "mixtral": LLAMA | {"moe": MOE, "recipe": "mixed-bf16"},
    "every other block": LLAMA | {"moe": MOE | {"shared_ffn": 24, "every": 2}},
    "plain experts": {"moe": MOE, "mlp": "relu"},
    "qwen moe": LLAMA | {"moe": MOE | {"shared_ffn": 24, "shared_gate": True}, "activation_checkpointing": "full"},
    "autocast, experts": LLAMA | {"moe": MOE, "mla": MLA, "runtime": "autocast", "recipe": "mixed-bf16"},
    "autocast": LLAMA | {"runtime": "autocast", "recipe": "mixed-bf16"},
    "bf16": LLAMA | {"recipe": "mixed-bf16"},
}  # fmt: skip

PLAIN = ("gpt2", "llama")


UNTRAINED: list[dict[str, Any]] = [
    {"head_bias": True},
    {"qk_norm": "each-head"},
    LLAMA | {"attention_sinks": True},
    LLAMA | {"attention_chunk": 8},
    LLAMA | {"moe": MOE | {"router_bias": True}},
    LLAMA | {"untrained": "a factor of the logits"},
]


def sections(changes: dict[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """The two sections with the changes, validated."""
    own = {key: value for key, value in changes.items() if key in ModelConfig.model_fields}
    rest = {key: value for key, value in changes.items() if key not in own}
    own |= {name: kind(**own[name]) for name, kind in (("mla", MlaConfig), ("moe", MoeConfig)) if own.get(name)}
    return ModelConfig(**{**dict(MODEL), **own}), TrainingConfig(**{**dict(TRAINING), **rest})


def built(changes: dict[str, Any], compute: str = "fp32", weights: str = "fp32", seed: int = 1) -> GPT:
    torch.manual_seed(seed)
    return GPT(*sections(changes), DTYPES[compute], DTYPES[weights])


def batch(sequences: int = 2, length: int = 32, seed: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, MODEL.vocab, (sequences, length + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def gradients(model: GPT, seed: int = 3) -> tuple[float, dict[str, Tensor]]:
    """Mean loss and gradients of one batch."""
    torch.manual_seed(seed)
    ids, targets = batch()
    model.zero_grad()
    loss = model(ids, targets) / targets.numel()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(a: tuple[float, dict[str, Tensor]], b: tuple[float, dict[str, Tensor]], share: float = 1e-4) -> None:
    """Same loss, same gradients up to `share` of each one's norm."""
    assert a[0] == pytest.approx(b[0], rel=share)
    assert a[1].keys() == b[1].keys()
    for name, grad in a[1].items():
        assert (grad - b[1][name]).norm() <= share * b[1][name].norm() + 1e-7, name


# compiled and fused kernels are tested with the trainer: the model is the same; UNTRAINED is refused
ELSEWHERE = {
    "runtime": {"compiled", "fused"},
    "attention_kernel": {"flex", "efficient", "cudnn"},  # on CUDA only: test_attention_kernels.py
    "qk_norm": {"each-head"},
}


def test_the_table_holds_every_choice() -> None:
    cases = [sections(case) for case in CASES.values()]
    for place, section in enumerate((ModelConfig, TrainingConfig)):
        for name, field in section.model_fields.items():
            choices = set(get_args(field.annotation)) if get_origin(field.annotation) is Literal else set()
            seen = {getattr(case[place], name) for case in cases}
            assert choices - seen == ELSEWHERE.get(name, set()), name


@pytest.mark.parametrize("changes", UNTRAINED)
def test_a_model_with_parts_that_are_not_here_is_refused_by_their_name(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="does not run") as caught:
        built(changes)
    with pytest.raises(ConfigError, match="does not run"):
        refuse_unrunnable(config_of().model_copy(update={"model": sections(changes)[0]}), torch.device("cpu"))
    assert caught.value.why.startswith("it does not have ")


@pytest.mark.parametrize("case", CASES)
def test_it_runs_and_every_parameter_learns(case: str) -> None:
    config = config_of()
    model, training = sections(CASES[case])
    torch.manual_seed(1)
    gpt = build_model(config.model_copy(update={"model": model, "training": training}))
    loss, grads = gradients(gpt)
    assert loss == pytest.approx(math.log(MODEL.vocab), abs=0.15)
    assert grads.keys() == dict(gpt.named_parameters()).keys()
    for name, grad in grads.items():
        assert torch.isfinite(grad).all(), name
        assert grad.norm() > 0, name


@pytest.mark.parametrize("case", CASES)
def test_it_is_as_large_as_the_planner_says(case: str) -> None:
    model, training = sections(CASES[case])
    with torch.device("meta"):
        parameters = list(GPT(model, training, torch.float32).parameters())
    said = parameters_of(model)
    assert sum(p.numel() for p in parameters) == said.total
    assert len(parameters) == said.tensors
    assert max(p.numel() for p in parameters) == said.largest


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_the_planner_says(case: str) -> None:
    model, training = sections(CASES[case])
    config = config_of().model_copy(update={"model": model, "training": training})
    shape, keys = shape_of(model), attended_keys(model, training.seq)
    per_token = model_flops_per_token(parameters_of(model).active_linear, shape.query_width, shape.value_width, keys)
    assert model_flops_per_step(config) == per_token * 2 * 2 * 32


@pytest.mark.parametrize("case", CASES)
def test_later_tokens_do_not_change_earlier_logits(case: str) -> None:
    gpt = built(CASES[case]).eval()
    ids, _ = batch()
    changed = ids.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % MODEL.vocab
    with torch.no_grad():
        before, after = gpt.logits(ids), gpt.logits(changed)
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-5)
    assert not torch.allclose(before[:, 20:], after[:, 20:], atol=1e-3)


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize(("loss", "chunks"), [("chunked", 1), ("chunked", 5), ("fused", 1), ("fused", 5)])
def test_losses_in_chunks_are_the_plain_loss(loss: str, chunks: int, softcap: float | None) -> None:
    """Some targets count in no loss; the loss is divided, as by accumulation."""
    results = []
    for options in ({}, {"loss": loss, "loss_chunks": chunks}):
        gpt = built({"logit_softcap": softcap} | options)
        ids, targets = batch()
        targets[0, 3:9] = -100
        total = gpt(ids, targets) / 7
        total.backward()
        results.append((total.item(), {n: p.grad for n, p in gpt.named_parameters() if p.grad is not None}))
        with torch.no_grad():
            assert gpt(ids, targets).item() == pytest.approx(7 * total.item(), rel=1e-5)
    assert_same(*results)


MODES = ["selective", "full", "every other", "offloaded"]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("mode", MODES)
def test_recomputing_changes_nothing(mode: str, dropout: float) -> None:
    plain = LLAMA | {"layers": 3, "dropout": dropout}
    assert_same(gradients(built(plain)), gradients(built(plain | CASES[mode])), share=1e-5)


@pytest.mark.parametrize("case", ["qwen3", "deepseek v3", "latent, selective", "chunked, autocast", "fused"])
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recomputing_changes_nothing_elsewhere(case: str, mode: str) -> None:
    plain = CASES[case] | {"activation_checkpointing": "none"}
    assert_same(gradients(built(plain)), gradients(built(plain | CASES[mode])), share=1e-5)


def test_one_of_so_many_blocks_is_recomputed() -> None:
    """Three blocks, every other one: the first and the third run again in backward."""
    gpt, calls = built(CASES["every other"] | {"layers": 3}), []
    for index, block in enumerate(gpt.blocks):
        block.register_forward_hook(lambda *_, index=index: calls.append(index))
    loss = gpt(*batch())
    assert calls == [0, 1, 2]
    # a recomputation stops, before the hook, when all that backward needs is there
    starts: list[int] = []
    for index, block in enumerate(gpt.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: starts.append(index))
    loss.backward()
    assert starts == [2, 0]


@pytest.mark.parametrize("case", ["llama", "qwen3", "gemma window", "bloom", "deepseek v2 lite"])
def test_both_attention_kernels_give_the_same(case: str) -> None:
    assert_same(gradients(built(CASES[case])), gradients(built(CASES[case] | {"attention_kernel": "math"})))


@pytest.mark.parametrize("case", ["gpt2", "llama", "olmo2", "deepseek v3", "fused"])
def test_autocast_is_close_to_explicit_casts(case: str) -> None:
    """And both to fp32: one step of bf16 is 1/256."""
    exact = gradients(built(CASES[case]))
    eager = gradients(built(CASES[case], compute="bf16"))
    autocast = gradients(built(CASES[case] | {"runtime": "autocast"}, compute="bf16"))
    assert_same(eager, exact, share=0.1)
    assert_same(autocast, exact, share=0.1)
    assert eager[0] != exact[0] and autocast[0] != exact[0]
    assert eager[0] == pytest.approx(exact[0], rel=1e-3)
    assert autocast[0] == pytest.approx(exact[0], rel=1e-3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_weights_as_narrow_as_the_products(case: str, compute: str) -> None:
    gpt = built(CASES[case], compute, compute)
    assert {p.dtype for p in gpt.parameters()} == {DTYPES[compute]}
    seen = []
    gpt.blocks[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    loss, grads = gradients(gpt)
    assert seen[0] == DTYPES[compute]  # the residual stream
    assert loss == pytest.approx(math.log(MODEL.vocab), abs=0.2)
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    assert gpt.logits(batch()[0]).dtype == torch.float32


def test_what_chunks_and_fusion_save() -> None:
    """The peak of the loss's backward: 12 bytes per token and logit at once, or of one chunk, or none."""
    peaks = {}
    for loss in ("plain", "chunked", "fused"):
        config = config_of(vocab=4096, loss=loss, loss_chunks=4)
        peaks[loss] = replay(config).by_phase()
    logits = 2 * 32 * 4096 * 4
    assert peaks["plain"]["backward_start"] > 3 * logits
    assert peaks["chunked"]["backward_start"] < peaks["plain"]["backward_start"] - logits
    for loss in ("chunked", "fused"):
        assert peaks[loss]["forward_end"] < peaks["plain"]["forward_end"]
        assert list(peaks[loss]) == list(peaks["plain"])  # every phase is found


@pytest.mark.parametrize("case", some(CASES, lambda case: case in PLAIN or list(CASES).index(case) % 6 == 0))
def test_real_steps_live_as_on_tensors_without_contents(case: str) -> None:
    """Peaks of all phases and saved bytes, on real tokens and on fake tensors: they hang on no value.

    What a second micro-batch adds is the same for every model: it runs for the plain ones and for options of training.
    """
    of_model = case not in PLAIN and CASES[case].keys() <= ModelConfig.model_fields.keys()
    micro_batches = 1 if of_model else 2
    model, training = sections(CASES[case] | {"accumulation": micro_batches})
    config = config_of().model_copy(update={"model": model, "training": training})
    torch.manual_seed(1)
    gpt = build_model(config)
    gpt.make_tables(training.seq, torch.device("cpu"))
    saved = saved_bytes_by_operator(gpt, *batch())
    tracker = StorageTracker()
    tracked_steps(gpt, config, [batch()] * micro_batches, tracker)
    assert tracker.track.by_phase() == replay(config).by_phase()
    with FakeTensorMode():
        fake = build_model(config)
        fake.make_tables(training.seq, torch.device("cpu"))
        assert saved == saved_bytes_by_operator(fake, *batch())
