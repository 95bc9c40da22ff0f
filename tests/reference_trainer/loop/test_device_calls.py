"""A whole run on a GPU that is not there: which functions of the driver its steps call, and how often they wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from planner.config.run import RunConfig
from reference_trainer import train as loop
from reference_trainer.metrics.records import RunResult
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import PendingStep
from tests.reference_trainer.conftest import evaluated
from tests.reference_trainer.fake_cuda import FakeCuda
from tests.reference_trainer.launches import Launches

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
STEPS, ACCUMULATION, STATISTICS = 20, 3, 15


class OnTheHost(TorchFunctionMode):
    """Tensors that are asked for on the GPU are made on the host."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        if _is_gpu(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return func(*("cpu" if _is_gpu(one) else one for one in args), **kwargs)


def _is_gpu(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type == "cuda"


class Event:
    """A CUDA event that counts its calls."""

    def __init__(self, calls: Counter[str]) -> None:
        self.calls = calls
        calls["Event"] += 1

    def record(self) -> None:
        self.calls["Event.record"] += 1

    def elapsed_time(self, end: Event) -> float:
        self.calls["Event.elapsed_time"] += 1
        return 1.0


@pytest.fixture
def device_calls(fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of the device by name since the first step began, waits included."""
    calls, real_to = fake_cuda.calls, torch.Tensor.to

    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if any(map(_is_gpu, (*args, *kwargs.values()))):
            calls["copy to the device" + ("" if kwargs.get("non_blocking") else ", waiting")] += 1
        return real_to(tensor, *("cpu" if _is_gpu(one) else one for one in args), **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: Event(calls))
    monkeypatch.setattr("reference_trainer.metrics.log_window.power_meter", lambda _: SimpleNamespace(watts=lambda: 1))
    return calls


# what is switched on, and how many log windows and evaluations a run of 20 steps has with it
SWITCHED_ON: dict[str, tuple[dict[str, Any], int, int]] = {
    "nothing": ({}, 2, 0),
    "saves and evaluations": ({"checkpoint_every": 5, "evaluation_every": 4}, 8, 5),
    "statistics": ({"statistics_every": STATISTICS}, 2, 0),
    "noise scale": ({"noise_scale": True}, 2, 0),
}


class Counted:
    """A run on the GPU that is not there: calls of the device in its loop, and operators of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: Counter[str]) -> None:
        self.calls: Counter[str] = Counter()
        self.launched: list[int] = []
        real_loop, self.device = loop._loop, calls

        def counted_loop(*given: Any) -> None:
            calls.clear()  # those of the start
            real_loop(*given)
            self.calls = calls.copy()

        monkeypatch.setattr(loop, "_loop", counted_loop)
        monkeypatch.setattr(loop, "train_step", self._step)

    def _step(self, context: StepContext, step: int) -> PendingStep:
        with Launches() as seen:
            done = train_step(context, step)
        self.launched.append(seen.number)
        return done

    def run(self, tiny: MakeConfig, train: Train, name: str) -> None:
        """Train with what `name` switches on."""
        self.launched.clear()
        options = dict(SWITCHED_ON[name][0])
        saves, evaluations = options.pop("checkpoint_every", None), options.pop("evaluation_every", None)
        config = tiny(steps=STEPS, accumulation=ACCUMULATION, checkpoint_every=saves)
        if evaluations:
            config = evaluated(config, every=evaluations, tokens=128)
        with OnTheHost():
            train(config, name, device="cuda:1", **options)


@pytest.mark.skipif(torch.version.cuda is not None, reason="a CUDA build asks the driver itself, past the made-up GPU")
def test_a_step_calls_the_device_as_often_whatever_is_switched_on(
    tiny: MakeConfig, train: Train, device_calls: Counter[str], held_out: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy waits, no step does; memory is read once for a log window; where nothing is due no operator is added."""
    counted, ordinary = Counted(monkeypatch, device_calls), dict[str, set[int]]()
    for name, (_, windows, evaluations) in SWITCHED_ON.items():
        counted.run(tiny, train, name)
        assert counted.calls.pop("set_device") == 1, "by the thread that prefetches"
        counted.calls.pop("get_device_name")  # each save writes it
        expected = {"Event": 2 * STEPS, "Event.record": 2 * STEPS, "Event.elapsed_time": STEPS}
        expected |= {"copy to the device": 2 * ACCUMULATION * STEPS, "memory_stats": windows, "mem_get_info": windows}
        expected["copy to the device"] += 2 * 2 * evaluations  # two passes, ids and targets
        assert counted.calls == expected, name
        assert len(counted.launched) == STEPS
        ordinary[name] = {n for step, n in enumerate(counted.launched, 1) if step > 1 and step % STATISTICS}
    assert all(len(numbers) == 1 for numbers in ordinary.values()), ordinary
    measured = ordinary.pop("noise scale")  # in every step
    assert set.union(*ordinary.values()) == ordinary["nothing"] and min(measured) > min(ordinary["nothing"])
