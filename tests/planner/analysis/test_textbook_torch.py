"""Our own formulas checked against torch: updates, clipping, losses, norms and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from planner.analysis.textbook.catalogue import find
from planner.analysis.textbook.clipping import clip_factor, l2_norm

F = torch.nn.functional
DOUBLE = torch.float64


def answer(key: str, **values: Any) -> dict[str, Any]:
    found = find(key)
    assert found is not None
    return found.answer(values)


def stepped(optimizer: type[torch.optim.Optimizer], gradients: tuple[float, ...], **options: Any) -> float:
    """The weight 1 after torch's own steps with these gradients."""
    weight = torch.nn.Parameter(torch.ones((), dtype=DOUBLE))
    steps = optimizer([weight], **options)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=DOUBLE)
        steps.step()
    return float(weight.detach())


@pytest.mark.parametrize("gradients", [(0.5, -0.2, 0.3), (4.0, -2.0, 6.0, 1e-3, 0.7), (1e-9, 1e-9)])
def test_3_15_updates_equal_torch(gradients: tuple[float, ...]) -> None:
    ours = answer("3.15", gradients=gradients)
    adam = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
    theirs = {
        "sgd": stepped(torch.optim.SGD, gradients, lr=1e-3),
        "sgd_momentum": stepped(torch.optim.SGD, gradients, lr=1e-3, momentum=0.9),
        "adam": stepped(torch.optim.Adam, gradients, **adam),
        "adamw": stepped(torch.optim.AdamW, gradients, weight_decay=0.1, **adam),
    }
    assert ours == pytest.approx(theirs, rel=1e-14)
    assert len(set(ours.values())) == 4


def test_3_12_first_step_equals_torch() -> None:
    ours = answer("3.12", eps=1e-8)
    adam = {"lr": 1e-3, "weight_decay": 0.1}
    assert ours["adamw"] == pytest.approx(stepped(torch.optim.AdamW, (0.5,), **adam), rel=1e-14)
    assert ours["adam_l2"] == pytest.approx(stepped(torch.optim.Adam, (0.5,), **adam), rel=1e-14)


@pytest.mark.parametrize("limit", [0.1, 1.0, 5.0])
def test_3_4_clipping_equals_torch(limit: float) -> None:
    entries = (3.0, -4.0, 0.5)
    weight = torch.nn.Parameter(torch.zeros(3, dtype=DOUBLE))
    weight.grad = torch.tensor(entries, dtype=DOUBLE)
    norm = float(torch.nn.utils.clip_grad_norm_([weight], limit))
    assert norm == pytest.approx(l2_norm(entries), rel=1e-14)
    factor = clip_factor(l2_norm(entries), limit, eps=1e-6)
    assert weight.grad.tolist() == pytest.approx([g * factor for g in entries], rel=1e-14)


def test_3_10_accumulated_gradients_equal_the_whole_batch() -> None:
    torch.manual_seed(0)
    layer, x, y = torch.nn.Linear(8, 3, dtype=DOUBLE), torch.randn(16, 8, dtype=DOUBLE), torch.arange(16) % 3
    F.cross_entropy(layer(x), y).backward()
    assert layer.weight.grad is not None
    whole = layer.weight.grad.clone()
    layer.zero_grad()
    counts, sums, first = (4, 4, 4, 4), [], 0
    for count in counts:
        loss = F.cross_entropy(layer(x[first : first + count]), y[first : first + count], reduction="sum")
        sums.append(float(torch.autograd.grad(loss, layer.weight)[0][0, 0]))
        first += count
    ours = answer("3.10", sums=tuple(sums), counts=counts)
    for name in ("full", "accumulated", "mean_of_means"):
        assert ours[name] == pytest.approx(float(whole[0, 0]), rel=1e-12)


@pytest.mark.parametrize(("logits", "target"), [((2.0, 1.0, 0.1), 0), ((-3.0, 800.0, 2.0, 1.0), 3)])
def test_4_1_and_4_2_loss_and_gradient_equal_torch(logits: tuple[float, ...], target: int) -> None:
    z = torch.tensor(logits, dtype=DOUBLE, requires_grad=True)
    loss = F.cross_entropy(z, torch.tensor(target))
    loss.backward()
    assert z.grad is not None
    ours = answer("4.1", logits=logits, target=target)
    assert ours["loss"] == pytest.approx(float(loss.detach()), rel=1e-14)
    assert ours["probabilities"] == pytest.approx(torch.softmax(z.detach(), 0).tolist(), rel=1e-14)
    assert answer("4.2", logits=logits, target=target)["logit_gradient"] == pytest.approx(z.grad.tolist(), abs=1e-15)


def test_4_11_jacobian_equals_torch() -> None:
    z = torch.tensor([2.0, 1.0, 0.1], dtype=DOUBLE)
    theirs = torch.autograd.functional.jacobian(lambda t: torch.softmax(t, 0), z)
    for ours, row in zip(answer("4.11")["jacobian"], theirs.tolist(), strict=True):
        assert ours == pytest.approx(row, rel=1e-12)


def test_5_8_and_5_9_norms_equal_torch() -> None:
    x = torch.tensor([2.0, 1.0, 3.0, 4.0], dtype=DOUBLE)
    two, one = torch.tensor([2.0], dtype=DOUBLE), torch.tensor([1.0], dtype=DOUBLE)
    theirs = F.batch_norm(x[:, None], None, None, two, one, training=True)[:, 0]
    assert answer("5.8", eps=1e-5)["normed"] == pytest.approx(theirs.tolist(), rel=1e-14)
    rms = F.rms_norm(torch.tensor([3.0, 4.0], dtype=DOUBLE), (2,), eps=0.0)
    assert answer("5.9")["normed"] == pytest.approx(rms.tolist(), rel=1e-14)


def test_5_10_and_5_16_gradients_equal_autograd() -> None:
    w1 = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    ((3 * torch.relu(w1 * 1 - 1) + 0.5 - 4) ** 2).backward()
    assert w1.grad is not None and answer("5.10")["weight_gradient"] == float(w1.grad)
    for weights in ((2.0, -3.0, 4.0), (2.0, 3.0, 4.0), (-2.0, -3.0, 4.0)):
        first = torch.tensor(weights[0], dtype=DOUBLE, requires_grad=True)
        (weights[2] * torch.relu(weights[1] * torch.relu(first * 1.0))).backward()
        assert first.grad is not None and answer("5.16", weights=weights)["weight_gradient"] == float(first.grad)


def test_5_15_bias_gradient_equals_autograd() -> None:
    upstream = ((0.1, -0.2), (0.3, 0.4), (-0.5, 0.6))
    bias = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    (torch.ones(3, 2, dtype=DOUBLE) + bias).backward(torch.tensor(upstream, dtype=DOUBLE))
    assert bias.grad is not None
    assert answer("5.15", upstream=upstream)["bias_gradient"] == pytest.approx(bias.grad.tolist(), rel=1e-14)


def test_5_12_and_5_17_formats_are_those_of_torch() -> None:
    found = answer("5.17")
    for name, kind in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        assert found["largest"][name] == torch.finfo(kind).max and found["spacing"][name] == torch.finfo(kind).eps
    assert answer("4.8")["smallest_fp16"] == torch.finfo(torch.float16).smallest_normal * 2.0**-10
    kept = torch.tensor([1e-9, 6.5536e-5]).half() != 0
    assert kept.tolist() == [answer("4.8")["kept_unscaled"], answer("4.8")["kept_scaled"]]


def test_5_14_the_order_gives_autograds_gradients() -> None:
    torch.manual_seed(1)
    q, k, v = (torch.randn(5, 4, dtype=DOUBLE, requires_grad=True) for _ in range(3))
    p = torch.softmax(q @ k.T, -1)
    upstream = torch.randn(5, 4, dtype=DOUBLE)
    (p @ v).backward(upstream)
    known: dict[str, torch.Tensor] = {}
    how = {
        "dV": lambda: p.T @ upstream,
        "dP": lambda: upstream @ v.T,
        "dS": lambda: p * (known["dP"] - (known["dP"] * p).sum(-1, keepdim=True)),
        "dQ": lambda: known["dS"] @ k,
        "dK": lambda: known["dS"].T @ q,
    }
    with torch.no_grad():
        for name in answer("5.14")["order"]:
            known[name] = how[name]()
    for name, tensor in (("dQ", q), ("dK", k), ("dV", v)):
        assert tensor.grad is not None and torch.allclose(known[name], tensor.grad, rtol=1e-12)
