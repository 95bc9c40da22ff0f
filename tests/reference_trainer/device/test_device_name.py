"""The name of the processor that a run is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reference_trainer.device import device
from reference_trainer.device.device import device_name

TABLE = "processor\t: 0\nvendor_id\t: Maker\nmodel name\t: Fast Processor 9\nflags\t: a b\nmodel name\t: Another\n"


@pytest.mark.parametrize("text, name", [(TABLE, "Fast Processor 9"), ("processor\t: 0\n", "cpu"), (None, "cpu")])
def test_a_processor_has_the_name_that_its_system_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, name: str
) -> None:
    table = tmp_path / "cpuinfo"
    if text is not None:
        table.write_text(text, encoding="utf-8")
    monkeypatch.setattr(device, "Path", lambda _: table)
    assert device_name(torch.device("cpu")) == name
