"""Which attention kernel runs: PyTorch's choice, logged; with a mask and grouped heads never the one written out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend

from planner.config.run import RunConfig
from planner.errors import ConfigError
from reference_trainer.measure.measure import build_model
from reference_trainer.model import attention, attention_kernels
from reference_trainer.model.attention_kernels import ChosenKernel, kernel_lines
from reference_trainer.model.gpt import GPT
from reference_trainer.step.precision import refuse_unrunnable

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., Any]
GROUPED = {"heads": 4, "kv_heads": 2, "head_dim": 8, "position": "rotary"}


def chosen(model: GPT, training: bool) -> list[ChosenKernel]:
    return [block.attention.kernels[training] for block in model.blocks]


def passed(model: GPT, training: bool = True) -> GPT:
    ids = torch.arange(64).view(2, 32) % 50
    model.train(training)
    model(ids, ids, torch.arange(64).view(2, 32) // 20 if model.options.document_masking else None)
    return model


@pytest.mark.parametrize(
    ("changes", "training", "name"),
    [
        ({}, True, "flash"),
        ({"dropout": 0.1}, True, "written out (math)"),  # the CPU's flash kernel has no dropout
        ({"dropout": 0.1}, False, "flash"),
        ({"attention_kernel": "math"}, True, "written out (math)"),
        ({**GROUPED, "document_masking": True}, True, "flash"),
    ],
    ids=str,
)
def test_the_kernel_is_pytorchs_choice(tiny: MakeConfig, changes: dict[str, Any], training: bool, name: str) -> None:
    assert chosen(passed(build_model(tiny(**changes)), training), training) == [ChosenKernel(name)] * 2


class Gpu:
    """A GPU that has a kernel for masks and one for grouped heads, and none for both but `both`."""

    def __init__(self, patch: pytest.MonkeyPatch, both: SDPBackend) -> None:
        self.both, self.calls, self.heads = both, 0, list[tuple[int, int, bool]]()
        self.attention = torch.nn.functional.scaled_dot_product_attention
        patch.setattr(attention_kernels, "_on_gpu", lambda tensor: True)
        patch.setattr(torch, "_fused_sdp_choice", self._choice)
        patch.setattr(attention.F, "scaled_dot_product_attention", self._attention)

    def _choice(self, q: Any, k: Any, v: Any, mask: Any, dropout: float, causal: bool, *, enable_gqa: bool) -> int:
        self.calls += 1
        assert enable_gqa == (q.shape[1] != k.shape[1]) and k.shape[1] == v.shape[1]
        if mask is None:
            return SDPBackend.FLASH_ATTENTION.value
        return (self.both if enable_gqa else SDPBackend.EFFICIENT_ATTENTION).value

    def _attention(self, query: Any, key: Any, value: Any, **given: Any) -> Any:
        self.heads.append((query.shape[1], key.shape[1], given["enable_gqa"]))
        return self.attention(query, key, value, **given)


@pytest.mark.parametrize(
    ("changes", "both", "kernel", "heads"),
    [
        ({"document_masking": True}, SDPBackend.MATH, ChosenKernel("memory-efficient", True), (4, 4, False)),
        ({"sliding_window": 4}, SDPBackend.MATH, ChosenKernel("memory-efficient", True), (4, 4, False)),
        ({"document_masking": True}, SDPBackend.CUDNN_ATTENTION, ChosenKernel("cuDNN"), (4, 2, True)),
        ({}, SDPBackend.MATH, ChosenKernel("flash"), (4, 2, True)),
    ],
    ids=["documents", "window", "a card with cuDNN's", "no mask"],
)
def test_a_mask_with_grouped_heads_stays_on_a_fast_kernel_with_the_same_numbers(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, changes: Any, both: Any, kernel: ChosenKernel, heads: Any
) -> None:
    config = tiny(**GROUPED, **changes)
    torch.manual_seed(1)
    model = build_model(config)
    ids = torch.arange(64).view(2, 32) % 50
    documents = torch.arange(64).view(2, 32) // 20 if config.training.document_masking else None

    def loss_and_gradients() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(ids, ids, documents)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    expected = loss_and_gradients()
    for block in model.blocks:
        block.attention.kernels.clear()
    gpu = Gpu(monkeypatch, both)
    for _ in range(2):
        for found, wanted in zip(loss_and_gradients(), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert set(gpu.heads) == {heads} and chosen(model, True) == [kernel] * 2
    assert gpu.calls == 2 * (2 if kernel.repeats else 1), "each block asks once, not in every step"


@pytest.mark.parametrize("document_masking", [False, True])
def test_the_memory_efficient_kernel_has_its_keys_repeated(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, document_masking: bool
) -> None:
    config = tiny(**GROUPED, document_masking=document_masking)
    named = config.training.model_copy(update={"attention_kernel": "efficient"})
    model = build_model(config.model_copy(update={"training": named}))
    monkeypatch.setattr(attention, "only_kernel", lambda name: nullcontext())  # the CPU has no such kernel
    monkeypatch.setattr(attention_kernels, "only_kernel", lambda name: nullcontext())
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_, **__: SDPBackend.EFFICIENT_ATTENTION.value)
    assert chosen(passed(model), True) == [ChosenKernel("memory-efficient", repeats=True)] * 2
    assert kernel_lines(chosen(model, True)) == [
        "attention kernel of 2 blocks: memory-efficient; keys and values are repeated for all query heads"
    ]


def test_grouped_heads_in_fp32_stay_on_a_fast_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch, SDPBackend.MATH)
    monkeypatch.setattr(
        torch,
        "_fused_sdp_choice",
        lambda *_, enable_gqa: (SDPBackend.MATH if enable_gqa else SDPBackend.EFFICIENT_ATTENTION).value,
    )
    for dtype, kernel in ((torch.float32, ChosenKernel("memory-efficient", True)), (torch.bfloat16, None)):
        query, key = torch.zeros(1, 4, 8, 8, dtype=dtype), torch.zeros(1, 2, 8, 8, dtype=dtype)
        found = attention_kernels.choose_kernel(query, key, key, None, 0.0)
        assert found == (kernel or ChosenKernel("written out (math)"))
    assert gpu.calls == 0


@pytest.mark.parametrize("name", ["flash", "flash-only", "efficient", "cudnn", "math"])
def test_only_the_named_kernel_is_there_while_attention_runs(name: str) -> None:
    cuda = torch.backends.cuda
    with attention_kernels.only_kernel(name):
        enabled = {
            "flash-only": cuda.flash_sdp_enabled(),
            "efficient": cuda.mem_efficient_sdp_enabled(),
            "cudnn": cuda.cudnn_sdp_enabled(),
            "math": cuda.math_sdp_enabled(),
        }
    assert enabled == {kernel: name in ("flash", kernel) for kernel in enabled}


@pytest.mark.parametrize(("name", "dropout"), [("efficient", 0.0), ("cudnn", 0.0), ("flash-only", 0.1)])
def test_a_device_without_the_named_kernel_refuses_it_before_training(
    tiny: MakeConfig, name: str, dropout: float
) -> None:
    config = tiny(dropout=dropout)  # planned for a GPU, started on a CPU
    named = config.training.model_copy(update={"attention_kernel": name})
    with pytest.raises(ConfigError, match=f'attention_kernel = "{name}" does not run on') as refused:
        refuse_unrunnable(config.model_copy(update={"training": named}), torch.device("cpu"))
    assert refused.value.why and "Triggered" not in refused.value.why


def test_the_flash_kernel_by_name_runs_where_it_is(tiny: MakeConfig, train: Train) -> None:
    said: list[str] = []
    train(tiny(steps=2, attention_kernel="flash-only"), said=said)
    assert [line for line in said if "attention kernel" in line] == ["attention kernel of 2 blocks: flash"]


def test_fake_tensors_are_not_asked_about(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_, **__: pytest.fail("asked"))
    with FakeTensorMode():
        model = passed(build_model(tiny()))
    assert all(block.attention.kernels == {} for block in model.blocks)


def test_a_run_logs_its_kernels_once(tiny: MakeConfig, train: Train) -> None:
    said: list[str] = []
    train(tiny(steps=4), said=said)
    assert [line for line in said if "attention kernel" in line] == ["attention kernel of 2 blocks: flash"]


def test_kernels_that_differ_by_block_have_a_line_each() -> None:
    lines = kernel_lines([ChosenKernel("flash"), ChosenKernel("memory-efficient", True), ChosenKernel("flash")])
    assert lines[0] == "attention kernel of 2 blocks: flash"
    assert lines[1].startswith("attention kernel of 1 block: memory-efficient; keys and values are repeated")
