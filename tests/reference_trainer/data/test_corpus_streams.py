"""Compressed text and Parquet: the same documents as plain files, read in parts, damage named with its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.errors import DataError, MissingExtraError
from reference_trainer.data.corpus import parquet, streams
from reference_trainer.data.corpus.prepare import PrepareOptions, prepare
from reference_trainer.data.corpus.texts import TextDocument, documents
from reference_trainer.data.samples import open_data

TEXTS = [f"text {n}: " + "naïve – 你好 " * (n % 7) for n in range(300)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def zst(content: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    half = len(content) // 2  # two frames, as `cat a.zst b.zst` makes
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:]))


def gz(content: bytes) -> bytes:
    return gzip.compress(content[:100]) + gzip.compress(content[100:])


COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gz, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}
KINDS = pytest.mark.parametrize("kind", COMPRESS)


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pytest.importorskip("pyarrow")
    import pyarrow as arrow
    from pyarrow import parquet as files

    files.write_table(arrow.table(columns), path, **{"row_group_size": 100, "write_page_checksum": True} | options)
    return path


def texts_of(*files: Path, text_key: str = "text") -> list[str]:
    return [document.text() for document in documents(files, text_key)]


@KINDS
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".ndjson", ".JSONL"])
def test_compressed_lines_are_the_lines(tmp_path: Path, kind: str, ending: str) -> None:
    (tmp_path / f"a{ending}{kind}").write_bytes(COMPRESS[kind](LINES))
    (tmp_path / "a.jsonl.plain").write_bytes(LINES)
    data = open_data(tmp_path, 257, 16)
    assert data.summary is not None and data.summary.documents == len(TEXTS)
    assert [one.path for one in data.summary.skipped] == ["a.jsonl.plain"]
    assert data.bytes_per_token is not None and texts_of(tmp_path / f"a{ending}{kind}") == TEXTS


@KINDS
def test_a_compressed_text_is_one_document(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.txt{kind}"
    path.write_bytes(COMPRESS[kind](LINES))
    (document,) = documents([path])
    assert document.content == LINES and document.source_bytes == len(LINES) and document.line is None


@KINDS
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.json"])
@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) * 2 // 3], lambda c: c[:-1], lambda c: c[:40] + bytes(9) + c[49:]]
)
def test_fault_38_damaged_compression_is_named(
    tmp_path: Path, kind: str, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / (name + kind)
    path.write_bytes(damage(COMPRESS[kind](LINES)))
    with pytest.raises(DataError, match=r"is damaged") as caught:
        open_data(path, 257, 16)
    assert path.name in caught.value.what and "cannot be decompressed" in caught.value.why and caught.value.remedy
    assert any(place in caught.value.why for place in ("after line", "bytes of its contents", "at its beginning"))


@KINDS
def test_what_is_not_compressed_as_its_name_says(tmp_path: Path, kind: str) -> None:
    COMPRESS[kind](b"")  # skips where the package is missing
    (tmp_path / f"a.jsonl{kind}").write_bytes(LINES)
    with pytest.raises(DataError, match=r"is damaged"):
        open_data(tmp_path / f"a.jsonl{kind}", 257, 16)


def test_lines_are_streamed(tmp_path: Path) -> None:
    """64 MiB that are 64 KiB on the disk: memory holds a line at a time, not the whole."""
    path = tmp_path / "a.jsonl.gz"
    line = json.dumps({"text": "a" * 2**16}).encode() + b"\n"
    with gzip.open(path, "wb") as file:
        for _ in range(1024):
            file.write(line)
    tracemalloc.start()
    count = sum(1 for _ in documents([path]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1024 and peak < 8 * 2**20


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + b'{"text": "' + b"a" * 1000)
    with pytest.raises(DataError, match=r"line 2 cannot be used") as caught:
        open_data(tmp_path / "a.jsonl", 257, 4)
    assert "longer than 1,000 B" in caught.value.why


@KINDS
def test_validation_tokens_of_compressed_sources_are_about_met(tmp_path: Path, kind: str) -> None:
    """The share is of the contents: of the sizes on the disk it would be ten times as large."""
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(COMPRESS[kind](LINES * 20))
    meta = prepare(PrepareOptions(sources=(path,), out=tmp_path / "out", val_tokens=20_000))
    assert 10_000 < meta["validation"]["tokens"] < 40_000


def test_parquet_holds_the_same_documents(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.PARQUET", {"id": list(range(300)), "text": TEXTS})
    found = list(documents([path]))
    assert [document.text() for document in found] == TEXTS
    assert [document.line for document in found[:2]] == [1, 2] and found[4].place.endswith("a.PARQUET', row 5")
    meta = prepare(PrepareOptions(sources=(tmp_path,), out=tmp_path / "out", val_tokens=2000))
    assert meta["sources"]["documents"] == 300 and 1000 < meta["validation"]["tokens"] < 4000
    assert texts_of(write_parquet(tmp_path / "b.parquet", {"body": TEXTS[:2]}), text_key="body") == TEXTS[:2]


def test_parquet_in_other_types_of_text(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    for column in (arrow.array(TEXTS, arrow.large_string()), arrow.array(TEXTS).dictionary_encode()):
        assert texts_of(write_parquet(tmp_path / "a.parquet", {"text": column})) == TEXTS


@pytest.mark.parametrize(
    ("columns", "words", "why"),
    [
        ({"texts": ["a"]}, "has no column 'text'", "the nearest is 'texts'"),
        ({"text": [1]}, "is no text", "its type is int64"),
        ({"text": ["a", None, "b"]}, "row 2 cannot be used", "is null"),
    ],
)
def test_parquet_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], words: str, why: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError, match=words) as caught:
        open_data(path, 257, 4)
    assert why in caught.value.why and "a.parquet" in caught.value.what and caught.value.remedy


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"", lambda c: c[:200] + b"\xff" * 9 + c[209:]])
def test_fault_38_damaged_parquet_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": TEXTS}, use_dictionary=False, compression="none")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.parquet' is damaged") as caught:
        list(documents([path]))
    assert "after row" in caught.value.why


@pytest.mark.parametrize(
    ("name", "package", "module"), [("a.jsonl.zst", "zstandard", streams), ("a.parquet", "pyarrow", parquet)]
)
def test_a_missing_package_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, module: Any
) -> None:
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b.txt").write_text("a folder with it is refused too: half of the data is not the data")
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(MissingExtraError, match=rf"needs the package '{package}'") as caught:
            open_data(path, 257, 4)
        assert "pip install 'gptplan[" in caught.value.remedy and name in caught.value.what


def test_compressed_tokens_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.bin.gz").write_bytes(gzip.compress(b"ab" * 20))
    with pytest.raises(DataError, match="compressed tokens"):
        open_data(tmp_path / "train.bin.gz", 257, 4)


def test_place_of_a_document_names_its_unit() -> None:
    assert TextDocument(b"", Path("a.jsonl.gz"), 3, 0).place == "'a.jsonl.gz', line 3"
