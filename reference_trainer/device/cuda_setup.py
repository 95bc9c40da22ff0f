"""Prepares PyTorch for one GPU: the current device of every thread that uses it, and the allocator's segments.

Work that names no device goes to PyTorch's current one, which is the first card in each new thread: events, streams and
pinned memory are made there. So the device of a run always has its number, and each thread sets it.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from typing import Any

import torch

SEGMENTS = "expandable_segments"
ENVIRONMENT = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the first that is set counts, as in PyTorch
_SEGMENTS_ITEM = re.compile(rf"(?:^|,)\s*{SEGMENTS}\s*:\s*(\w+)\s*")


def use_device(device: torch.device) -> torch.device:
    """The device with its number, as PyTorch's current device in this thread: "cuda" is the one that is current now."""
    if device.type != "cuda":
        return device
    numbered = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    torch.cuda.set_device(numbered)
    return numbered


def thread_initializer(device: torch.device) -> Callable[[], None] | None:
    """What a thread that works for `device` must call first; None on a CPU. "cuda" alone: the one of this thread."""
    if device.type != "cuda":
        return None
    numbered = use_device(device)
    return lambda: torch.cuda.set_device(numbered)


def release_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more: cycles of references first, then the allocator's unused segments."""
    gc.collect()  # a compiled model is in cycles of its own
    if device.type == "cuda":
        torch.cuda.empty_cache()


def apply_allocator(setting: str, device: torch.device) -> None:
    """Give PyTorch's allocator the segments that the plan counts on: `hardware.allocator` of the config.

    It holds for segments that are taken from now on; other settings of the environment stay.
    """
    if device.type != "cuda":
        return
    core: Any = torch._C  # torch.cuda's function of that purpose warns that it is deprecated
    others = _SEGMENTS_ITEM.sub("", _settings_so_far()).lstrip(", ")
    wanted = f"{SEGMENTS}:{setting == 'expandable'}"
    core._accelerator_setAllocatorSettings(f"{others},{wanted}" if others else wanted)


def _settings_so_far() -> str:
    """The allocator's settings; PyTorch 2.11 cannot be asked, and has those of the environment."""
    asked = getattr(torch._C, "_accelerator_getAllocatorSettings", None)
    return next((os.environ[name] for name in ENVIRONMENT if name in os.environ), "") if asked is None else str(asked())


def overruled_environment(setting: str, device: torch.device) -> str | None:
    """A message if the environment asks for other segments than the config; None if it does not."""
    name = next((name for name in ENVIRONMENT if name in os.environ), None)
    found = None if name is None else _SEGMENTS_ITEM.search(os.environ[name])
    if device.type != "cuda" or found is None or (found[1].lower() == "true") == (setting == "expandable"):
        return None
    other = "default" if setting == "expandable" else "expandable"
    return (
        f"{name} asks for {found[0].strip(', ')}, the plan was made with --allocator {setting}, which is used; "
        f"plan with --allocator {other} to have the other"
    )
