"""Faults of data: each is named with its file at the start, before a step is taken and before a device sees it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planner.config.run import RunConfig
from planner.errors import DataError
from reference_trainer.data.corpus.formats import header, token_file
from reference_trainer.data.samples import batch, open_data

TOKENS = np.arange(100, dtype="<u2")
GOOD = header(100, "<u2") + TOKENS.tobytes()


def magic(content: bytes) -> bytes:
    return b"\1\2\3\4" + content[4:]


def version(content: bytes) -> bytes:
    return content[:4] + b"\x09\0\0\0" + content[8:]


def large(content: bytes) -> bytes:
    return content[:-4] + b"\xff\xff" + content[-2:]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (magic, "not its magic number"),
        (version, "shard of version 9"),
        (lambda c: c[:-1], "header says 100 tokens, 1224 bytes in all; the file has 1223"),
        (lambda c: c + b"\0\0", "the file has 1226"),
        (lambda c: c[: 1024 + 100], "the file has 1124"),
        (lambda c: c[:500], "inside its header"),
        (lambda c: c[:8] + b"\xff\xff\xff\xff" + c[12:], "header says -1 tokens"),
        (large, r"token 65535 in .*\n.*token 98 of the file, byte 1220"),
        (lambda c: b"", "is empty"),
        (lambda c: header(0, "<u2"), "is empty"),
        (lambda c: c[1024:1041], "odd size, 17 bytes"),
        (lambda c: header(16, "<u2") + c[1024 : 1024 + 32], "too few for one sequence of 16"),
    ],
)
@pytest.mark.parametrize("name", ["only", "fineweb_train_000002"])
def test_fault_14_a_corrupt_shard_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str, name: str
) -> None:
    path = tmp_path / f"{name}.bin"
    path.write_bytes(GOOD)
    open_data(path, 200, 16)
    path.write_bytes(damage(GOOD))
    with pytest.raises(DataError, match=words) as caught:
        open_data(path, 200, 16)
    assert f"{name}.bin" in caught.value.what and caught.value.why and caught.value.remedy


def test_fault_14_the_bad_one_of_several_shards_is_named(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"x_train_{number}.bin").write_bytes(GOOD)
    (tmp_path / "x_train_2.bin").write_bytes(large(GOOD))
    with pytest.raises(DataError, match=r"x_train_2\.bin.*\n.*token 98 of the file, byte 1220"):
        open_data(tmp_path, 200, 16)
    (tmp_path / "x_train_2.bin").write_bytes(GOOD[:-2])
    with pytest.raises(DataError, match=r"x_train_2\.bin' is damaged"):
        open_data(tmp_path, 200, 16)


def test_fault_14_an_unreadable_shard(tmp_path: Path) -> None:
    (tmp_path / "x_train_1.bin").write_bytes(GOOD)
    (tmp_path / "x_train_2.bin").mkdir()
    with pytest.raises(DataError, match="cannot read the training data"):
        open_data(tmp_path, 200, 16)
    (tmp_path / "x_train_2.bin").rmdir()
    (tmp_path / "x_train_2.bin").symlink_to("nowhere")
    with pytest.raises(DataError, match="cannot read the training data"):
        open_data(tmp_path, 200, 16)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_fault_14_a_shard_under_two_names(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    (tmp_path / "x_train_1.bin").write_bytes(GOOD)
    link(tmp_path / "x_train_1.bin", tmp_path / "x_val_0.bin")
    with pytest.raises(DataError, match="one file under two names"):
        open_data(tmp_path, 200, 16)


def test_fault_14_shards_of_two_types_and_a_name_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "x_train_1.bin").write_bytes(GOOD)
    (tmp_path / "x_train_2.bin").write_bytes(header(100, "<u4") + TOKENS.astype("<u4").tobytes())
    with pytest.raises(DataError, match="tokens of 4 bytes, others 2"):
        open_data(tmp_path, 200, 16)
    (tmp_path / "x_train_2.bin").rename(tmp_path / "rest.bin")
    with pytest.raises(DataError, match="neither for training nor for validation"):
        open_data(tmp_path, 200, 16)


def test_fault_15_replaced_reordered_removed_and_added_shards_change_the_fingerprint(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        tokens = TOKENS + number
        (tmp_path / f"x_train_{number}.bin").write_bytes(header(100, "<u2") + tokens.tobytes())
    prints = [open_data(tmp_path, 200, 16).fingerprint]
    first, second, third = (tmp_path / f"x_train_{number}.bin" for number in (1, 2, 3))
    (tmp_path / "x_val_0.bin").write_bytes(GOOD)
    assert open_data(tmp_path, 200, 16).fingerprint == prints[0]  # what is held out is not trained on
    first.rename(tmp_path / "x_train_4.bin")
    prints.append(open_data(tmp_path, 200, 16).fingerprint)
    third.unlink()
    prints.append(open_data(tmp_path, 200, 16).fingerprint)
    second.write_bytes(GOOD)
    prints.append(open_data(tmp_path, 200, 16).fingerprint)
    (tmp_path / "x_train_5.bin").write_bytes(GOOD)
    prints.append(open_data(tmp_path, 200, 16).fingerprint)
    assert len(set(prints)) == 5


def test_fault_16_two_bytes_for_a_vocabulary_of_more(tmp_path: Path) -> None:
    """A cast to uint16 would have cut larger ids without a word (huggingface/transformers#2825)."""
    for content in (GOOD, TOKENS.tobytes()):
        (tmp_path / "train.bin").write_bytes(content)
        open_data(tmp_path / "train.bin", 65_536, 16)
        with pytest.raises(DataError, match="two bytes, the model a vocabulary of 128256"):
            open_data(tmp_path / "train.bin", 128_256, 16)
    (tmp_path / "train.bin").write_bytes(header(100, "<u4") + TOKENS.astype("<u4").tobytes())
    open_data(tmp_path / "train.bin", 128_256, 16)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("hold_out", [False, True])
def test_fault_45_a_file_that_is_cut_while_a_run_reads_it(
    tmp_path: Path, tiny: Callable[..., RunConfig], shards: int, hold_out: bool
) -> None:
    tokens = np.zeros(40_000, "<u2")
    for number in range(shards):
        (tmp_path / f"x_train_{number}.bin").write_bytes(header(len(tokens), "<u2") + tokens.tobytes())
    data = open_data(tmp_path, 200, 32, hold_out=hold_out)
    batch(data, tiny(seq=32), 0, 4)
    for number in range(shards):
        os.truncate(tmp_path / f"x_train_{number}.bin", 2000)
    with pytest.raises(DataError, match=r"x_train_\d\.bin' has been cut short") as caught:
        batch(data, tiny(seq=32), 4, 400)
    assert caught.value.why == "it had 81024 bytes, and has 2000" and "--resume" in caught.value.remedy


def test_fault_45_a_file_that_is_cut_at_the_worst_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any check and the read itself: the read must say it. A map would end this test run with SIGBUS."""
    tokens = token_file(_written(tmp_path, 40_000)).tokens()
    real = os.pread

    def cut_first(*arguments: int) -> bytes:
        os.truncate(tmp_path / "x.bin", 5000)
        return real(*arguments)

    monkeypatch.setattr(os, "pread", cut_first)
    assert len(tokens[:10]) == 10
    for beyond in (slice(2400, 2600), slice(39_990, 40_000)):  # across the new end, and past it
        with pytest.raises(DataError, match="has been cut short") as caught:
            tokens[beyond]
        assert caught.value.why == "it had 80000 bytes, and has 5000"


def test_fault_45_reads_that_give_less_than_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, real = token_file(_written(tmp_path, 1000)).tokens(), os.pread
    whole = tokens[:].tolist()
    monkeypatch.setattr(os, "pread", lambda handle, size, at: real(handle, min(size, 7), at))
    assert tokens[:].tolist() == whole == list(range(1000))
    assert tokens.slice_tokens(10, 20)[2:5].tolist() == [12, 13, 14] and len(tokens.slice_tokens(990, 2000)) == 10
    assert len(tokens[5:3]) == 0 == len(tokens.slice_tokens(5, 3))

    def broken(*_: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(DataError, match=r"x\.bin' cannot be read") as caught:
        tokens[:10]
    assert caught.value.why == "Input/output error"


def test_fault_45_no_source_maps_a_file() -> None:
    import reference_trainer as package

    sources = sorted((Path(package.__file__).parent / "data").rglob("*.py"))
    assert len(sources) > 10
    assert not [s for s in sources if {"memmap", "mmap"} & set(re.findall(r"\w+", s.read_text(encoding="utf-8")))]


def _written(folder: Path, count: int) -> Path:
    np.arange(count, dtype="<u2").tofile(folder / "x.bin")
    return folder / "x.bin"
