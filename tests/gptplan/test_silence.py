"""Whatever takes longer than a second says what it does: on stderr, if that is a terminal, and never on stdout."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptplan import silence
from gptplan.app import COMMANDS, main
from gptplan.os_signals import OWN_HANDLERS
from gptplan.silence import DOES, SilenceBreaker
from gptplan.standard_streams import GuardedStream
from planner.activity import current_activity, doing
from planner.errors import InputError
from tests.gptplan.calling import Call

SMALL = ("--layers", "1", "--hidden", "16", "--heads", "1", "--vocab", "256", "--seq", "16", "--steps", "3")
TEXT = ("--data", "text.txt", "--device", "cpu")


def test_every_command_has_a_sentence() -> None:
    """But those with a screen or questions of their own."""
    assert set(DOES) == set(COMMANDS)
    assert {command for command, what in DOES.items() if what is None} == set(OWN_HANDLERS)


class Ticking:
    """A stream, its clock, and the breaker that looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.shown = 0.0, io.StringIO()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.stream = GuardedStream(self.shown)
        self.breaker = SilenceBreaker([self.stream], lambda: self.now)

    def after(self, seconds: float) -> str:
        """What stands on the stream when it is looked at so many seconds later."""
        self.now += seconds
        self.breaker.look()
        return self.shown.getvalue()


def test_a_second_of_silence_is_broken_once_for_each_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking = Ticking(monkeypatch)
    with doing("planning"):
        assert ticking.after(0.9) == ""
        assert ticking.after(0.2) == "planning …\n"
        assert ticking.after(60) == "planning …\n"
        with doing("reading the data"):
            assert ticking.after(0.9) == "planning …\n", "each has its second"
            ticking.stream.write("200 files\n")
            assert ticking.after(0.9).endswith("200 files\n"), "a line is no silence"
            assert ticking.after(0.2).endswith("200 files\nreading the data …\n")
        assert ticking.after(60).endswith("reading the data …\n")
    assert ticking.after(60).endswith("reading the data …\n") and current_activity() is None


class Terminal(io.StringIO):
    """A stderr that claims to be a terminal, or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_program_breaks_its_silence_on_a_terminal_only(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, err = io.StringIO(), Terminal(is_terminal)

    def slow(directory: Path) -> Any:
        deadline = time.monotonic() + (30 if is_terminal else 0.1)
        while not err.getvalue() and time.monotonic() < deadline:
            time.sleep(0.005)
        raise InputError("the end of the wait")

    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr("planner.runs.comparison_file.load_comparison", slow)
    monkeypatch.setattr(sys, "argv", ["gptplan", "compare", str(tmp_path), "--json"])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit):
        main()
    said = f"{DOES['compare']} …\n" if is_terminal else ""
    assert err.getvalue() == f"{said}error: the end of the wait\n" and out.getvalue() == ""


# a command's slow part, by the function that does the work: what it says meanwhile
SLOW = {
    "reference_trainer.data.corpus.prepare.documents": (("data", "text.txt", "-o", "out"), "tokenizing"),
    "reference_trainer.data.corpus.report.token_files": (("data", "text.txt"), "reading every token"),
    "reference_trainer.loop.evaluation.open_data": (("run", "run.toml", "--out", "out", *TEXT), "reading the data"),
    "reference_trainer.execute.estimate": (("run", "run.toml", "--out", "out", *TEXT), "predicting"),
    "reference_trainer.loop.startup.build_model": (("run", "run.toml", "--out", "out", *TEXT), "building the model"),
    "reference_trainer.train._loop": (("run", "run.toml", "--out", "out", *TEXT), "training"),
    "reference_trainer.measure.replay_report.replay": (("trace", "run.toml"), "replaying"),
    "reference_trainer.preflight.lr_finder.steps_on": (("lr-find", "run.toml", *TEXT), "taking steps"),
    "reference_trainer.post_mortem.read_rows": (("postmortem", "old"), "reading the logs"),
    "reference_trainer.checkpoint.atomic.load_manifest": (("sample", "old"), "reading the checkpoint"),
}


@pytest.fixture
def prepared(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A text, a small run.toml, and what looks like an old run; nothing measures this machine."""
    (tmp_path / "text.txt").write_text("the quick brown fox " * 40)
    assert call("plan", *SMALL, "--micro-batch", "1", "--gpu", "cpu", "-o", "run.toml").code == 0
    (tmp_path / "old/checkpoints/step-00000001").mkdir(parents=True)
    for name in ("metrics.jsonl", "events.jsonl", "config.toml", "checkpoints/step-00000001/manifest.json"):
        (tmp_path / "old" / name).write_text("{}\n")
    for module in ("execute", "preflight.lr_finder"):
        monkeypatch.setattr(f"reference_trainer.{module}.adapt_to_device", lambda config, *_, **__: config)
    yield


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(("function", "case"), SLOW.items(), ids=SLOW)
def test_every_slow_part_says_what_it_does(
    function: str, case: tuple[tuple[str, ...], str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, what = case
    seen: list[str] = []

    def noted(*_: Any, **__: Any) -> Any:
        seen.append(getattr(current_activity(), "what", ""))
        raise InputError("seen")

    monkeypatch.setattr(function, noted)
    assert call(*words).code == 2
    assert seen and seen[0].startswith(what), seen


def test_a_long_preparation_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reference_trainer.data.corpus import prepare

    seconds = count(0, 6)
    monkeypatch.setattr(prepare, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(prepare, "TOKENIZE_BYTES", 100)
    (tmp_path / "lines.jsonl").write_text('{"text": "to be or not to be, that is the question"}\n' * 20)
    said: list[str] = []
    options = prepare.PrepareOptions((tmp_path / "lines.jsonl",), tmp_path / "out", val_share=0)
    prepare.prepare(options, said.append)
    assert said and all(line.startswith("tokenized ") and line.endswith(" so far") for line in said)
