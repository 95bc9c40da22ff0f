"""The learning-rate range test: real steps at rising rates, after which the model is restored bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from planner.config.run import RunConfig
from planner.errors import InputError
from planner.runs.rate_search import rates_between
from reference_trainer.data.samples import open_data
from reference_trainer.loop.startup import build
from reference_trainer.preflight import lr_finder
from reference_trainer.preflight.lr_finder import find_learning_rate, lr_range_test
from reference_trainer.preflight.steps import steps_on
from reference_trainer.step.step import StepContext

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")


def snapshot(context: StepContext) -> dict[str, torch.Tensor]:
    found = {f"model.{n}": p for n, p in context.model.named_parameters()} | {
        f"weights.{n}": w for n, w in context.optimizer.weights.items()
    }
    found |= {f"state.{n}": t for n, t in context.optimizer.state().items()}
    return {name: t.detach().clone() for name, t in found.items()}


@pytest.mark.parametrize("recipe", ["fp32", "master-bf16", "pure-bf16", "mixed-fp16"])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_weights_and_optimizer_are_put_back_to_the_bit(
    tiny: MakeConfig, text: Path, recipe: str, steps_before: int
) -> None:
    config = tiny(recipe=recipe)
    context = build(config, CPU, open_data(text, 256, 32))
    steps_on(context, 1, steps_before)
    before, rate = snapshot(context), context.optimizer.lr
    lr_range_test(context, 1e-5, 1e-1, 12)
    after = snapshot(context)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert context.optimizer.lr == rate and context.config == config
    assert all(w.grad is None for w in (*context.model.parameters(), *context.optimizer.weights.values()))
    # and the run goes on as if nothing had been
    other = build(config, CPU, open_data(text, 256, 32))
    steps_on(other, 1, steps_before)
    ours, theirs = (steps_on(one, steps_before + 1, steps_before + 2) for one in (context, other))
    assert [loss for loss, _ in ours] == [loss for loss, _ in theirs]


def test_every_step_has_its_rate_and_a_bad_one_ends_the_test(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = build(tiny(), CPU, open_data(text, 256, 32))
    used: list[float] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda o: (used.append(o.param_groups[0]["lr"]), step(o)))
    found = lr_range_test(context, 1e-7, 1e-1, 20)
    assert tuple(used) == found.rates == rates_between(1e-7, 1e-1, 20)[: len(used)]
    losses = iter([5.0, 5.0, math.nan])
    monkeypatch.setattr(lr_finder, "steps_on", lambda *_: [(next(losses), 0.0)])
    stopped = lr_range_test(context, 1e-7, 1e-1, 20)
    assert stopped.exploded and stopped.losses == (5.0, 5.0) and stopped.suggested_peak_lr is None


def test_the_suggestion_of_a_real_run_trains(tiny: MakeConfig, text: Path) -> None:
    """On the tiny model: the suggested rate is in the range where it learns, and better than its ends."""
    found = find_learning_rate(tiny(), text, "cpu", (1e-7, 10.0, 100), print)
    assert found.suggested_peak_lr is not None and 1e-4 < found.suggested_peak_lr < 1.0, found
    final = {}
    for rate in (1e-6, found.suggested_peak_lr, 10.0):
        context = build(tiny(steps=40, peak_lr=rate, min_lr=0.0), CPU, open_data(text, 256, 32))
        final[rate] = steps_on(context, 1, 40)[-1][0]
    best = final[found.suggested_peak_lr]
    assert all(best < loss or math.isnan(loss) for rate, loss in final.items() if rate != found.suggested_peak_lr)


@pytest.mark.parametrize("span", [(1e-2, 1e-3, 100), (1e-3, 1e-2, 5)])
def test_spans_that_show_nothing_are_refused(tiny: MakeConfig, text: Path, span: tuple[float, float, int]) -> None:
    with pytest.raises(InputError):
        find_learning_rate(tiny(), text, "cpu", span, print)
