"""Faults of a run's numbers: unequal and ignored targets, overflow in fp16, and changes that must not change a run.

The numbers are those of the list of faults that every trainer should withstand.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.equality import changes, measured
from planner.config.run import RunConfig
from planner.counts.run import rate_at
from reference_trainer.measure.measure import build_model
from reference_trainer.metrics.records import RunResult
from reference_trainer.model.gpt import GPT

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
LOSSES = ("plain", "chunked", "fused")
IGNORED = -100


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Eight sequences of 32 tokens; every other sequence has fewer and fewer targets that count."""
    torch.manual_seed(seed)
    ids, targets = torch.randint(0, 256, (8, 32)), torch.randint(0, 256, (8, 32))
    for row in range(8):
        targets[row, : 4 * row] = IGNORED
    return ids, targets


def gradients_of(model: GPT, ids: Tensor, targets: Tensor, rows: int) -> tuple[float, dict[str, Tensor]]:
    """Loss per valid token of the whole batch, and its gradients, taken `rows` sequences at a time."""
    model.zero_grad()
    valid, total = int((targets != IGNORED).sum()), 0.0
    for part, wanted in zip(ids.split(rows), targets.split(rows), strict=True):
        loss = model(part, wanted) / valid
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("loss", "softcap"), list(itertools.product(LOSSES, (None, 30.0))))
def test_fault_12_unequal_micro_batches_have_the_gradient_of_the_batch(
    tiny: MakeConfig, loss: str, softcap: float | None
) -> None:
    ids, targets = drawn()
    torch.manual_seed(1)
    reference = build_model(tiny(logit_softcap=softcap))
    torch.manual_seed(1)
    model = build_model(tiny(loss=loss, logit_softcap=softcap, loss_chunks=3))
    expected_loss, expected = gradients_of(reference, ids, targets, 8)
    for rows in (1, 2, 8):
        found_loss, found = gradients_of(model, ids, targets, rows)
        assert found_loss == pytest.approx(expected_loss, rel=1e-6)
        assert found.keys() == expected.keys()
        for name, grad in found.items():
            torch.testing.assert_close(grad, expected[name], rtol=2e-4, atol=2e-7)
    # the mean of the micro-batches' own means is another number: what the division must not be
    with torch.no_grad():
        parts = list(zip(ids.split(1), targets.split(1), strict=True))
        means = [float(reference(i, t)) / int((t != IGNORED).sum()) for i, t in parts]
    assert abs(sum(means) / 8 - expected_loss) > 1e-4


@pytest.mark.parametrize("runtime", ["eager", "autocast"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("recipe", ["fp32", "mixed-bf16"])
def test_fault_12_a_micro_batch_without_targets_adds_nothing(
    tiny: MakeConfig, loss: str, recipe: str, runtime: str
) -> None:
    ids, targets = drawn()
    if runtime == "autocast":
        recipe = {"mixed-bf16": "autocast"}.get(recipe, recipe)
    model = build_model(tiny(loss=loss, recipe=recipe, runtime=runtime))
    _, before = gradients_of(model, ids[:2], targets[:2], 2)
    empty = model(ids[2:4], torch.full_like(targets[2:4], IGNORED))
    empty.backward()
    assert float(empty.detach()) == 0.0
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.equal(p.grad, before[name]), name


def test_the_fused_loss_is_pytorchs_own_where_it_has_one(tiny: MakeConfig) -> None:
    """torch.nn.functional.linear_cross_entropy in chunks: the same loss and the same gradients."""
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        pytest.skip("it came with PyTorch 2.13")
    _, targets = drawn()
    model = build_model(tiny(loss="fused", loss_chunks=4))
    weight = torch.randn(256, 32, requires_grad=True)
    hidden = torch.randn(8, 32, 32, requires_grad=True)
    model.head.weight = torch.nn.Parameter(weight.detach().clone())
    ours = model.loss(hidden, model.head, targets)
    ours.backward()
    mine = hidden.grad.clone() if hidden.grad is not None else None
    hidden.grad = None
    options = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=64)
    theirs = F.linear_cross_entropy(
        hidden.flatten(0, 1), weight, targets.flatten(), reduction="sum", ignore_index=IGNORED, options=options
    )
    theirs.backward()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    torch.testing.assert_close(mine, hidden.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.head.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)


def test_fault_13_an_overflow_skips_halves_and_the_schedule_goes_on(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that is too large at first: its steps are steps of the run, and no updates of the optimizer."""
    made = torch.amp.GradScaler.__init__

    def too_large(self: torch.amp.GradScaler, device: str) -> None:
        made(self, device, init_scale=2.0**24)

    monkeypatch.setattr(torch.amp.GradScaler, "__init__", too_large)
    config = tiny(recipe="mixed-fp16", steps=12)
    train(config, "whole")
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    ]
    good = [bool(row["updated"]) for row in rows]
    skipped = good.index(True)
    assert 0 < skipped < 8 and all(good[skipped:])
    assert [row["loss_scale"] for row in rows] == [2.0 ** (24 - min(k, skipped)) for k in range(12)]
    assert [row["lr"] for row in rows] == [rate_at(config, k) for k in range(1, 13)]
    assert all(row["loss"] is not None for row in rows)  # the loss was finite, its scaled gradient was not
    state = load_file(tmp_path / "whole/checkpoints/step-00000012/optimizer.safetensors")
    assert float(state["loss_scale.scale"]) == 2.0 ** (24 - skipped)
    assert float(state["loss_scale.growth_tracker"]) == 12 - skipped
    assert {float(value) for name, value in state.items() if name.endswith(".step")} == {12.0 - skipped}
    train(config, "parts", stop_after=skipped - 1 or 1)
    train(config, "parts", resume=True)
    other = load_file(tmp_path / "parts/checkpoints/step-00000012/optimizer.safetensors")
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


@pytest.fixture(scope="module")
def seen() -> list[dict[str, Any]]:
    return measured(changes())


@pytest.mark.parametrize("index", range(len(changes())), ids=lambda i: changes()[i].what + " " + changes()[i].recipe)
def test_fault_37_what_must_not_change_a_run_does_not(seen: list[dict[str, Any]], index: int) -> None:
    row = seen[index]
    assert row["falls_by_nats"] > 0.5  # it did train
    assert row["difference_nats"] <= row["tolerance"]


def test_fault_37_the_comparison_can_fail() -> None:
    """Another seed, or one rounded weight, is seen."""
    (row,) = measured(
        [type(changes()[0])("another seed", "fp32", {"recipe": "fp32"}, {"recipe": "fp32", "seed": 8}, 0)]
    )
    assert row["difference_nats"] > 1e-3
