"""JSON from anybody's file: read within bounds, one reason for each refusal; the same of a TOML key's length."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter

from planner.errors import ConfigError, FileError
from planner.files import MOST_BYTES, read_bytes
from planner.inputs.run_toml import MOST_TOML, load_config
from planner.json_input import DEEPEST, checked_by, parsed_json, read_json

REFUSED = [
    (b"", "line 1: "),
    (b"{", "line 1: "),
    (b'{"a": NaN}', "NaN"),
    (b"[-Infinity]", "NaN"),
    (b"[1e400]", "beyond 10"),
    (b"1" * 41, "40 digits"),
    (b"1" * 100_000, "digit"),
    (b'{"a": 1, "b": 2, "a": 3}', "'a' comes twice"),
    (b'"\xff"', "not UTF-8, at byte 1"),
    (b"[" * 100_000, "nested deeper"),
    (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested deeper"),
    (b"[" + b"0," * 4_000_001 + b"0]", "values"),
]


@pytest.mark.parametrize("content, why", REFUSED, ids=range(len(REFUSED)))
def test_what_programs_read_differently_or_not_at_all_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed_json(content)


def test_what_is_within_the_bounds_is_read() -> None:
    deepest = b"[" * DEEPEST + b"]" * DEEPEST
    assert json.dumps(parsed_json(deepest)).encode() == deepest
    assert parsed_json(b'\xef\xbb\xbf{"a": [1e300, 10]}\r\n') == {"a": [1e300, 10]}
    assert parsed_json("[Infinity]", allow_nonfinite=True) == [float("inf")]


def test_a_schema_converts_nothing_and_names_the_place() -> None:
    @dataclass
    class Row:
        n: Annotated[int, Field(ge=0)]
        names: tuple[str, ...]

    schema = TypeAdapter(tuple[Row, ...])
    assert checked_by(schema, [{"n": 1, "names": ["a"]}]) == (Row(1, ("a",)),)
    for n in ("1", 1.5, True, -1):
        with pytest.raises(ValueError, match=r"0\.n: "):
            checked_by(schema, [{"n": n, "names": []}])


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device", "large"])
def test_what_is_no_ordinary_file_of_its_size_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with closing(socket.socket(socket.AF_UNIX)) as bound:
            bound.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(20 << 30)  # sparse
    for read in (read_bytes, read_json, load_config):
        with pytest.raises(FileError) as caught:
            read(path)
        assert "\n" not in caught.value.what
    assert MOST_TOML < MOST_BYTES


@pytest.mark.parametrize(
    "text",
    ["a." * 131_072 + "a = 1", "[" + "a . " * 5000 + "a]", "x = {" + "'a'.\"b\"." * 500 + "c = 1}"],
    ids=["key", "table", "in a table"],
)
def test_a_key_of_very_many_parts_is_refused_before_the_parser(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"# {'.' * 200}\nweights = [{'1.5e-05, ' * 200}]\n{text}\n")
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        load_config(path)
    assert caught.value.why == "line 3 has a key of more than 100 parts"
