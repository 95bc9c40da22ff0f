"""The host copy of an asynchronous save: exact bytes, page-locked for a GPU; without memory the save has failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.config.loop import CheckpointConfig
from planner.config.run import HardwareConfig, RunConfig
from planner.counts.run import saves_in_background
from reference_trainer.checkpoint import host_copy, saver
from reference_trainer.checkpoint.checkpoint import state_of
from reference_trainer.checkpoint.host_copy import HostCopy
from reference_trainer.checkpoint.saver import Saver, SaveReport
from reference_trainer.loop import job
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.updater import make_optimizer
from tests.reference_trainer.harm import names

MakeConfig = Callable[..., RunConfig]


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


class Cudart:
    """CUDA's runtime: notes what is page-locked, or refuses."""

    def __init__(self, patch: pytest.MonkeyPatch, code: int = 0) -> None:
        self.code, self.locked, self.waits = code, dict[int, int](), 0
        self.errors_taken = 0
        patch.setattr(host_copy, "_cudart", lambda: self)
        patch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=self._wait))
        patch.setattr(torch, "ones", self._ones)

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # CUDA's name
        if self.code == 0:
            self.locked[address] = size
        return self.code

    def cudaHostUnregister(self, address: int) -> int:  # CUDA's name
        del self.locked[address]
        return 0

    def _ones(self, size: int, device: torch.device) -> Any:
        self.errors_taken += 1
        return torch.zeros(size)

    def _wait(self) -> None:
        self.waits += 1


def flags_on_gpu() -> Any:
    return torch.tensor([True, False]).as_subclass(OnGpu)


def test_the_host_copy_is_one_block_used_again() -> None:
    tensors = {"a": torch.arange(5, dtype=torch.int8), "b": torch.randn(3, 4).T, "c": torch.tensor(2.0).bfloat16()}
    host, flags = HostCopy(), torch.tensor([True, False])
    first, copied = host.of({"file": tensors}, flags)
    block = host._block
    second, _ = host.of({"file": tensors}, flags)
    assert host._block is block and block.numel() == 4 * 64
    assert copied.tolist() == [True, False]
    for name, t in tensors.items():
        assert (
            torch.equal(second["file"][name], t) and second["file"][name].data_ptr() == first["file"][name].data_ptr()
        )
        assert second["file"][name].data_ptr() != t.data_ptr()


def test_exactly_the_bytes_are_locked_and_one_wait_copies_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cudart, host = Cudart(monkeypatch), HostCopy()
    contents = {"file": {"a": torch.randn(3 * 64), "b": torch.randn(5 * 64)}}  # 2,048 bytes; flags take 64 more
    copies, _ = host.of(contents, flags_on_gpu())
    assert list(cudart.locked.values()) == [2048 + 64] and cudart.waits == 1
    assert next(iter(cudart.locked)) == copies["file"]["a"].data_ptr()
    host.of(contents, flags_on_gpu())
    assert len(cudart.locked) == 1 and cudart.waits == 2 and host.note is None
    larger = {"file": {"a": torch.randn(9 * 64)}}
    host.of(larger, flags_on_gpu())
    assert list(cudart.locked.values()) == [2304 + 64], "the smaller block is unlocked before it is freed"
    host.free()
    assert cudart.locked == {}


def test_where_locking_is_refused_the_copy_is_made_and_the_error_is_not_left_to_the_next_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cudart, host, values = Cudart(monkeypatch, code=2), HostCopy(), torch.randn(64)
    copies, _ = host.of({"file": {"a": values}}, flags_on_gpu())
    assert torch.equal(copies["file"]["a"], values) and cudart.errors_taken == 1
    assert host.note is not None and "could not be page-locked" in host.note
    host.free()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_fault_29_a_save_without_memory_has_failed_and_training_goes_on(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    config, told = tiny(), list[SaveReport]()
    updater = make_optimizer(build_model(config), config)
    options = CheckpointConfig(asynchronous=asynchronous)
    with Saver(tmp_path, updater, options, dict, told.append) as saving:
        with monkeypatch.context() as patch:
            if asynchronous:  # what the host really says
                patch.setattr(host_copy, "_places", lambda tensors: [0] * len(tensors) + [1 << 62])
            else:
                patch.setattr(saver, "finite_flags", lambda weights: torch.empty(1 << 62, dtype=torch.uint8))
            saving.save(state_of(config, "data", 1, 128))
        assert saving.failed and names(tmp_path) == []
        (report,) = told
        assert report.error is not None and "the checkpoint of step 1 could not be saved" in report.error.what
        assert "allocate memory" in report.error.why and report.error.remedy
        saving.save(state_of(config, "data", 2, 256))
    assert names(tmp_path) == ["step-00000002"] and told[-1].error is None


def test_another_error_of_a_copy_is_not_hidden(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(HostCopy, "of", broken)
    updater, said = make_optimizer(build_model(tiny()), tiny()), list[SaveReport]()
    with (
        pytest.raises(RuntimeError, match="illegal memory access"),
        Saver(tmp_path, updater, CheckpointConfig(asynchronous=True), dict, said.append) as saving,
    ):
        saving.save(state_of(tiny(), "data", 1, 128))
    assert said == []


@pytest.mark.parametrize(
    ("gpu", "chosen", "expected"),
    [("cpu", None, False), ("h100-80gb", None, True), ("cpu", True, True), ("h100-80gb", False, False)],
)
def test_saves_are_in_the_background_on_a_gpu_unless_the_config_decides(
    tiny: MakeConfig,
    train: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    gpu: str,
    chosen: bool | None,
    expected: bool,
) -> None:
    update = {"hardware": HardwareConfig(gpu=gpu, gpus=1), "checkpoints": CheckpointConfig(asynchronous=chosen)}
    config, asked = tiny(steps=1).model_copy(update=update), list[bool | None]()
    assert saves_in_background(config) is expected

    class Noted(Saver):
        def __init__(self, folder: Path, updater: Any, options: CheckpointConfig, *rest: Any) -> None:
            asked.append(options.asynchronous)
            super().__init__(folder, updater, options, *rest)

    monkeypatch.setattr(job, "Saver", Noted)
    train(config)
    assert asked == [expected]
