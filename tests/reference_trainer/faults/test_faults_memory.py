"""Fault 26: memory runs out in each phase; the message has predicted, actual, and a change that is predicted to fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.analysis.fitting import predicted_peak
from planner.config.options import flag
from planner.config.run import HardwareConfig, RunConfig
from planner.counts.run import resolve, tokens_per_step
from planner.errors import PlanError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from reference_trainer import execute
from reference_trainer.checkpoint.checkpoint import load, save, state_of
from reference_trainer.data.samples import batch, open_data
from reference_trainer.device.device import DeviceMemory
from reference_trainer.device.out_of_memory import capacity_for_tensors, explain_shortage, explained, held_by_others
from reference_trainer.loop.startup import build
from reference_trainer.model.gpt import GPT

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
MEMBERS = {flag(name): name for name in Flags.__dataclass_fields__}
GIB = 2**30


def change_in(message: str, config: RunConfig) -> RunConfig:
    """The config that the flags of a message give when they are typed, as they stand there."""
    (said,) = re.findall(r"plan again with --config RUN_TOML (.*?) \(the same global batch\)", message)
    words = dict(re.findall(r"(--[a-z-]+) ([a-z0-9-]+)", said))
    return draft(Flags(**{MEMBERS[k]: v for k, v in words.items()}), as_of="2026-11-21", version="0", base=config)


def refuse(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")


class Fault:
    """Forward, update, evaluation and resume of the tiny model, each under the explanation."""

    def __init__(self, config: RunConfig, text: Path, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.data = open_data(text, config.model.vocab, config.training.seq)
        self.context = build(config, CPU, self.data)

    def forward(self) -> None:
        with explained(self.config, CPU, "in step 1"):
            self.context.model(*batch(self.data, self.config, 0, self.config.training.micro_batch)[:2]).backward()

    def update(self) -> None:
        self.forward()
        with explained(self.config, CPU, "in step 1"):
            self.context.optimizer.step()

    def evaluate(self) -> None:
        self.forward()
        self.context.model.eval()
        with torch.no_grad():
            self.forward()

    def resume(self) -> None:
        state = state_of(self.config, self.data.fingerprint, 1, 1)
        load(save(self.folder, self.context.optimizer, state), self.context.optimizer, state)
        self.forward()


def in_evaluation(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args: forward(self, *args) if torch.is_grad_enabled() else refuse()


PHASES = {
    "first forward": (GPT, "forward", refuse, Fault.forward),
    "first update": (torch.optim.AdamW, "step", refuse, Fault.update),
    "first evaluation": (GPT, "forward", in_evaluation(GPT.forward), Fault.evaluate),
    "after resume": (GPT, "forward", refuse, Fault.resume),
}


@pytest.mark.parametrize("phase", PHASES)
def test_fault_26_out_of_memory_names_a_change_that_fits(
    tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    owner, name, raising, act = PHASES[phase]
    config = tiny(micro_batch=16, accumulation=1, vocab=4096)
    fault = Fault(config, text, tmp_path / "checkpoints")
    monkeypatch.setattr(owner, name, raising)
    with pytest.raises(PlanError) as caught:
        act(fault)
    message = caught.value.message()
    assert message.startswith("this machine ran out of memory in step 1\n"), message
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in message and "more lines" not in message
    for words in ("predicted: ", "weights ", "logits and loss ", "actual: ", " resident in this process"):
        assert words in message, message
    changed = change_in(message, config)
    assert tokens_per_step(changed) == tokens_per_step(config) and changed.model == config.model
    # the capacity of a processor is not known
    assert predicted_peak(resolve(changed)) <= predicted_peak(resolve(config)) / 2


def test_fault_26_on_a_gpu_the_change_fits_beside_what_others_hold(tiny: MakeConfig) -> None:
    config = tiny(micro_batch=64, accumulation=1, vocab=8192, seq=256, context=256)
    config = config.model_copy(update={"hardware": HardwareConfig(gpu="a100-80gb", gpus=1)})
    peak = predicted_peak(resolve(config), replay=True)
    context = capacity_for_tensors(config, 80 * GIB, None)
    assert context is not None
    context = 80 * GIB - context
    # of a card of four times the peak others hold all but half of the peak: only that half can be had
    total, mine = 4 * peak + context, peak // 2
    held = DeviceMemory(mine - 4096, mine, mine - 8192, total, GIB)
    room = capacity_for_tensors(config, total, held)
    assert room == mine
    message = explain_shortage(config, total, "in step 7", "CUDA out of memory.", held).message()
    assert message.startswith("a100-80gb ran out of memory in step 7\n")
    assert " allocated, " in message and " of the whole device in use" in message
    changed = change_in(message, config)
    assert predicted_peak(resolve(changed), replay=True) <= mine and tokens_per_step(changed) == tokens_per_step(config)


def test_what_other_processes_hold_is_not_compared_with_the_prediction(tiny: MakeConfig) -> None:
    """The driver's figure is of the whole card: with another process on it the row is unknown, and not outside."""
    config = tiny().model_copy(update={"hardware": HardwareConfig(gpu="h100-80gb", gpus=1)})
    context = 80 * GIB - (capacity_for_tensors(config, 80 * GIB, None) or 0)
    for others, reported in ((0, True), (GIB // 2, True), (2 * GIB, False)):
        used = 10 * GIB + context + others
        assert held_by_others(config, used, 10 * GIB) == others
        result = SimpleNamespace(device_used_bytes=used, peak_reserved_bytes=10 * GIB)
        assert execute._own_device_used(config, result) == (used if reported else None)  # type: ignore[arg-type]
    assert held_by_others(config, None, None) == 0 == held_by_others(tiny(), 5, 1)


def test_fault_26_a_prediction_that_would_have_fitted_is_doubted(tiny: MakeConfig) -> None:
    config = tiny(micro_batch=16, accumulation=1, vocab=4096)
    message = explain_shortage(config, 80 * GIB, "in step 1", "CUDA out of memory.", None).message()
    assert "actual: unknown; the device has 80 GiB" in message
    assert "by the prediction it would have fitted" in message
    assert predicted_peak(resolve(change_in(message, config))) <= 0.9 * predicted_peak(resolve(config))


def test_fault_26_where_nothing_fits_it_says_so(tiny: MakeConfig) -> None:
    message = explain_shortage(tiny(), 1000, "before the first step", "CUDA out of memory.", None).message()
    assert "no micro-batch fits" in message and "RUN_TOML" not in message


def test_other_errors_pass(tiny: MakeConfig) -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(tiny(), CPU, "in step 1"):
        raise RuntimeError("shapes do not match")
