"""No count that a person can type becomes endless work: every numeric option is an answer or one message, at once."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import typer

from gptplan.app import application
from planner import bounds
from planner.errors import InputError
from reference_trainer.data.corpus.writer import SplitWriter
from reference_trainer.measure.calibrate import quiet_profile
from reference_trainer.preflight.lr_finder import refuse_span
from reference_trainer.sampling import Sampling, refuse_invalid
from tests.gptplan.calling import Call

COUNTS = {"N", "X", "FRACTION", "K", "STEPS", "LR", "USD", "MULTIPLE", "TOKENS", "NATS", "SHARE", "0..3", "ID", "K,K,…"}
PLAN = ("--params", "125M", "--tokens", "10B", "--gpu", "h100-80gb", "--gpus", "8")
ABSURD = ("nan", "9" * 30)
CALLS = 1_500_000  # Python functions called for one answer; the largest plan of this test needs a third


@functools.cache
def numeric_options(command: str) -> list[str]:
    """The options of a command whose placeholder is a number."""
    found = typer.main.get_command(application()).commands[command]  # type: ignore[attr-defined]
    return [p.opts[0] for p in found.params if getattr(p, "metavar", None) in COUNTS]


class TooMuchWorkError(Exception):
    """An answer took more calls than any should."""


def counted(call: Call, *words: str) -> Any:
    """What the command said. Raises TooMuchWorkError where it does not end."""
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > CALLS:
            raise TooMuchWorkError(words)

    sys.setprofile(count)
    try:
        return call(*words)
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("command", ["estimate", "schedule", "batch"])
def test_every_number_is_answered_or_refused_in_bounded_work(call: Call, command: str) -> None:
    shared = set(numeric_options("estimate")) if command != "estimate" else set()
    options = [name for name in numeric_options(command) if name not in shared]
    assert len(options) >= (3 if shared else 60) or command == "schedule"
    for name in options:
        base = [word for pair in zip(PLAN[::2], PLAN[1::2], strict=True) if pair[0] != name for word in pair]
        for value in ABSURD:
            words = (command, *base, name, value)
            said = counted(call, *words) if value == ABSURD[-1] else call(*words)
            assert said.code in (0, 2) and "Traceback" not in said.err, (name, value, said.err)
            assert (said.err.count("error: ") == 1) == (said.code == 2), (name, value, said.err)
            assert len(said.out) < 20_000 and len(said.err) < 2_000, (name, value)


def test_endless_work_would_be_seen(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gptplan.test_bounds.CALLS", 1000)
    with pytest.raises(TooMuchWorkError):
        counted(call, "estimate", *PLAN)


@pytest.mark.parametrize(
    "work",
    [
        lambda: refuse_invalid(Sampling(tokens=10**9)),
        lambda: refuse_invalid(Sampling(tokens=2000, samples=10**6)),
        lambda: refuse_span(1e-7, 1e-1, 10**30),
        lambda: quiet_profile("cpu", 1e18, 1),
        lambda: quiet_profile("cpu", 1.0, 10**18),
    ],
)
def test_counts_that_would_be_endless_are_refused_before_the_work(work: Any) -> None:
    with pytest.raises(InputError, match="too many") as caught:
        work()
    assert "at most" in caught.value.why and caught.value.remedy.startswith("give ")


def test_shards_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_trainer.data.corpus.writer.MOST_SHARDS", 3)
    with (
        SplitWriter(tmp_path, "train", "<u2", 1) as writer,
        pytest.raises(InputError, match="shards of --shard-tokens 1"),
    ):
        writer.add([1, 2, 3, 4], 0, 4)
    assert len(list(tmp_path.iterdir())) == 3 and bounds.MOST_SHARDS >= 1000


def test_the_usual_counts_are_allowed() -> None:
    refuse_invalid(Sampling(tokens=4000, samples=100))
    refuse_span(1e-7, 1e-1, 2000)
