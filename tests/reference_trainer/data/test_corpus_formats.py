"""Token files: the header of each format, which files belong together, and how they are read as one sequence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planner.config.run import RunConfig
from planner.errors import DataError
from reference_trainer.data.corpus import shards
from reference_trainer.data.corpus.file_tokens import FileTokens
from reference_trainer.data.corpus.formats import header, token_file
from reference_trainer.data.corpus.shards import Shards
from reference_trainer.data.corpus.sources import ReadOptions
from reference_trainer.data.samples import batch, open_data


def write_shard(path: Path, tokens: list[int] | range, dtype: str = "<u2") -> Path:
    path.write_bytes(header(len(tokens), dtype) + np.array(tokens, dtype).tobytes())
    return path


def test_the_header_is_that_of_llm_c() -> None:
    """Words as dev/data/data_common.py writes them: magic, version, tokens; 256 int32 in all."""
    for dtype, magic, version in (("<u2", 20240520, 1), ("<u4", 20240801, 7)):
        words = np.frombuffer(header(123, dtype), "<i4")
        assert words.shape == (256,) and words[:4].tolist() == [magic, version, 123, 0]


def test_all_formats_hold_the_same_tokens(tmp_path: Path) -> None:
    tokens = [5, 300, 9, 50_256, 1]
    np.array(tokens, "<u2").tofile(tmp_path / "plain.bin")
    write_shard(tmp_path / "two.bin", tokens)
    write_shard(tmp_path / "four.bin", tokens, "<u4")
    opened = [open_data(tmp_path / f"{name}.bin", 50_257, 2) for name in ("plain", "two", "four")]
    assert [data.tokens[:].tolist() for data in opened] == [tokens] * 3
    assert opened[0].fingerprint == opened[1].fingerprint != opened[2].fingerprint
    assert all(isinstance(data.tokens, FileTokens) for data in opened)  # not read into memory
    assert token_file(tmp_path / "four.bin").offset == 1024


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5), begin=st.integers(0, 40), end=st.integers(0, 40))
def test_shards_read_like_one_row(sizes: list[int], begin: int, end: int) -> None:
    row = np.arange(sum(sizes), dtype=np.uint16)
    parts = np.split(row, np.cumsum(sizes)[:-1])
    together = Shards(list(parts))
    assert len(together) == len(row)
    assert together[begin:end].tolist() == row[begin:end].tolist()
    part = together.slice_tokens(min(begin, len(row)), min(end, len(row)))
    assert part[:].tolist() == row[min(begin, len(row)) : end].tolist()


def test_nanogpts_directory(tmp_path: Path) -> None:
    np.arange(50, dtype="<u2").tofile(tmp_path / "train.bin")
    np.arange(20, dtype="<u2").tofile(tmp_path / "val.bin")
    (tmp_path / "prepare.py").write_text("")
    for path in (tmp_path, tmp_path / "train.bin"):
        data = open_data(path, 64, 4, hold_out=True)
        assert len(data.tokens) == 50 and data.validation is not None and len(data.validation.tokens) == 20
        plain = open_data(path, 64, 4)
        assert plain.validation is None and plain.fingerprint == data.fingerprint


def test_llm_cs_shards_are_one_row_across_their_borders(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    write_shard(tmp_path / "fineweb_val_000000.bin", range(9))
    write_shard(tmp_path / "fineweb_train_000001.bin", range(10))
    write_shard(tmp_path / "fineweb_train_000002.bin", range(10, 41))
    data = open_data(tmp_path, 64, 8, hold_out=True)
    assert data.tokens[:].tolist() == list(range(41)) and data.valid_tokens == 40
    epoch = batch(data, tiny(seq=8), 0, 5)
    assert sorted(epoch.targets.flatten().tolist()) == list(range(1, 41))
    assert torch.equal(epoch.targets, epoch.ids + 1)
    assert data.validation is not None and data.validation.tokens[:].tolist() == list(range(9))
    single = open_data(tmp_path / "fineweb_train_000002.bin", 64, 8, hold_out=True)
    assert single.validation is not None and len(single.validation.tokens) == 9


def test_the_last_tenth_is_held_out_where_asked(tmp_path: Path) -> None:
    np.arange(105, dtype="<u2").tofile(tmp_path / "data.bin")
    data = open_data(tmp_path / "data.bin", 128, 4, hold_out=True)
    assert data.tokens[:].tolist() == list(range(95))
    assert data.validation is not None and data.validation.tokens[:].tolist() == list(range(95, 105))
    assert open_data(tmp_path / "data.bin", 128, 4).tokens[:].tolist() == list(range(105))
    with pytest.raises(DataError, match=r"token 104 in .*data.bin.*\n.*token 104 of the file, byte 208"):
        open_data(tmp_path / "data.bin", 104, 4, hold_out=True)


def test_json_lines_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "né", "id": 1}) + "\n\n" + json.dumps({"text": "two"}) + "\n")
    data = open_data(path, 257, 2)
    assert data.tokens[:].tolist() == [*"né".encode(), 256, *b"two", 256]
    assert data.end_of_text == 256 and data.bytes_per_token == 6 / 8
    (tmp_path / "b.jsonl").write_text('{"content": "x"}\n' * 9)
    assert open_data(tmp_path / "b.jsonl", 257, 2, reading=ReadOptions(text_key="content")).valid_tokens == 16


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "not one JSON object"),
        ('{"text": "half', "not one JSON object"),
        ("[1, 2]", "a JSON list"),
        ('{"texts": "a"}', "nearest key is 'texts'"),
        ('{"text": 5}', "a int, not a text"),
        ('{"text": "\\ud800"}', "surrogate"),
        ("\xff", "not one JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' * 3 + line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=r"bad\.jsonl', line 4 cannot be used") as caught:
        open_data(path, 257, 2)
    assert words in caught.value.why and caught.value.remedy


def test_larger_data_is_sampled_by_its_size_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples begin with a file's first token and end with its last; a token between them is caught in its batch."""
    monkeypatch.setattr(shards, "FULL_SCAN_BYTES", 1000)
    monkeypatch.setattr(shards, "SAMPLE_TOKENS", 8)
    monkeypatch.setattr(shards, "SAMPLES_PER_FILE", 5)
    tokens = np.zeros(1000, "<u2")
    prints = []
    for place in (None, 0, 999, 500, 20):
        changed = tokens.copy()
        if place is not None:
            changed[place] = 7
        changed.tofile(tmp_path / "train.bin")
        data = open_data(tmp_path / "train.bin", 64, 8)
        assert data.vocab == 64
        prints.append(data.fingerprint)
    assert len(set(prints[:4])) == 4 and prints[4] == prints[0]
    monkeypatch.undo()
    whole = open_data(tmp_path / "train.bin", 64, 8)
    assert whole.vocab is None and whole.fingerprint not in prints


def test_a_token_between_the_samples_is_refused_before_the_device_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., RunConfig]
) -> None:
    monkeypatch.setattr(shards, "FULL_SCAN_BYTES", 0)
    monkeypatch.setattr(shards, "SAMPLE_TOKENS", 2)
    monkeypatch.setattr(shards, "SAMPLES_PER_FILE", 2)
    tokens = np.zeros(41, "<u2")
    tokens[20] = 99
    tokens.tofile(tmp_path / "train.bin")
    data = open_data(tmp_path / "train.bin", 64, 8)
    with pytest.raises(DataError, match="does not fit a vocabulary of 64"):
        batch(data, tiny(seq=8), 0, 5)
