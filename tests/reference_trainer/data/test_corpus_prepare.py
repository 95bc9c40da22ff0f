"""`gptplan data`: exact counts, texts that come back, a split by the text alone, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.errors import DataError, FileError, InputError
from reference_trainer.data.corpus.meta_file import META
from reference_trainer.data.corpus.prepare import PrepareOptions, prepare
from reference_trainer.data.corpus.report import tokens_report, tokens_report_text
from reference_trainer.data.samples import open_data

TEXTS = [f"text {n}: " + "naïve – 你好 <|endoftext|> " * (n % 7) for n in range(400)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "source.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def prepared(source: Path, out: Path, **asked: Any) -> dict[str, Any]:
    return prepare(PrepareOptions(sources=(source,), out=out, **asked))


def split_texts(tokens: Any, end: int = 256) -> list[str]:
    ids = tokens[:].tolist()
    assert ids[-1] == end
    return [bytes(part).decode() for part in pieces(ids[:-1], end)]


def pieces(ids: list[int], end: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for token in ids:
        if token == end:
            found.append([])
        else:
            found[-1].append(token)
    return found


def test_texts_come_back_and_every_number_is_right(lines: Path, tmp_path: Path) -> None:
    meta = prepared(lines, tmp_path / "out", val_share=0.1, shard_tokens=1000)
    data = open_data(tmp_path / "out", 257, 16, hold_out=True)
    assert data.validation is not None
    train, held = split_texts(data.tokens), split_texts(data.validation.tokens)
    assert sorted(train + held) == sorted(TEXTS)
    assert [text for text in TEXTS if text in set(train)] == train  # in the order of the source
    for part, texts, opened in (("train", train, data), ("validation", held, data.validation)):
        size = sum(len(text.encode()) for text in texts)
        assert (meta[part]["documents"], meta[part]["bytes"]) == (len(texts), size)
        assert meta[part]["tokens"] == size + len(texts) == len(opened.tokens)
        assert opened.bytes_per_token == size / (size + len(texts))
        assert opened.fingerprint == meta[part]["fingerprint"] and opened.end_of_text == 256
        counts = [shard["tokens"] for shard in meta[part]["shards"]]
        assert set(counts[:-1]) <= {1000} and sum(counts) == meta[part]["tokens"]
    assert 0.05 < len(held) / len(TEXTS) < 0.15
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[0] == META  # and no lock


def test_the_side_of_a_text_depends_on_the_text_alone(lines: Path, tmp_path: Path) -> None:
    prepared(lines, tmp_path / "one", val_share=0.2)
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in reversed(TEXTS[:300])))
    prepared(lines, tmp_path / "two", val_share=0.2)
    sides = []
    for name in ("one", "two"):
        data = open_data(tmp_path / name, 257, 16, hold_out=True)
        assert data.validation is not None
        sides.append((set(split_texts(data.tokens)), set(split_texts(data.validation.tokens))))
    assert not sides[0][0] & sides[1][1] and not sides[0][1] & sides[1][0]


def test_a_number_of_validation_tokens_is_about_met(lines: Path, tmp_path: Path) -> None:
    meta = prepared(lines, tmp_path / "out", val_tokens=5000)
    assert 2500 < meta["validation"]["tokens"] < 10_000
    assert prepared(lines, tmp_path / "none", val_tokens=0)["validation"]["tokens"] == 0
    text = tmp_path / "one.txt"
    text.write_text("ä line of text\n" * 1000, encoding="utf-8")
    lone = prepared(text, tmp_path / "lone", val_tokens=1600)
    assert lone["validation"]["tokens"] == pytest.approx(1600, abs=17) and lone["train"]["documents"] == 1
    data = open_data(tmp_path / "lone", 257, 16, hold_out=True)
    assert data.validation is not None
    whole = [*data.tokens[:-1].tolist(), *data.validation.tokens[:-1].tolist()]
    assert bytes(whole) == text.read_bytes()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens(["<|endoftext|>"])
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_file(lines: Path, tokenizer: Path, tmp_path: Path) -> None:
    """A text that spells the special token does not end there: as many ends as documents, and the texts come back."""
    import tokenizers

    meta = prepared(lines, tmp_path / "out", tokenizer=str(tokenizer), val_share=0.0)
    said = meta["tokenizer"]
    assert (said["vocab"], said["end_of_text"], said["name"]) == (301, 300, "tokenizer.json")
    data = open_data(tmp_path / "out", 301, 16)
    decode = tokenizers.Tokenizer.from_file(str(tokenizer)).decode
    parts = pieces(data.tokens[:-1].tolist(), 300)
    assert [decode(part, skip_special_tokens=False) for part in parts] == TEXTS
    assert meta["train"]["bytes_per_token"] > 1.5
    with pytest.raises(DataError, match="has 301 tokens, the model a vocabulary of 300"):
        open_data(tmp_path / "out", 300, 16)
    direct = open_data(lines, 301, 16, reading=_reading(str(tokenizer)))
    assert direct.fingerprint == data.fingerprint and direct.bytes_per_token == data.bytes_per_token


def _reading(tokenizer: str) -> Any:
    from reference_trainer.data.corpus.sources import ReadOptions

    return ReadOptions(tokenizer=tokenizer)


def test_fault_16_a_tokenizer_that_cannot_be_used(lines: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    ends = json.loads(tokenizer.read_text())
    ends["added_tokens"][0]["content"] = "<stop>"
    (tmp_path / "other.json").write_text(json.dumps(ends))
    for name, words in (("broken", "is not a tokenizer"), ("missing", "cannot read"), ("other", "is not clear")):
        with pytest.raises(DataError, match=words):
            prepared(lines, tmp_path / "out", tokenizer=str(tmp_path / f"{name}.json"))
    model = {"type": "BPE", "vocab": {"a": 0, "b": 2**32 - 1}, "merges": ["a b"]}
    (tmp_path / "panic.json").write_text(json.dumps({"version": "1.0", "model": model}))  # its Rust code has no error
    with pytest.raises(DataError, match="is not a tokenizer"):
        prepared(lines, tmp_path / "no", tokenizer=str(tmp_path / "panic.json"), end_of_text=0)
    words: dict[str, Any] = {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]"}
    words |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    (tmp_path / "unknown.json").write_text(json.dumps({"version": "1.0", "model": words}))
    with pytest.raises(DataError, match="cannot read these texts"):
        prepared(lines, tmp_path / "no", tokenizer=str(tmp_path / "unknown.json"), end_of_text=0)
    prepared(lines, tmp_path / "out", tokenizer=str(tmp_path / "other.json"), end_of_text=300)
    with pytest.raises(DataError, match="end of text 301 is not a token"):
        prepared(lines, tmp_path / "no", tokenizer=str(tokenizer), end_of_text=301)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt' is not UTF-8"):
        prepared(tmp_path / "latin.txt", tmp_path / "no", tokenizer=str(tokenizer))
    assert not (tmp_path / "no").exists()


def test_tiktoken_by_file_and_by_name(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of the 256 bytes stands in for OpenAI's; ids above 65,535 take four bytes."""
    import base64

    load = pytest.importorskip("tiktoken.load")
    ranks = b"".join(base64.b64encode(bytes([value])) + f" {value}\n".encode() for value in range(256))
    (tmp_path / "x.tiktoken").write_bytes(ranks)
    name = f"tiktoken:cl100k_base:{tmp_path / 'x.tiktoken'}"
    with pytest.raises(DataError, match="cannot load the vocabulary of tiktoken:cl100k_base") as wrong:
        prepared(lines, tmp_path / "out", tokenizer=name)
    assert "its sha256 is not" in wrong.value.why
    monkeypatch.setattr(load, "check_hash", lambda data, wanted: True)
    meta = prepared(lines, tmp_path / "out", tokenizer=name, val_share=0.0)
    assert meta["dtype"] == "uint32" and meta["tokenizer"]["end_of_text"] == 100_257
    assert split_texts(open_data(tmp_path / "out", 100_277, 16).tokens, 100_257) == TEXTS

    def no_network(address: str) -> bytes:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(load, "read_file", no_network)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="cannot load the vocabulary of tiktoken:gpt2") as offline:
        prepared(lines, tmp_path / "no", tokenizer="tiktoken:gpt2")
    assert "no route to host" in offline.value.why and "tiktoken:gpt2:FILE" in offline.value.remedy


KILLED = """
import os, sys
from pathlib import Path
from reference_trainer.data.corpus import prepare, writer
def die(*_): os.kill(os.getpid(), 9)
setattr(*{"shard": (writer.SplitWriter, "close"), "meta": (prepare, "write_meta"), "name": (writer.os, "rename")}[sys.argv[1]], die)
prepare.prepare(prepare.PrepareOptions(sources=(Path(sys.argv[2]),), out=Path(sys.argv[3])))
"""  # noqa: E501


@pytest.mark.parametrize("moment", ["shard", "meta", "name"])
def test_killed_in_the_middle_nothing_readable_is_left(lines: Path, tmp_path: Path, moment: str) -> None:
    out, left = tmp_path / "out", tmp_path / ".out.preparing"
    done = subprocess.run([sys.executable, "-c", KILLED, moment, str(lines), str(out)], check=False)
    assert done.returncode == -9 and left.exists() and not out.exists()
    with pytest.raises(DataError, match="was never finished"):
        open_data(left, 257, 16)
    meta = prepared(lines, out)  # what was left is in nobody's way
    assert not left.exists() and meta == prepared(lines, tmp_path / "clean")


def test_nothing_is_overwritten_or_left(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    before = prepared(lines, out)
    with pytest.raises(FileError, match="exists already"):
        prepared(lines, out)
    assert json.loads((out / META).read_text()) == before
    lines.write_text('{"text": "fine"}\nbad\n')
    with pytest.raises(DataError, match="line 2 cannot be used"):
        prepared(lines, tmp_path / "no")
    monkeypatch.setattr("reference_trainer.data.corpus.writer.SplitWriter._write", _full)
    lines.write_text('{"text": "fine"}\n' * 2)
    with pytest.raises(FileError, match="no cannot be written") as full:
        prepared(lines, tmp_path / "no")
    assert "No space left" in full.value.why
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source.jsonl"]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"val_share": 0.1, "val_tokens": 5}, "contradict"),
        ({"val_share": 1.0}, "is not a share"),
        ({"shard_tokens": 2**31}, "does not fit a shard"),
    ],
)
def test_contradictions_are_refused(lines: Path, tmp_path: Path, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepared(lines, tmp_path / "out", **asked)
    with pytest.raises(DataError, match="among the sources twice"):
        prepare(PrepareOptions(sources=(lines, tmp_path), out=tmp_path / "out"))
    with pytest.raises(DataError, match="holds tokens already"):
        prepared(tmp_path / "train.bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1024] ^= 1
    path.write_bytes(content)


def headless(path: Path) -> None:
    path.write_bytes(path.read_bytes()[1024:])


def swapped(path: Path) -> None:
    other = path.with_name("train_000001.bin")
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, "are not those that were prepared"),
        (headless, "has lost its header"),
        (swapped, "are not those that were prepared"),
        (Path.unlink, "No such file"),
        (lambda path: (path.parent / META).write_text("{}"), "meta.json' cannot be used"),
        (lambda path: (path.parent / META).write_text('{"format": "'), "meta.json' cannot be used"),
    ],
)
def test_fault_14_a_prepared_directory_is_what_was_prepared(
    lines: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    prepared(lines, tmp_path / "out", shard_tokens=1000)
    damage(tmp_path / "out" / "train_000000.bin")
    with pytest.raises(DataError, match=words):
        open_data(tmp_path / "out", 257, 16)


def test_a_report_reads_every_token(lines: Path, tmp_path: Path) -> None:
    meta = prepared(lines, tmp_path / "out", val_share=0.1)
    report = tokens_report(tmp_path / "out")
    for part in ("train", "validation"):
        assert {key: report[part][key] for key in ("tokens", "documents")} == {
            key: meta[part][key] for key in ("tokens", "documents")
        }
        assert report[part]["largest_token"] == 256
        assert f"{meta[part]['tokens']:,} tokens (uint16) in 1 files" in tokens_report_text(report)
    flip(tmp_path / "out" / "val_000000.bin")
    with pytest.raises(DataError, match=r"val_000000\.bin' is not the shard that was prepared"):
        tokens_report(tmp_path / "out")
    np.array([1, 700, 3], "<u2").tofile(tmp_path / "train.bin")
    plain = tokens_report(tmp_path / "train.bin")
    assert (plain["train"]["tokens"], plain["train"]["largest_token"], plain["tokenizer"]) == (3, 700, None)
    with pytest.raises(DataError, match="holds no tokens"):
        tokens_report(lines)


def test_a_folder_without_a_document_names_what_was_not_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "empty.jsonl").write_text("")
    (source / ".hidden.txt").write_text("text")
    (source / "table.csv").write_text("a,b")
    with pytest.raises(DataError, match="no document is left to train on") as caught:
        prepared(source, tmp_path / "out")
    for words in ("1 files were read, and hold no document", ".hidden.txt (it is hidden)", "table.csv"):
        assert words in caught.value.why
