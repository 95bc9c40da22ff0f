"""The survey of a large space by several processes, each of which looks at a part of it: the same as by one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from planner.analysis.search.batches import SearchTables
from planner.analysis.search.space import placements, rough_number
from planner.analysis.search.survey import Question, Survey, survey_of
from planner.config.run import RunConfig
from planner.inputs.search import SearchSpace

# layouts below which one process is as quick: another takes a second to start, and simulates its own chunks
FEW_LAYOUTS = 3_000_000
PartOfSpace = tuple[int, int]


def surveyed(tables: SearchTables, config: RunConfig, space: SearchSpace, question: Question, processes: int) -> Survey:
    """The survey of a space, by so many processes if it is large.

    What a process does not answer is done here. An interrupt ends all of them at once.
    """
    if processes < 2 or rough_number(config, space) < FEW_LAYOUTS:
        return survey_of(tables, placements(config, space), question)
    found, parts = Survey(), [(i, processes) for i in range(processes)]
    with _children(config, space, question, parts) as waiting:
        while waiting:
            for ready in wait(list(waiting)):
                assert isinstance(ready, Connection)
                part = waiting.pop(ready)
                with suppress(EOFError, OSError):  # it died: its part is still to be done
                    found.merge(ready.recv())
                    parts.remove(part)
    for part in parts:
        found.merge(survey_of(tables, placements(config, space, part), question))
    return found


@contextmanager
def _children(
    config: RunConfig, space: SearchSpace, question: Question, parts: list[PartOfSpace]
) -> Iterator[dict[Connection, PartOfSpace]]:
    """Processes that survey a part each, by the pipe on which each answers. None is left, however it ends."""
    spawned, context = dict[Connection, PartOfSpace](), get_context("spawn")
    children: list[SpawnProcess] = []
    try:
        with _interrupts_held_back():
            for part in parts:
                mine, theirs = context.Pipe(duplex=False)
                child = context.Process(target=_survey_part, args=(theirs, config, space, question, part), daemon=True)
                try:
                    child.start()
                except OSError:  # no process, or no memory for one
                    mine.close()
                    break
                finally:
                    theirs.close()
                children.append(child)
                spawned[mine] = part
        yield dict(spawned)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join()
        for pipe in spawned:
            pipe.close()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """An interrupt arrives afterwards, and never in a process that is started meanwhile: its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _survey_part(
    answer: Connection, config: RunConfig, space: SearchSpace, question: Question, part: PartOfSpace
) -> None:
    """What a process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    found = survey_of(SearchTables(config, space), placements(config, space, part), question)
    with suppress(OSError):  # nobody waits for it
        answer.send(found)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
