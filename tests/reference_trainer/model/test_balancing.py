"""Balancing of experts: the loss by definition and by transformers, its gradient, the bias, what both do to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from planner.config.model import MoeConfig
from planner.config.run import RunConfig
from planner.plan import estimate
from reference_trainer.data.samples import open_data
from reference_trainer.loop.startup import build
from reference_trainer.measure.measure import build_model
from reference_trainer.measure.replay import replay
from reference_trainer.model.balancing import ExpertBalance
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import read_one
from tests.reference_trainer.conftest import MakeConfig, Train
from tests.reference_trainer.preflight.checks import CPU

LOSSES = ("loss-pooled", "loss-mean", "loss-sum")
UPDATES = ("first_optimizer_step", "optimizer_step")
MOE = {"experts": 4, "top_k": 2, "expert_ffn": 16}


def with_balancing(tiny: MakeConfig, balancing: str, rate: float | None = None, **changes: Any) -> RunConfig:
    moe = MoeConfig(**MOE, balancing=balancing, balancing_rate=rate)
    return tiny(moe=moe, **changes)


def by_definition(method: str, logits: list[Tensor], top_k: int, coefficient: float) -> Tensor:
    """The loss of router logits [n, E] of each block, as the papers write it: no buffer, no function of ours."""
    f, p = [], []
    for each in logits:
        probabilities = each.softmax(-1)
        chosen = F.one_hot(probabilities.topk(top_k).indices, each.shape[-1]).double()
        f.append(chosen.sum(1).mean(0))
        p.append(probabilities.mean(0))
    experts, blocks = logits[0].shape[-1], len(logits)
    if method == "loss-pooled":
        return coefficient * experts * (torch.stack(f).mean(0) * torch.stack(p).mean(0)).sum()
    total = torch.stack([(a * b).sum() for a, b in zip(f, p, strict=True)]).sum() * coefficient * experts / top_k
    return total / blocks if method == "loss-mean" else total


def language_part(probabilities: list[Tensor]) -> Tensor:
    """Some other loss that goes through the same probabilities."""
    return torch.stack([p.square().sum() for p in probabilities]).sum() * 0.1


def routed(config: RunConfig, logits: list[Tensor], targets: Tensor) -> tuple[Tensor, ExpertBalance]:
    """What the trainer's own functions make of these router logits, and of a language loss that hangs on them."""
    balance = ExpertBalance(config.model).double()
    found = []
    for block, each in enumerate(logits):
        found.append(balance.attach(block, each.softmax(-1)))
        chosen = found[-1].topk(2).indices.flatten().sort().values
        balance.observe(block, found[-1], torch.searchsorted(chosen, torch.arange(each.shape[-1]), right=True))
    return balance.add(language_part(found), targets), balance


@pytest.mark.parametrize("method", LOSSES)
def test_the_loss_is_the_definition_and_passes_gradcheck(tiny: MakeConfig, method: str) -> None:
    config = with_balancing(tiny, method, 0.3, layers=2)
    drawn = torch.randn(2, 12, 4, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([5] * 9 + [-100] * 3)  # nine of twelve count
    first, second = (d.clone().requires_grad_() for d in drawn)
    found = routed(config, [first, second], targets)[0]
    language = language_part([first.softmax(-1), second.softmax(-1)])
    expected = language + 9 * by_definition(method, [first, second], 2, 0.3)
    torch.testing.assert_close(found, expected)
    grads = torch.autograd.grad(found * 7.0, (first, second))  # as a loss scale does
    torch.testing.assert_close(grads, torch.autograd.grad(expected * 7.0, (first, second), retain_graph=True))
    alone = torch.autograd.grad(language * 7.0, (first, second))
    assert all(float((a - b).abs().max()) > 0.01 for a, b in zip(grads, alone, strict=True))
    assert torch.autograd.gradcheck(lambda *logits: routed(config, list(logits), targets)[0], (first, second))


def test_the_pooled_loss_is_that_of_transformers(tiny: MakeConfig) -> None:
    """load_balancing_loss_func of transformers 5.23.0 prints 2.1043098 for these logits; asked too where it is."""
    generator = torch.Generator().manual_seed(11)
    logits = [torch.randn(6, 4, generator=generator, dtype=torch.double) for _ in range(3)]
    config = with_balancing(tiny, "loss-pooled", 1.0, layers=3)
    _, balance = routed(config, [t.clone().requires_grad_() for t in logits], torch.zeros(6, dtype=torch.long))
    found = float(balance.added) / 6
    assert found == pytest.approx(2.1043098, rel=1e-6)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func(tuple(logits), 4, 2)
    assert found == pytest.approx(float(theirs), rel=1e-6)


def of_step(context: StepContext, step: int) -> Any:
    return read_one(train_step(context, step))


def test_evaluation_and_the_logged_loss_are_the_language_loss(tiny: MakeConfig, text: Path) -> None:
    plain, balanced = (
        build(config, CPU, open_data(text, config.model.vocab, config.training.seq))
        for config in (tiny(moe=MoeConfig(**MOE)), with_balancing(tiny, "loss-sum", 5.0))
    )
    balanced.model.load_state_dict(plain.model.state_dict())
    first, second = of_step(plain, 1), of_step(balanced, 1)
    assert second.loss == pytest.approx(first.loss, rel=1e-6)  # before its update
    assert second.grad_norm > 1.5 * first.grad_norm
    # two blocks, nearly even: E/k of Σ f P is about 1 in each
    assert second.signals["balancing_loss"] == pytest.approx(2 * 5.0, rel=0.1) and "balancing_loss" not in first.signals
    assert 1 <= first.signals["expert_load"] == second.signals["expert_load"] <= 4
    ids = torch.randint(0, 200, (2, 16))
    balanced.model.load_state_dict(plain.model.state_dict())
    with torch.no_grad():
        assert torch.equal(plain.model.eval()(ids, ids), balanced.model.eval()(ids, ids))


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_recomputation_changes_no_gradient(tiny: MakeConfig, checkpointing: str) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 200, (2, 16))
    models = [
        build_model(with_balancing(tiny, "loss-pooled", 1.0, activation_checkpointing=c))
        for c in ("none", checkpointing)
    ]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model(ids, ids).backward()
    for (name, a), (_, b) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad), name
    assert torch.equal(models[0].balance.tally, models[1].balance.tally)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "rate", "lr"),
    [("none", None, 3e-3), ("loss-mean", 1.0, 3e-3), ("none", None, 1e-4), ("bias", 0.01, 1e-4)],
)
def test_a_collapsed_router_is_spread_out(
    tiny: MakeConfig, text: Path, method: str, rate: float | None, lr: float
) -> None:
    config = with_balancing(tiny, method, rate, layers=1, steps=50, peak_lr=lr, min_lr=lr / 10)
    context = build(config, CPU, open_data(text, config.model.vocab, config.training.seq))
    block = context.model.blocks[0]
    with torch.no_grad():  # every input gets a common direction, to which two experts answer
        block.mlp_norm.bias.fill_(2.0)
        block.mlp.router.weight.mul_(5.0)[:2].add_(0.05)
    loads = [of_step(context, step).signals["expert_load"] for step in range(1, 51)]
    assert loads[0] > 1.9  # of 2: nearly all tokens are at the same two of four experts
    last = sum(loads[-10:]) / 10
    assert last > 1.8 if method == "none" else last < 1.5, loads


def test_the_bias_moves_by_the_sign_of_the_load_error_and_only_with_the_update(tiny: MakeConfig) -> None:
    balance = ExpertBalance(with_balancing(tiny, "bias", 0.25, layers=1).model)
    balance.tally.copy_(torch.tensor([[0.9, 0.5, 0.5, 0.1]]))
    balance.move_bias(torch.tensor(False))
    assert not balance.bias.any()
    balance.move_bias(torch.tensor(True))
    assert balance.bias.tolist() == [[-0.25, 0.0, 0.0, 0.25]]


@pytest.mark.parametrize("method", ["bias", "none"])
def test_the_step_of_the_bias_is_in_the_plan(tiny: MakeConfig, method: str) -> None:
    """SGD without momentum in one kernel has less scratch than the bias of 64 experts."""
    moe = MoeConfig(experts=64, top_k=2, expert_ffn=8, balancing=method)
    config = tiny(moe=moe, micro_batch=1, accumulation=1, hidden=16, heads=2, layers=4, vocab=64)
    optimizer = config.optimizer.model_copy(update={"name": "sgd", "momentum": 0.0, "implementation": "fused"})
    config = config.model_copy(update={"optimizer": optimizer})
    planned = {p.phase: p.peak_bytes for p in estimate(config).memory.phases}
    seen = replay(config).by_phase()
    assert all(abs(seen[phase] - planned[phase]) <= 64 for phase in UPDATES), (seen, planned)


def test_a_bias_changes_the_choice_and_no_weight(tiny: MakeConfig) -> None:
    moe = build_model(with_balancing(tiny, "bias", layers=1)).blocks[0].mlp
    probabilities = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    moe.balance.bias.copy_(torch.tensor([[0.0, -1.0, 0.0, 1.0]]))
    weights, chosen = moe.choose(probabilities)
    assert dict(zip(chosen[0].tolist(), weights[0].tolist(), strict=True)) == pytest.approx({3: 0.1, 0: 0.4})


def test_a_resumed_bias_is_bit_equal(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    config = with_balancing(tiny, "bias", 0.01, steps=4)
    train(config, "whole")
    train(config, "cut", stop_after=2)
    train(config, "cut", resume=True)
    whole, cut = (
        [load_file(tmp_path / name / f"checkpoints/step-0000000{step}/model.safetensors") for step in (2, 4)]
        for name in ("whole", "cut")
    )
    for a, b in zip(whole, cut, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert whole[0]["balance.bias"].any() and not torch.equal(whole[0]["balance.bias"], whole[1]["balance.bias"])
    rows = [json.loads(line) for line in (tmp_path / "cut/metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and all(1 <= row["expert_load"] <= 4 for row in rows)
