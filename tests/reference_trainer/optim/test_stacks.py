"""The trainer's own optimizers update tensors of one shape together: the same bits, fewer launches, planned bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.memory_reference import pytorch_track
from planner.config.run import RunConfig
from planner.counts import stacks
from planner.counts.run import resolve
from planner.memory.phases import simulate_run
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.updater import make_optimizer
from tests.reference_trainer.launches import Launches


@pytest.mark.parametrize(("name", "state"), [("lion", None), ("lion", "bf16"), ("adamw", "bf16")])
@pytest.mark.parametrize("matrices", [0, 2])
def test_stacks_of_any_size_give_the_same_bits_and_planned_bytes(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, name: str, state: str | None, matrices: int
) -> None:
    config = tiny(layers=3)
    chosen = config.optimizer.model_copy(update={"name": name, "implementation": "for-loop", "state_dtype": state})
    config = config.model_copy(update={"optimizer": chosen})

    def updated() -> tuple[dict[str, torch.Tensor], int]:
        torch.manual_seed(0)
        model = build_model(config)
        updater = make_optimizer(model, config)
        updater.set_lr(0.01)
        ids = torch.arange(64).reshape(2, 32) % 50
        launches = 0
        for _ in range(2):
            updater.backward(model(ids, ids.flip(1)) / ids.numel())
            with Launches() as counted:
                updater.step()
            launches = counted.number
            updater.zero_grad()
        return {**updater.weights, **updater.state()}, launches

    together, few = updated()
    largest = max(w.numel() for key, w in together.items() if key.startswith("blocks"))
    monkeypatch.setattr(stacks, "STACK_ELEMENTS", max(1, matrices * largest))  # of 0 matrices: every tensor alone
    alone, many = updated()
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[key], alone[key]) for key in alone)
    assert few < (1.0 if matrices else 0.75) * many
    seen = pytorch_track(config).by_phase()
    planned = {phase.phase: phase.peak_bytes for phase in simulate_run(resolve(config)).phases}
    for phase in ("first_optimizer_step", "optimizer_step"):
        assert abs(planned[phase] - seen[phase]) <= 64, phase
