"""Random command lines, files and run directories, seeded: each is answered or refused by one message.

    python -m benchmarks.fuzz_inputs [--count N] [--seed N] [--jobs N] [--part NAME …] [--json FILE] [--corpus DIR]

An input fails by a traceback, another exit code, a message that is none for people, JSON with NaN, more than 20 CPU
seconds or 3 GiB. The first of each kind of failure is written into the corpus, which `make test` replays. Exit code
1 if any failed.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import multiprocessing.pool
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.doors import DOORS, limit_memory, outcome
from benchmarks.fuzzing.given import to_json
from benchmarks.header import ROOT, write

COUNT = 100_000
SLICE = 1000  # inputs of one child: it ends, and with it whatever an input left behind in the process


@dataclass
class Found:
    """What came of some inputs of one part. failures: how many by signature; inputs: the first of each, as JSON."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    slowest: float = 0.0
    peak_bytes: int = 0

    def add(self, other: Found) -> None:
        """Add what came of more inputs."""
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.inputs = other.inputs | self.inputs
        self.cpu_seconds += other.cpu_seconds
        self.slowest = max(self.slowest, other.slowest)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)

    def as_json(self) -> dict[str, Any]:
        """The numbers of a part, its failures by how often they came."""
        return {
            "inputs": self.outcomes.total(),
            **{kind: self.outcomes[kind] for kind in ("answered", "refused", "failed")},
            "failures": dict(self.failures.most_common()),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "slowest_seconds": round(self.slowest, 2),
            "peak_resident_bytes": self.peak_bytes,
        }


def tried(part: str, seed: int, numbers: range) -> Found:
    """What came of these inputs of a part, tried in this process."""
    found, begin = Found(), time.process_time()
    for number in numbers:
        given = DOORS[part].draw(random.Random(f"{seed}/{part}/{number}"))
        before = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            kind, how = outcome(given, Path(folder))
        found.slowest = max(found.slowest, time.process_time() - before)
        found.outcomes[kind] += 1
        if kind == "failed":
            found.failures[how] += 1
            found.inputs.setdefault(how, to_json(given, how))
    found.cpu_seconds = time.process_time() - begin
    found.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def _child(part: str, seed: int, numbers: range, queue: Any) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    limit_memory()
    try:
        queue.put(tried(part, seed, numbers))
    except Exception as error:  # of a generator: what goes wrong behind a door is counted there
        how = f"{type(error).__name__} while inputs {numbers.start} to {numbers.stop - 1} of seed {seed} were made"
        queue.put(Found(outcomes=Counter(failed=len(numbers)), failures=Counter({how: 1})))


def tried_apart(work: tuple[str, int, range]) -> Found:
    """What came of these inputs in a child of their own; one that dies is a failure that names its inputs."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(*work, queue))
    child.start()
    while child.is_alive() and queue.empty():
        child.join(0.02)
    if not queue.empty():
        found: Found = queue.get()
        child.join()
        return found
    _, seed, numbers = work
    died = f"the process died ({child.exitcode}) among inputs {numbers.start} to {numbers.stop - 1} of seed {seed}"
    return Found(outcomes=Counter(failed=len(numbers)), failures=Counter({died: 1}))


def slices(parts: list[str], count: int, seed: int) -> list[tuple[str, int, range]]:
    """The work: each part's share of `count` inputs, in slices."""
    found = []
    for part in parts:
        own = round(count * DOORS[part].share)
        found += [(part, seed, range(at, min(own, at + SLICE))) for at in range(0, own, SLICE)]
    return found


def keep(found: dict[str, Found], corpus: Path) -> None:
    """Write the first input of each failure into the corpus."""
    for part, whole in found.items():
        for how, text in whole.inputs.items():
            folder = corpus / part.replace(" ", "_").replace(".", "_")
            folder.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(how.encode()).hexdigest()[:12]
            (folder / f"{name}.json").write_text(text, encoding="utf-8")


def main() -> int:
    """Try them and write the result; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", action="append", choices=list(DOORS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--corpus", type=Path, default=ROOT / "tests" / "corpus")
    options = parser.parse_args()
    work = slices(options.part or list(DOORS), options.count, options.seed)
    import torch

    torch.set_num_threads(1)
    for part in DOORS:  # whatever they import is imported once, before the children
        tried(part, options.seed - 1, range(5))
    begin, found = time.monotonic(), {part: Found() for part, _, _ in work}
    with multiprocessing.pool.ThreadPool(options.jobs) as pool:
        for (part, _, numbers), part_found in zip(work, pool.imap(tried_apart, work), strict=True):
            found[part].add(part_found)
            keep({part: part_found}, options.corpus)  # at once: hours of inputs are left
            failed = found[part].outcomes["failed"]
            print(f"{part}: {numbers.stop}, {failed} failed; {time.monotonic() - begin:.0f} s", file=sys.stderr)
    whole = sum((one.outcomes for one in found.values()), Counter[str]())
    result = {"seed": options.seed, "inputs": whole.total(), "failed": whole["failed"]}
    seconds = {"seconds": round(time.monotonic() - begin)}
    write(result | seconds | {"parts": {part: one.as_json() for part, one in found.items()}}, options.json)
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
