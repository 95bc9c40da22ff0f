"""A stand-in for torch.cuda where there is no GPU: it records which functions were called, and for which card."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch

GIB = 2**30


class FakeCuda:
    """`cards` GPUs of one name. `current`: the current device of each thread; `calls`: how often a function ran."""

    def __init__(self, cards: int = 2, name: str = "NVIDIA H200", capacity: int = 80 * GIB) -> None:
        self.cards, self.name, self.capacity = cards, name, capacity
        self._current = threading.local()
        self.calls: Counter[str] = Counter()
        self.indices: set[tuple[str, int]] = set()  # function, card that it was asked about
        self.settings = ""

    @property
    def current(self) -> int:
        """The current device of this thread."""
        return int(getattr(self._current, "index", 0))

    def install(self, patch: pytest.MonkeyPatch) -> FakeCuda:
        """Put it in place of torch.cuda's functions."""
        answers: dict[str, Any] = {
            "get_device_name": lambda index: self.name,
            "memory_stats": lambda index: {
                **{f"{kind}_bytes.all.peak": 2 * GIB for kind in ("allocated", "reserved", "requested")},
                **{f"{kind}_bytes.all.current": GIB for kind in ("allocated", "reserved", "requested")},
                "num_alloc_retries": 0,
            },
            "mem_get_info": lambda index: (self.capacity // 2, self.capacity),
            "memory_allocated": lambda index: GIB,
            "memory_reserved": lambda index: GIB,
            "reset_peak_memory_stats": lambda index: None,
            "synchronize": lambda index: None,
        }
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, self._asked(name, answer))
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: self.cards)
        patch.setattr(torch.cuda, "current_device", lambda: self.current)
        patch.setattr(torch.cuda, "set_device", self._set)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patch.setattr(torch._C, "_accelerator_getAllocatorSettings", lambda: self.settings, raising=False)
        patch.setattr(torch._C, "_accelerator_setAllocatorSettings", self._settings)
        return self

    def _asked(self, name: str, answer: Any) -> Any:
        def function(device: Any = None) -> Any:
            index = self.current if device is None else torch.device(device).index
            assert index is not None and index < self.cards, f"{name} of {device}, which has no number"
            self.calls[name] += 1
            self.indices.add((name, index))
            return answer(index)

        return function

    def _set(self, device: Any) -> None:
        if not isinstance(device, int) and device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        self._current.index = torch.device("cuda", device).index if isinstance(device, int) else device.index
        self.calls["set_device"] += 1

    def _settings(self, text: str) -> None:
        self.settings = text
