"""Every token occurs once per epoch, for any split; bad data is named before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planner.config.run import RunConfig
from planner.errors import DataError
from reference_trainer.data.corpus.file_tokens import FileTokens
from reference_trainer.data.corpus.tokenizers import END_OF_TEXT
from reference_trainer.data.samples import TokenData, batch, open_data, shuffled_index
from tests.examples import examples


@examples(60)
@given(seed=st.integers(0, 2**63 - 1), samples=st.integers(1, 600), epoch=st.integers(0, 5))
def test_an_epoch_holds_every_block_once(seed: int, samples: int, epoch: int) -> None:
    places = [shuffled_index(seed, epoch * samples + place, samples) for place in range(samples)]
    assert sorted(places) == list(range(samples))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(shuffled_index(seed, epoch * 97 + i, 97) for i in range(97)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


def test_neighbours_are_scattered() -> None:
    """Uniform places would follow on their neighbour's 1 time in 1,000; a stride shows up as a repeated difference."""
    order = [shuffled_index(3, i, 1000) for i in range(1000)]
    steps = np.diff(order)
    assert np.mean(np.abs(steps)) == pytest.approx(1000 / 3, rel=0.1)
    assert np.unique(steps, return_counts=True)[1].max() < 12


@examples(30)
@given(start=st.integers(0, 200), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_a_split_changes_nothing(tiny: Callable[..., RunConfig], start: int, cuts: list[int]) -> None:
    config = tiny(seq=8)
    data = TokenData(np.arange(8 * 31 + 5, dtype=np.uint16), "", "", 8 * 31)
    whole, targets, *_ = batch(data, config, start, sum(cuts))
    begins = [start + sum(cuts[:n]) for n in range(len(cuts))]
    parts = [batch(data, config, begin, count) for begin, count in zip(begins, cuts, strict=True)]
    assert torch.equal(torch.cat([part.ids for part in parts]), whole)
    assert torch.equal(torch.cat([part.targets for part in parts]), targets)
    assert torch.equal(targets, whole + 1)  # the tokens count upwards


def test_an_epoch_trains_on_every_token_once(tiny: Callable[..., RunConfig]) -> None:
    data = TokenData(np.arange(8 * 31 + 5, dtype=np.uint16), "", "", 8 * 31)
    epoch = batch(data, tiny(seq=8), 31, 31)
    assert epoch.valid == 8 * 31 and epoch.documents is None
    assert sorted(epoch.targets.flatten().tolist()) == list(range(1, 8 * 31 + 1))


def test_the_built_in_text_needs_no_file() -> None:
    data = open_data(None, vocab=300, seq=64)
    assert data.tokens.dtype == np.uint16 and int(data.tokens.max()) == END_OF_TEXT
    assert data.valid_tokens % 64 == 0 and 10**6 < data.valid_tokens < len(data.tokens) <= 16 * 2**20
    assert data.fingerprint == open_data(None, vocab=300, seq=64).fingerprint
    bytes_only = open_data(None, vocab=256, seq=64)
    assert bytes_only.tokens.dtype == np.uint8 and len(bytes_only.tokens) == len(data.tokens)
    assert bytes_only.fingerprint != data.fingerprint


def test_a_folder_is_its_text_files_in_order(tmp_path: Path) -> None:
    for name, content in {"b.txt": "two", "a.md": "one", "sub/c.py": "six", "d.png": "no", ".git/e.txt": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert bytes(open_data(tmp_path, vocab=256, seq=2).tokens) == b"one\ntwo\nsix\n"
    assert open_data(tmp_path, vocab=257, seq=2).tokens.tolist()[3::4] == [END_OF_TEXT] * 3


def test_a_token_file_stays_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    np.array([5, 300, 9, 50_256, 1], dtype="<u2").tofile(path)
    data = open_data(path, vocab=50_257, seq=2)
    assert isinstance(data.tokens, FileTokens) and data.tokens[:].tolist() == [5, 300, 9, 50_256, 1]
    assert data.valid_tokens == 4


def test_the_fingerprint_sees_every_token(tmp_path: Path) -> None:
    prints = set()
    for last in (1, 2):
        np.array([5, 6, 7, last], dtype="<u2").tofile(tmp_path / "train.bin")
        prints.add(open_data(tmp_path / "train.bin", vocab=16, seq=2).fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.txt", None, "No such file"),
        ("nul\0.txt", None, "null"),
        ("odd.bin", b"abc", "odd size, 3 bytes"),
        ("empty.bin", b"", "holds 0 tokens"),
        ("empty.txt", b"", "too few"),
        ("short.txt", b"12345678", "too few for one sequence of 16"),
        (
            "large.bin",
            b"\1\0" * 20 + b"\0\1" + b"\1\0" * 20,
            "token 256 in .*large.bin.*\n.*token 20 of the file, byte 40",
        ),
        ("image.txt", b"GIF\0" * 20, "zero byte at offset 3"),
        ("latin.txt", b"a" * 20 + b"\xe9" * 20, "token 233 in"),
    ],
)
def test_bad_data_is_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        open_data(path, vocab=200, seq=16)
    assert caught.value.why and caught.value.remedy


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no text"):
        open_data(tmp_path, vocab=256, seq=16)


def test_the_bad_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain " * 9)
    (tmp_path / "b.txt").write_text("naïve " * 9, encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.txt.*\n.*token 2 of the file, byte 2"):
        open_data(tmp_path, vocab=128, seq=16)
