"""A GPU has its number everywhere, in every thread, and the allocator the segments of the plan."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from reference_trainer.data.prefetch import Prefetcher
from reference_trainer.data.samples import open_data
from reference_trainer.device.cuda_setup import apply_allocator, overruled_environment
from reference_trainer.device.device import device_name, pick_device, read_allocator, read_memory
from reference_trainer.loop import startup
from tests.reference_trainer.fake_cuda import FakeCuda

MakeConfig = Callable[..., RunConfig]
GPU = torch.device("cuda", 1)
ROOT = Path(__file__).parents[3]
# functions of torch.cuda that speak of one card: the current one unless it is named
OF_ONE_CARD = {
    "current_stream", "get_device_capability", "get_device_name", "get_device_properties", "max_memory_allocated",
    "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_reserved", "memory_stats",
    "reset_peak_memory_stats", "synchronize",
}  # fmt: skip


@pytest.mark.parametrize(("asked", "index"), [("cuda:1", 1), ("cuda", 0), (None, 0)])
def test_the_device_of_a_run_has_a_number_and_is_current(fake_cuda: FakeCuda, asked: str | None, index: int) -> None:
    device = pick_device(asked)
    assert device == torch.device("cuda", index) and fake_cuda.current == index
    assert pick_device("cuda") == device, "the card that was chosen stays"


def test_names_and_counters_are_those_of_the_cards_number(fake_cuda: FakeCuda) -> None:
    device = pick_device("cuda:1")
    read_memory(device), read_allocator(device), device_name(device)
    assert fake_cuda.indices == {(name, 1) for name in ("memory_stats", "mem_get_info", "get_device_name")}


def test_the_thread_that_prefetches_works_for_its_own_card(fake_cuda: FakeCuda) -> None:
    seen: list[int] = []

    class Batch:
        def moved(self, move: Callable[[Any], Any]) -> Batch:
            seen.append(fake_cuda.current)
            return self

    pick_device("cuda:1")
    prefetcher = Prefetcher(lambda step, micro: Batch(), 1, GPU)  # type: ignore[arg-type, return-value]
    for step in (1, 2):
        prefetcher.take(step, 0)
    prefetcher.close()
    assert len(seen) >= 4 and set(seen) == {1}, seen
    # "cuda" alone is the card of the thread that asks, as everywhere in PyTorch
    unnumbered = Prefetcher(lambda step, micro: Batch(), 1, torch.device("cuda"))  # type: ignore[arg-type, return-value]
    for step in (1, 2):
        unnumbered.take(step, 0)
    unnumbered.close()
    assert set(seen) == {1}, seen


def test_no_source_asks_pytorch_about_the_current_card_where_it_means_its_own() -> None:
    calls = [
        (path.name, node.lineno, node.func.attr)
        for path in sorted((ROOT / "reference_trainer").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in OF_ONE_CARD
        if ast.unparse(node.func.value) in ("torch.cuda", "self.cuda") and not (node.args or node.keywords)
    ]
    assert calls == []


@pytest.mark.parametrize(
    ("before", "setting", "after"),
    [
        ("", "expandable", "expandable_segments:True"),
        ("", "default", "expandable_segments:False"),
        (
            "expandable_segments:False, roundup_power2_divisions:[256:1,>:2]",
            "expandable",
            "roundup_power2_divisions:[256:1,>:2],expandable_segments:True",
        ),
        (
            "max_split_size_mb:64,expandable_segments:True",
            "default",
            "max_split_size_mb:64,expandable_segments:False",
        ),
    ],
)
def test_the_allocator_has_the_segments_of_the_config(
    fake_cuda: FakeCuda, before: str, setting: str, after: str
) -> None:
    fake_cuda.settings = before
    apply_allocator(setting, GPU)
    assert fake_cuda.settings == after


def test_a_pytorch_that_cannot_be_asked_keeps_the_settings_of_the_environment(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.11 has no function that tells them."""
    monkeypatch.delattr(torch._C, "_accelerator_getAllocatorSettings")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64,expandable_segments:False")
    apply_allocator("expandable", GPU)
    assert fake_cuda.settings == "max_split_size_mb:64,expandable_segments:True"
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    apply_allocator("default", GPU)
    assert fake_cuda.settings == "expandable_segments:False"


@pytest.mark.skipif(not hasattr(torch._C, "_accelerator_getAllocatorSettings"), reason="PyTorch 2.11 cannot be asked")
def test_pytorch_takes_these_settings() -> None:
    core: Any = torch._C
    before = core._accelerator_getAllocatorSettings()
    apply_allocator("expandable", GPU)
    try:
        assert "expandable_segments:True" in core._accelerator_getAllocatorSettings()
    finally:
        core._accelerator_setAllocatorSettings(before or "expandable_segments:False")


def test_segments_are_chosen_before_the_first_tensor_is_there(
    fake_cuda: FakeCuda, tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Built(Exception):
        pass

    def stop(*_: object) -> None:
        raise Built(fake_cuda.settings)

    monkeypatch.setattr(startup, "build_model", stop)
    config = tiny(allocator="expandable")
    with pytest.raises(Built, match="expandable_segments:True"):
        startup.build(config, GPU, open_data(text, 256, 32))
    fake_cuda.settings = ""
    with pytest.raises(Built, match=r"^$"):
        startup.build(config, torch.device("cpu"), open_data(text, 256, 32))


def test_an_environment_that_asks_for_other_segments_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64,expandable_segments:True")
    message = overruled_environment("default", GPU)
    assert message is not None and "PYTORCH_CUDA_ALLOC_CONF asks for expandable_segments:True" in message
    assert "--allocator expandable" in message
    assert overruled_environment("expandable", GPU) is overruled_environment("default", torch.device("cpu")) is None
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")  # it comes first
    assert overruled_environment("default", GPU) is None
