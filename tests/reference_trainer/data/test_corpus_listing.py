"""Which files of a folder are read: each that is not is counted and named with its reason, wherever data is given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planner.config.run import RunConfig
from planner.errors import DataError
from reference_trainer.data.corpus.listing import RECORDED, recorded_lines, skipped_lines, text_files
from reference_trainer.data.corpus.prepare import PrepareOptions, prepare
from reference_trainer.data.corpus.report import tokens_report, tokens_report_text
from reference_trainer.data.samples import open_data

LINE = json.dumps({"text": "some text"}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six files that are read, and one of every kind that is not."""
    root = tmp_path / "corpus"
    for name, content in {
        "a.txt": "one", "B.TXT": "two", "c.JSONL": LINE, "d.ndjson": LINE, "e.json": LINE * 2, "sub/f.md": "six",
        "README.md": "about", "sub/readme.txt": "about", "g.json": '{\n "text": "x"\n}', "h.json": "[1]",
        "i.json": '{"name": 1}\n', "j.csv": "1,2", "k": "nothing", "l.bin": "ab", ".hidden.txt": "no",
        ".git/config.txt": "no", "m.json": "", "n.zst": "?",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "linked").symlink_to(root / "sub")
    os.mkfifo(root / "pipe.txt")
    return root


SKIPPED = {
    "README.md": "a README is about the data beside it",
    "sub/readme.txt": "a README is about the data beside it",
    "g.json": "its first line is not one JSON object",
    "h.json": "its first line is a JSON list, not an object",
    "i.json": "its first object has no key 'text'",
    "m.json": "it is empty",
    "j.csv": ".csv is no ending of text",
    "k": "no ending",
    "n.zst": "its name does not say what .zst packs, such as .txt.zst",
    "l.bin": "it holds tokens, not text",
    ".hidden.txt": "it is hidden",
    ".git": "it is a hidden folder",
    "linked": "it is a link to a folder",
    "pipe.txt": "it is no file but a pipe, a socket or a device",
}


def test_every_file_is_read_or_named(folder: Path) -> None:
    found = text_files(folder)
    read = {file.relative_to(folder).as_posix() for file in found.files}
    assert read == {"a.txt", "B.TXT", "c.JSONL", "d.ndjson", "e.json", "sub/f.md"}
    assert {one.path: one.why for one in found.skipped} == SKIPPED
    listed = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    assert listed - read - set(SKIPPED) - {"linked"} == {".git/config.txt"}  # named by its folder


def test_a_readme_alone_is_data(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("all there is")
    assert bytes(open_data(tmp_path, 256, 4).tokens) == b"all there is\n"
    (tmp_path / "README.txt").write_text("two are no more than one")
    assert len(text_files(tmp_path).files) == 2


def test_objects_a_line_are_documents_whatever_their_ending_and_case(folder: Path) -> None:
    (folder / "l.bin").unlink()  # a folder with one is a folder of tokens
    data = open_data(folder, 257, 4)
    texts = [b"two", b"one", b"some text", b"some text", b"some text", b"some text", b"six"]
    assert data.tokens.tolist() == [token for text in texts for token in (*text, 256)]
    assert data.summary is not None
    assert (data.summary.files, data.summary.documents) == (6, 7)
    assert data.summary.bytes == sum(file.stat().st_size for file in text_files(folder).files)
    assert open_data(folder / "c.JSONL", 257, 4).valid_tokens == 8


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[\n{}]", "not one JSON object"),
        ('[{"text": "a"}]', "a JSON list"),
        ('{\n"text": 1}', "not one JSON object"),
        ("", "it is empty"),
    ],
)
def test_a_json_that_is_no_lines_is_refused_by_name(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json' is not JSON-lines") as caught:
        open_data(tmp_path / "a.json", 257, 4)
    assert why in caught.value.why and "jq -c" in caught.value.remedy


def test_another_key_makes_another_json_data(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"content": "x"}\n')
    assert len(text_files(tmp_path, "content").files) == 1
    with pytest.raises(DataError, match="holds no text") as caught:
        text_files(tmp_path)
    assert "a.json (its first object has no key 'text')" in caught.value.why


def test_files_beside_tokens_are_named(tmp_path: Path) -> None:
    np.arange(50, dtype="<u2").tofile(tmp_path / "train.bin")
    np.arange(20, dtype="<u2").tofile(tmp_path / "val.bin")
    (tmp_path / "more").mkdir()
    np.arange(20, dtype="<u2").tofile(tmp_path / "more" / "train.bin")
    (tmp_path / "notes.txt").write_text("text")
    beside = {
        "more/train.bin": "it lies in a subfolder, and only the folder itself is read for tokens",
        "notes.txt": "the files of tokens are read instead",
    }
    whole = open_data(tmp_path, 64, 4, hold_out=True).summary
    assert whole is not None and {one.path: one.why for one in whole.skipped} == beside
    plain = open_data(tmp_path, 64, 4).summary
    assert plain is not None and plain.skipped[-1].path == "val.bin" and "held out" in plain.skipped[-1].why
    assert [one["path"] for one in tokens_report(tmp_path)["skipped"]] == list(beside)


def test_prepared_data_records_what_was_not_read(folder: Path, tmp_path: Path) -> None:
    meta = prepare(PrepareOptions(sources=(folder,), out=tmp_path / "out", val_share=0.0))
    said = meta["sources"]
    assert (said["files"], said["documents"], said["skipped_files"]) == (6, 7, len(SKIPPED))
    assert {one["path"]: one["why"] for one in said["skipped"]} == SKIPPED
    (tmp_path / "out" / "extra.bin").write_bytes(b"ab")
    report = tokens_report(tmp_path / "out")
    assert report["sources"] == said and report["skipped"][0]["why"] == "meta.json does not list it"
    text = tokens_report_text(report)
    assert "read 6 files, " in text and "j.csv (.csv is no ending of text)" in text and "extra.bin" in text


def test_a_lone_document_is_one(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a line\n" * 100)
    meta = prepare(PrepareOptions(sources=(tmp_path / "one.txt",), out=tmp_path / "out", val_share=0.1))
    assert meta["sources"]["documents"] == 1 and meta["train"]["documents"] + meta["validation"]["documents"] == 2


def test_of_two_sources_a_file_is_named_with_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        (tmp_path / name / "a.png").write_text("")
    meta = prepare(PrepareOptions(sources=(tmp_path / "one", tmp_path / "two"), out=tmp_path / "out", val_share=0.0))
    assert [one["path"] for one in meta["sources"]["skipped"]] == ["one/a.png", "two/a.png"]


def test_a_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (folder / "l.bin").unlink()
    monkeypatch.setattr("reference_trainer.data.corpus.listing.os.scandir", scandir)
    with pytest.raises(DataError, match="cannot read the training data") as caught:
        open_data(folder, 257, 4)
    assert "sub" in caught.value.why


def test_many_files_are_counted_and_some_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    for number in range(RECORDED + 5):
        (tmp_path / f"{number:04d}.png").touch()
    meta = prepare(PrepareOptions(sources=(tmp_path,), out=tmp_path / "out", val_share=0.0))
    assert meta["sources"]["skipped_files"] == RECORDED + 5 and len(meta["sources"]["skipped"]) == RECORDED
    assert recorded_lines(meta["sources"])[-1] == "not read: 5 files more"
    (line,) = skipped_lines(text_files(tmp_path).skipped[: RECORDED + 5])
    assert line.startswith("not read: 1,005 files, 0 B: 0000.png, 0001.png") and line.count(".png") == 6


def test_a_run_says_what_it_read_and_what_not(
    folder: Path, tmp_path: Path, tiny: Callable[..., RunConfig], train: Callable[..., object]
) -> None:
    (folder / "a.txt").write_text("a longer text " * 20)
    (folder / "l.bin").unlink()
    said: list[str] = []
    train(tiny(steps=1, vocab=257), "run", said=said, data_path=folder)
    assert any(line.startswith("read 6 files, ") and line.endswith(" 7 documents") for line in said)
    assert "not read: 1 file, 3 B: j.csv (.csv is no ending of text)" in said
    start = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[0])
    assert start["data_sources"]["skipped_files"] == len(SKIPPED) - 1
