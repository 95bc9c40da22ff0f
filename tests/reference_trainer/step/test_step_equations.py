"""A step against its definition: the mean over all valid targets, dropout masks of its own, TF32 where it is named."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from planner import presets
from planner.config.run import RunConfig
from planner.counts.run import recipe_of
from reference_trainer.data.samples import TokenData, batch
from reference_trainer.loop.startup import build
from reference_trainer.preflight import lr_finder, preflight
from reference_trainer.preflight.preflight import PreflightOptions
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import StepResult, read_one
from tests.reference_trainer.step.spikes import MakeConfig, Train

CPU = torch.device("cpu")
END = 63


def unequal_documents() -> TokenData:
    """Documents that are empty in some samples and long in others: of 32 targets, 2 to 32 are valid."""
    lengths = itertools.cycle([2, 1, *[0] * 30, 3, 1, 2, 40, *[0] * 20, 80, 5, 1, 1])
    random = np.random.default_rng(3)
    tokens = np.concatenate([[*random.integers(0, END, next(lengths)), END] for _ in range(600)]).astype(np.uint16)
    return TokenData(tokens, "", "", (len(tokens) - 1) // 32 * 32, end_of_text=END)


class Gradients:
    """A watcher that keeps each parameter's gradient of the last step, unclipped if nothing is clipped."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def before_step(self, context: StepContext, step: int) -> None: ...

    def after_micro(self, context: StepContext, step: int, micro: int) -> None: ...

    def before_update(self, context: StepContext, step: int) -> None:
        self.kept = {n: p.grad.clone() for n, p in context.model.named_parameters() if p.grad is not None}

    def after_update(self, context: StepContext, step: int) -> dict[str, Tensor]:
        return {}


def stepped(config: RunConfig, step: int) -> tuple[StepResult, dict[str, Tensor]]:
    """One step from the initial weights: its result and its gradients."""
    context, watcher = build(config, CPU, unequal_documents()), Gradients()
    context.watchers.append(watcher)
    return read_one(train_step(context, step)), watcher.kept


@pytest.mark.parametrize("step", [1, 2])
def test_fault_12_every_target_of_a_step_has_the_same_weight(tiny: MakeConfig, step: int) -> None:
    """In whatever micro-batch it is: loss and gradient are those of the plain mean over the valid targets."""
    same: dict[str, Any] = {"vocab": 64, "document_masking": True, "clip_norm": None, "position": "rotary"}
    splits = [tiny(micro_batch=8 // n, accumulation=n, **same) for n in (1, 2, 8)]
    data = unequal_documents()
    counts = [batch(data, splits[0], 8 * (step - 1) + n, 1).valid for n in range(8)]
    assert len(set(counts)) > 3 and max(counts) > 2 * min(counts), "the samples are unequal"

    model = build(splits[0], CPU, data).model
    whole = batch(data, splits[0], 8 * (step - 1), 8)
    loss = F.cross_entropy(model.logits(whole.ids, whole.documents).flatten(0, 1), whole.targets.flatten())
    loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.stack([grad.norm() for grad in expected.values()]).norm().item()
    for config in splits:
        result, gradients = stepped(config, step)
        assert result.loss == pytest.approx(loss.item(), rel=1e-5)
        assert result.grad_norm == pytest.approx(norm, rel=1e-4)
        assert result.valid_tokens == sum(counts) and gradients.keys() == expected.keys()
        for name, grad in expected.items():
            assert (gradients[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-7, name


def dropped(config: RunConfig, steps: list[int], monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int, int], bytes]:
    """The masks of dropout by (step, micro-batch, place in the forward pass), as these steps draw them."""
    native, place, found = torch.native_dropout, [0, 0, 0], dict[tuple[int, int, int], bytes]()

    def noted(x: Tensor, share: float, train: bool) -> tuple[Tensor, Tensor]:
        out, mask = native(x, share, train)
        found[place[0], place[1], place[2]] = mask.numpy().tobytes()
        place[2] += 1
        return out, mask

    class Places(Gradients):
        def before_step(self, context: StepContext, step: int) -> None:
            place[:] = [step, 0, 0]

        def after_micro(self, context: StepContext, step: int, micro: int) -> None:
            place[1:] = [micro + 1, 0]

    context = build(config, CPU, unequal_documents())
    context.watchers.append(Places())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "native_dropout", noted)
        for step in steps:
            train_step(context, step)
    return found


@pytest.mark.parametrize("residual", ["sequential", "parallel", "parallel-one-norm"])
def test_no_two_dropout_masks_are_equal(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, residual: str) -> None:
    """Of two steps, three micro-batches and every branch; a run that begins at the second step draws its masks."""
    config = tiny(vocab=64, dropout=0.5, accumulation=3, micro_batch=1, residual=residual)
    found = dropped(config, [1, 2], monkeypatch)
    places = 1 + 2 * config.model.layers  # the embedding, then attention and MLP of each block
    assert list(found) == [(step, micro, place) for step in (1, 2) for micro in range(3) for place in range(places)]
    assert max(Counter(found.values()).values()) == 1
    again = dropped(config, [2], monkeypatch)
    assert again == {key: mask for key, mask in found.items() if key[0] == 2}
    other = dropped(
        tiny(vocab=64, dropout=0.5, accumulation=3, micro_batch=1, residual=residual, seed=8), [1], monkeypatch
    )
    assert not set(other.values()) & set(found.values())


RECIPES = [id for id in presets.recipe_ids() if presets.recipe(id).trainable]


@pytest.mark.parametrize("recipe", RECIPES)
def test_matrix_products_are_tf32_only_under_its_recipe(
    tiny: MakeConfig, train: Train, text: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """In a run, in the range test and in preflight; the setting from before returns."""
    seen: list[str] = []

    def noted(*_: object) -> None:
        seen.append(torch.get_float32_matmul_precision())
        raise RuntimeError("far enough")

    monkeypatch.setattr("reference_trainer.train.refuse_unrunnable", lambda *_: None)  # it refuses TF32 on a CPU
    for module in (lr_finder, preflight):
        monkeypatch.setattr(module, "refuse_unrunnable", lambda *_: None)
        monkeypatch.setattr(module, "adapt_to_device", lambda config, *_: config)
    for name in ("reference_trainer.train.build", "reference_trainer.preflight.lr_finder.build"):
        monkeypatch.setattr(name, noted)
    monkeypatch.setattr(preflight, "_data", noted)
    config = tiny(recipe=recipe)
    calls = (
        lambda: train(config),
        lambda: lr_finder.find_learning_rate(config, text, "cpu", (1e-5, 1e-2, 10), lambda _: None),
        lambda: preflight.preflight(config, PreflightOptions(device="cpu"), lambda _: None),
    )
    torch.set_float32_matmul_precision("medium")
    try:
        for call in calls:
            with pytest.raises(RuntimeError, match="far enough"):
                call()
            assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["high" if recipe_of(config).compute_dtype == "tf32" else "highest"] * 3
