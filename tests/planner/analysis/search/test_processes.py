"""A large space is surveyed by several processes: the same result, none is left however it ends, in bounded memory."""

from __future__ import annotations

import gc
import multiprocessing
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import pytest

from planner.analysis.search import processes, survey
from planner.analysis.search.batches import SearchTables
from planner.analysis.search.search import SearchResult, search
from planner.analysis.search.space import Placement, placements
from planner.analysis.search.survey import Question, survey_of
from planner.analysis.search.tables import Kept
from planner.inputs.search import SearchLimits, SearchSpace
from tests.planner.analysis.search.runs import drafted_run

CONFIG = drafted_run(
    layers="8", hidden="1024", heads="16", vocab="32768", seq="2048", tokens="1B", gpu="h100-80gb", gpus="1",
    global_batch_tokens="128Ki",
)  # fmt: skip
SPACE = SearchSpace(("h100-80gb", "a100-40gb"), (2, 4), frozenset({"cp"}))


def same(one: SearchResult, other: SearchResult) -> bool:
    names = ("best", "open", "front", "left_out", "considered", "placements", "simulated")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def test_two_processes_find_what_one_does_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = search(CONFIG, SPACE, shown=20)
    monkeypatch.setattr(processes, "FEW_LAYOUTS", 0)
    assert same(search(CONFIG, SPACE, shown=20, processes=2), alone)
    assert len(alone.best) == 20 and not multiprocessing.active_children()


def test_a_small_space_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "get_context", None)
    search(CONFIG, SPACE, processes=64)


def _ends_at_once(child: BaseProcess) -> None:
    started(child)
    child.kill()
    child.join()


def _cannot_start(child: BaseProcess) -> None:
    raise OSError("no process is left")


started = multiprocessing.get_context("spawn").Process.start


@pytest.mark.parametrize("start", [_ends_at_once, _cannot_start])
def test_parts_that_no_process_answers_are_done_here(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FEW_LAYOUTS", 0)
    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    found = search(CONFIG, SPACE, processes=2)
    monkeypatch.undo()
    assert same(found, search(CONFIG, SPACE))


def test_an_interrupt_ends_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    born: list[BaseProcess] = []

    def noted(child: BaseProcess) -> None:
        started(child)
        born.append(child)

    def interrupted(pipes: Any) -> Any:
        assert len(born) == 3 and all(child.is_alive() for child in born)
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "FEW_LAYOUTS", 0)
    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", noted)
    monkeypatch.setattr(processes, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(CONFIG, SPACE, processes=3)
    assert not any(child.is_alive() for child in born) and not multiprocessing.active_children()


def test_few_promises_give_the_same_result_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space is looked at again where those that were kept are not enough."""
    expected = search(CONFIG, SPACE)
    looks = []

    def counted(tables: Any, placed: Any, question: Question) -> Any:
        looks.append(question.after)
        return survey_of(tables, placed, question)

    monkeypatch.setattr(survey, "MOST_PROMISES", 5)
    monkeypatch.setattr(survey, "MOST_OF_A_FRONT", 1)
    monkeypatch.setattr(processes, "survey_of", counted)
    assert same(search(CONFIG, SPACE), expected)
    assert len(looks) > 1 and looks[1] is not None


def numbered_anew(times: int) -> Iterator[Placement | str]:
    """The placements of the space so many times; the interpreter's lists of free objects are emptied between them."""
    for turn in range(times):
        gc.collect()
        for one in placements(CONFIG, SPACE):
            if isinstance(one, Placement):
                yield replace(one, number=(turn, *one.number[1:]))


def test_memory_does_not_grow_with_the_number_of_placements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MOST_PROMISES", 8)
    monkeypatch.setattr(survey, "MOST_OF_A_FRONT", 2)
    monkeypatch.setattr(survey, "PLACEMENTS_AT_ONCE", 4)
    tables, question = SearchTables(CONFIG, SPACE), Question("time", SearchLimits())
    survey_of(tables, numbered_anew(1), question)  # its tables stay
    peaks, sizes = [], []
    for times in (2, 8):
        tracemalloc.start(1)
        sizes.append(survey_of(tables, numbered_anew(times), question).placements)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sizes[1] == 4 * sizes[0] > 900 and peaks[1] < 1.3 * peaks[0], (sizes, peaks)


def test_tables_forget_when_they_have_too_many_values_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.analysis.search.tables.MOST_KEPT", 3)
    monkeypatch.setattr("planner.analysis.search.tables.MOST_ARRAY_BYTES", 100)
    table: Kept[object] = Kept()
    for key in range(10):
        table[key] = key
        assert len(table) <= 3 and table[key] == key
    for key in range(10):
        table[key] = np.zeros(4)
        assert sum(getattr(value, "nbytes", 0) for value in table.values()) <= 100
