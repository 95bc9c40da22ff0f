"""Tensors are read from a checkpoint's files, not mapped: a file that is cut short meanwhile is one message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from planner.errors import CheckpointError
from reference_trainer.checkpoint.tensor_file import _DTYPES, TensorFile


def test_what_is_read_is_what_the_library_reads(tmp_path: Path) -> None:
    path, bytes_of = tmp_path / "m.safetensors", torch.arange(64, dtype=torch.uint8)
    tensors = {
        str(dtype): (bytes_of % 2 if dtype is torch.bool else bytes_of).clone().view(dtype)
        for dtype in _DTYPES.values()
    }
    tensors |= {"scalar": torch.tensor(1.5), "none": torch.empty(0, 3), "2-D": torch.randn(5, 7)}
    save_file(tensors, path)
    found, expected = TensorFile(path), load_file(path)
    assert set(found) == set(expected) == set(tensors) and len(found) == len(tensors) and "other" not in found
    for name, tensor in expected.items():
        assert found.kind(name) == (tensor.shape, tensor.dtype) == (found[name].shape, found[name].dtype)
        assert torch.equal(found[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


def test_fault_49_a_file_that_is_cut_short_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.randn(1000), "b": torch.randn(1000)}, path)
    opened = TensorFile(path, "bring it back")
    kept = opened["a"]
    os.truncate(path, path.stat().st_size - 4001)
    assert torch.isfinite(kept).all()  # of a map, this page would be gone
    with pytest.raises(CheckpointError, match="cut short: a ends") as caught:
        opened["a"]
    assert caught.value.remedy == "bring it back"
    with pytest.raises(CheckpointError, match="cannot be read"):
        TensorFile(path)
    path.unlink()
    os.mkfifo(path)
    for read in (lambda: opened["b"], lambda: TensorFile(path)):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read()
