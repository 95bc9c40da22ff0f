"""The safetensors header: what the library writes is read, what the format forbids is refused in one message."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import FileError
from planner.inputs.safetensors import StoredTensor, stored_tensors

TWO = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
}


def write(path: Path, header: Any, data: int = 0, *, length: int | None = None) -> Path:
    """A file with this header (bytes as they are) and so many bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(data))
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", TWO | {"__metadata__": {"format": "pt"}}, 34)
    found = stored_tensors(path)
    assert found == (StoredTensor("a", "F32", (2, 3)), StoredTensor("b", "BF16", (5,)))
    assert [t.elements for t in found] == [6, 5]


def test_no_tensors_a_scalar_and_an_empty_one(tmp_path: Path) -> None:
    assert stored_tensors(write(tmp_path / "x.safetensors", {})) == ()
    edges = {
        "scalar": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
        "empty": {"dtype": "I8", "shape": [0, 4], "data_offsets": [8, 8]},
        "half bytes": {"dtype": "F4", "shape": [2, 2], "data_offsets": [8, 10]},
    }
    assert [t.elements for t in stored_tensors(write(tmp_path / "y.safetensors", edges, 10))] == [1, 0, 4]


def test_what_the_library_writes(tmp_path: Path) -> None:
    numpy, library = pytest.importorskip("numpy"), pytest.importorskip("safetensors.numpy")
    tensors = {"w": numpy.ones((3, 4), numpy.float32), "i": numpy.arange(5), "h": numpy.ones((2, 2), numpy.float16)}
    library.save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "np"})
    found = {t.name: (t.dtype, t.shape) for t in stored_tensors(tmp_path / "x.safetensors")}
    assert found == {"w": ("F32", (3, 4)), "i": ("I64", (5,)), "h": ("F16", (2, 2))}


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": TWO["a"] | changes}


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 0, "cannot be read"),
    "not UTF-8": (b"\xff\xfe", 0, "cannot be read"),
    "nested": (b"[" * 100_000, 0, "cannot be read"),
    "a list": ([1], 0, "no JSON object"),
    "a name twice": (b'{"a": {}, "a": {}}', 0, "twice"),
    "data cut short": (TWO, 33, "34 bytes and 33"),
    "data too long": (TWO, 35, "34 bytes and 35"),
    "a hole": (TWO | {"b": TWO["b"] | {"data_offsets": [25, 35]}}, 35, "begins at byte 25"),
    "an overlap": (TWO | {"b": TWO["b"] | {"data_offsets": [20, 30]}}, 30, "begins at byte 20"),
    "an entry of text": ({"a": "x"}, 0, "dtype, shape and data_offsets"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, 4, "dtype, shape and data_offsets"),
    "another key": (entry(code="x"), 24, "dtype, shape and data_offsets"),
    "an unknown type": (entry(dtype="F33"), 24, "'F33'"),
    "a list for the type": (entry(dtype=["F32"]), 24, "unknown type"),
    "a negative size": (entry(shape=[-2, -3]), 24, "whole numbers"),
    "a true size": (entry(shape=[True]), 24, "whole numbers"),
    "a broken size": (entry(shape=[2.0, 3]), 24, "whole numbers"),
    "a shape of text": (entry(shape="23"), 24, "whole numbers"),
    "other bytes than the shape": (entry(shape=[2, 4]), 24, "does not take the bytes"),
    "three offsets": (entry(data_offsets=[0, 12, 24]), 24, "does not take the bytes"),
    "turned offsets": (entry(data_offsets=[24, 0]), 24, "does not take the bytes"),
    "huge shapes": (entry(shape=[10**18, 10**18]), 24, "does not take the bytes"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_what_the_format_forbids(mistake: str, tmp_path: Path) -> None:
    header, data, words = BAD[mistake]
    with pytest.raises(FileError, match="no whole safetensors file") as caught:
        stored_tensors(write(tmp_path / "x.safetensors", header, data))
    assert words in caught.value.why and caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"\0" * 7])
def test_a_file_shorter_than_the_length(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(FileError, match="no whole safetensors file"):
        stored_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("length", "words"), [(1000, "cut short"), (10**8 + 1, "100,000,001"), (2**64 - 1, "18,446")])
def test_a_length_beyond_the_file(length: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        stored_tensors(write(tmp_path / "x.safetensors", TWO, 34, length=length))
    assert words in caught.value.why


@given(st.one_of(st.binary(max_size=200), st.just(struct.pack("<Q", 2) + b"{}")))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(content)
    try:
        stored_tensors(path)
    except FileError as error:
        assert error.remedy
    else:
        (length,) = struct.unpack("<Q", content[:8])
        assert isinstance(json.loads(content[8 : 8 + length]), dict)


def test_paths(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", TWO, 34)
    with pytest.raises(FileError, match="does not exist") as caught:
        stored_tensors(tmp_path / "modl.safetensors")
    assert "did you mean model.safetensors" in caught.value.remedy
    with pytest.raises(FileError, match="is a directory"):
        stored_tensors(tmp_path)
    with pytest.raises(FileError, match=r"does not exist|cannot be read"):
        stored_tensors(tmp_path / "model.safetensors" / "x")
    with pytest.raises(FileError, match="cannot be read"):
        stored_tensors(Path("\0"))


def test_an_index_of_several_files(tmp_path: Path) -> None:
    write(tmp_path / "one.safetensors", {"a": TWO["a"]}, 24)
    write(tmp_path / "two.safetensors", {"b": TWO["b"] | {"data_offsets": [0, 10]}}, 10)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert {t.name for t in stored_tensors(index)} == {"a", "b"}
    write(tmp_path / "two.safetensors", {"a": TWO["a"]}, 24)
    with pytest.raises(FileError, match="the same tensor"):
        stored_tensors(index)


@pytest.mark.parametrize(
    "index",
    [
        [],
        {},
        {"weight_map": {}},
        {"weight_map": ["x.safetensors"]},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": "../x.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "model.bin"}},
    ],
)
def test_an_index_that_is_none(index: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(FileError, match="no whole safetensors index"):
        stored_tensors(path)
