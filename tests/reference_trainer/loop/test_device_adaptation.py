"""What this machine's profile is in a run's plan, and that no profile, noisy or quiet, chooses a type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.errors import PlanError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.profile_cache import load_profile
from planner.inputs.run_toml import load_config, write_config
from planner.plan import estimate
from planner.presets import UNLISTED_GPU
from reference_trainer.demo import sized_config
from reference_trainer.device import device as devices
from reference_trainer.device.device import has_bf16
from reference_trainer.loop import device_adaptation
from reference_trainer.loop.device_adaptation import adapt_to_device
from tests.machine_profile import quiet
from tests.reference_trainer.fake_cuda import FakeCuda

CPU = torch.device("cpu")
BUSY = None  # what a machine that stays busy gives


def drafted(**flags: str) -> RunConfig:
    words = {"params": "125M", "steps": "10", "gpu": "cpu"} | flags
    return draft(Flags(**words), as_of="2026-11-21", version="test")


class Machine:
    """A machine that gives these measurements in turn, with or without bf16 instructions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, found: Sequence[object], bf16: bool) -> None:
        self.file, self.said, self.left = folder / "cache/profile.json", list[str](), list(found)
        monkeypatch.setattr(device_adaptation, "TRIED", set())
        monkeypatch.setattr(device_adaptation, "cached_profile", lambda device, log: load_profile(self.file, log))
        monkeypatch.setattr(device_adaptation, "quiet_profile", lambda *_: self.left.pop(0))
        monkeypatch.setattr(device_adaptation, "profile_path", lambda device: self.file)
        monkeypatch.setattr(device_adaptation, "has_bf16", lambda device: bf16)

    def adapted(self, config: RunConfig, **named: Any) -> RunConfig:
        return adapt_to_device(config, CPU, self.said.append, **named)


def recipes(config: RunConfig) -> list[str]:
    return [config.training.recipe, *(a.value for a in config.provenance.assumptions if a.key == "recipe")]


@pytest.mark.parametrize("found", [quiet(), BUSY], ids=["quiet", "busy"])
def test_the_type_is_that_of_the_hardware_whatever_was_measured(
    found: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_instructions = Machine(monkeypatch, tmp_path / "a", [found], bf16=True).adapted(drafted())
    assert recipes(with_instructions) == ["mixed-bf16", "mixed-bf16"]
    machine = Machine(monkeypatch, tmp_path / "b", [found], bf16=False)
    assert recipes(machine.adapted(drafted())) == ["fp32", "fp32"]
    assert any("no bf16 instructions: training in fp32" in line for line in machine.said)


def test_a_type_that_was_typed_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, tmp_path, [quiet()], bf16=False)
    assert recipes(machine.adapted(drafted(recipe="mixed-bf16"))) == ["mixed-bf16"]


def test_a_quiet_profile_is_kept_and_used_and_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, tmp_path, [quiet()], bf16=True)
    config = machine.adapted(drafted())
    assert config.profile == quiet() == load_profile(machine.file)
    assert machine.adapted(drafted()).profile == quiet() and machine.left == []


def test_a_busy_machine_leaves_the_plan_without_a_speed_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, [BUSY], bf16=True)
    config = machine.adapted(drafted())
    assert config.profile is None and not machine.file.exists()
    (reason,) = [a for a in config.provenance.assumptions if a.key == "profile"]
    assert "the machine was busy" in reason.source
    assert estimate(config).throughput.basis == "unknown"
    assert machine.adapted(config) == config  # this process does not measure it a second time
    machine.left.append(quiet())
    device_adaptation.TRIED.clear()
    again = machine.adapted(config)
    assert again.profile == quiet() and not any(a.key == "profile" for a in again.provenance.assumptions)


def test_a_cache_that_cannot_be_used_is_said_once_and_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, [quiet()], bf16=True)
    machine.file.parent.mkdir()
    machine.file.write_text('{"schema": 2, "relative_noise": 0.4, "kernels": {"add": {"fp32": [[1, 1e-6]]}}}')
    assert machine.adapted(drafted()).profile == quiet()
    assert sum("is left aside" in line for line in machine.said) == 1
    machine.said.clear()
    assert machine.adapted(drafted()).profile == quiet() and machine.said == []


def test_a_profile_that_was_named_is_used_and_never_another_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, [], bf16=True)
    named = quiet(torch="0.1", note="made elsewhere")
    assert machine.adapted(drafted(), profile=named).profile == named
    for other in ({"device_name": "another processor"}, {"device": "cuda", "device_name": "NVIDIA H200"}):
        with pytest.raises(PlanError) as caught:
            machine.adapted(drafted(), profile=quiet(**other))
        assert str(other["device_name"]) in caught.value.what and caught.value.remedy


def test_a_config_keeps_its_own_profile_while_it_is_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, [quiet()], bf16=True)
    own = quiet(note="the config's")
    assert machine.adapted(drafted().model_copy(update={"profile": own})).profile == own
    stale = own | {"torch": "0.1"}
    assert machine.adapted(drafted().model_copy(update={"profile": stale})).profile == quiet()


@pytest.mark.parametrize(
    ("found", "has"), [({}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"amx_bf16": False}, False)]
)
def test_bf16_is_what_pytorch_reports_of_the_processor(
    found: dict[str, bool], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert has_bf16(CPU) is has


@pytest.mark.parametrize(("driver_name", "gpu"), [("NVIDIA H200", "h200"), ("Example Nonesuch 9000", UNLISTED_GPU)])
def test_a_gpu_without_a_preset_trains_and_nothing_of_another_is_predicted_for_it(
    fake_cuda: FakeCuda, driver_name: str, gpu: str, tmp_path: Path
) -> None:
    fake_cuda.name, said = driver_name, list[str]()
    config = adapt_to_device(drafted(gpu="a100-80gb"), torch.device("cuda", 1), said.append)
    assert config.hardware.gpu == gpu
    assert any(driver_name in line and "its speed and memory are unknown" in line for line in said) is (gpu != "h200")
    plan = estimate(config, replay=True)
    known = (plan.memory.usable_bytes, plan.throughput.step_seconds.value, plan.cost.usd_per_gpu_hour)
    assert all(value is None for value in known) is (gpu == UNLISTED_GPU), known
    assert (plan.memory.fits is None) is (gpu == UNLISTED_GPU)
    on_another = estimate(drafted(gpu="a100-80gb", runtime="eager"), replay=True).memory
    assert plan.memory.peak_requested_bytes == on_another.peak_requested_bytes, "tensors are those of any card"
    write_config(tmp_path / "run.toml", config)
    assert load_config(tmp_path / "run.toml").hardware.gpu == gpu
    if gpu == UNLISTED_GPU:
        assert driver_name in next(a.source for a in config.provenance.assumptions if a.key == "gpu")


RUNTIMES: dict[str, tuple[dict[str, str], str, bool, str]] = {
    "nobody chose": ({}, "NVIDIA H200", True, "compiled"),
    "a card that no preset describes": ({}, "Example Nonesuch 9000", True, "compiled"),
    "without Triton": ({}, "NVIDIA H200", False, "eager"),
    "a card that Triton does not know": ({}, "Tesla P100-SXM2-16GB", True, "eager"),
    "planned for such a card": ({"gpu": "p100-16gb"}, "NVIDIA H200", True, "compiled"),
    "memory that is not known": ({"dropout": "0.1"}, "NVIDIA H200", True, "eager"),
    "chosen": ({"runtime": "eager"}, "NVIDIA H200", True, "eager"),
}


@pytest.mark.parametrize("case", RUNTIMES)
def test_a_run_on_a_gpu_is_compiled_where_the_plan_of_its_card_is(
    case: str, fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, fake_cuda.name, triton, runtime = RUNTIMES[case]
    monkeypatch.setattr(device_adaptation, "can_compile", lambda device: triton)
    said, config = list[str](), drafted(**{"gpu": "a100-80gb"} | flags)
    found = adapt_to_device(config, torch.device("cuda", 1), said.append)
    assert found.training.runtime == runtime
    assumed = [a.value for a in found.provenance.assumptions if a.key == "runtime"]
    assert assumed == ([] if "runtime" in flags else [runtime])
    assert any("Triton" in line for line in said) is (case == "without Triton")
    assert adapt_to_device(found, torch.device("cuda", 1), said.append).training.runtime == runtime, "and again"


def test_on_a_processor_nothing_is_compiled_that_nobody_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for_a_card = drafted(gpu="a100-80gb")
    assert for_a_card.training.runtime == "compiled"
    found = Machine(monkeypatch, tmp_path, [quiet()], bf16=True).adapted(for_a_card)
    assert found.training.runtime == "eager"
    assert not any(a.key == "runtime" for a in found.provenance.assumptions)
    chosen = Machine(monkeypatch, tmp_path, [quiet()], bf16=True).adapted(drafted(runtime="compiled"))
    assert chosen.training.runtime == "compiled"


@pytest.mark.parametrize(("driver_name", "gpu"), [("NVIDIA H200", "h200"), ("Example Nonesuch 9000", UNLISTED_GPU)])
def test_the_demo_runs_on_any_gpu(fake_cuda: FakeCuda, driver_name: str, gpu: str) -> None:
    fake_cuda.name, said = driver_name, list[str]()
    config = sized_config(0.5, torch.device("cuda", 0), "0", said.append)
    assert config.hardware.gpu == gpu
    assert any("the speed is unknown" in line for line in said) is (gpu == UNLISTED_GPU)
