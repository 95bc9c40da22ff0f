"""A trace of PyTorch's profiler, event by event: seconds of GPU kernels by class, and the steps that it marks.

A trace of some steps has a gigabyte: its events are read one after the other, and never held.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import FileError
from planner.files import open_ordinary

MOST_TRACE = 8 << 30  # bytes of the text, uncompressed
LONGEST_EVENT = 1 << 20  # characters
MOST_NAMES = 100_000  # different kernels
LONGEST_SECONDS = 1e9  # of an event
_CHUNK = 1 << 20
_MICRO = 1e-6  # seconds of the trace's unit
# first match wins; words in the names of kernels, lower case
CLASSES: dict[str, tuple[str, ...]] = {
    "communication": ("nccl", "rccl", "allreduce", "all_gather", "reduce_scatter", "sendrecv"),
    "attention": ("flash", "fmha", "attention", "attn", "mem_eff"),
    "matrix products": ("gemm", "cutlass", "xmma", "cublas", "matmul", "_mm_", "nvjet", "wgmma", "splitkreduce"),
    "optimizer": ("multi_tensor", "adam", "foreach", "lion", "muon"),
    "loss": ("softmax", "nll_loss", "cross_entropy", "logsumexp"),
    "copies": ("memcpy", "memset"),
}
OTHER = "element-wise"


@dataclass(frozen=True, slots=True)
class TraceSums:
    """Seconds and numbers of kernels by class, the longest names of each, steps that are marked, and their seconds.

    Kernels of several streams overlap: their sum may be above the seconds of the steps.
    """

    seconds: dict[str, float]
    kernels: dict[str, int]
    longest: dict[str, tuple[str, ...]]
    steps: int
    step_seconds: float | None


def class_of(name: str) -> str:
    """The class of a kernel, by its name."""
    low = name.lower()
    return next((kind for kind, words in CLASSES.items() if any(word in low for word in words)), OTHER)


def read_trace(path: Path) -> TraceSums:
    """The sums of a trace in Chrome's format, .json or .json.gz. Raises FileError, also where it has no GPU kernels."""
    seconds: defaultdict[str, float] = defaultdict(float)
    names: defaultdict[str, float] = defaultdict(float)
    kernels: Counter[str] = Counter()
    steps: dict[str, float] = {}
    for event in _events(path):
        length, name = event.get("dur"), event.get("name")
        if event.get("ph") != "X" or not isinstance(length, int | float) or not isinstance(name, str):
            continue
        if not 0 <= length < LONGEST_SECONDS / _MICRO:
            continue
        kind = event.get("cat")
        if kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            found = class_of(name)
            seconds[found] += length * _MICRO
            kernels[found] += 1
            if len(names) < MOST_NAMES or name in names:
                names[name] += length * _MICRO
        elif kind == "user_annotation" and name.startswith("ProfilerStep#") and len(steps) < MOST_NAMES:
            steps[name] = length * _MICRO
    if not kernels:
        raise FileError(
            f"{path} has no GPU kernels",
            why="no event has the category kernel",
            remedy="profile on a GPU, with ProfilerActivity.CUDA",
        )
    ordered = sorted(names, key=lambda name: -names[name])
    longest = {kind: tuple(n for n in ordered if class_of(n) == kind)[:3] for kind in seconds}
    mean = sum(steps.values()) / len(steps) if steps else None
    return TraceSums(dict(seconds), dict(kernels), longest, len(steps), mean)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a trace. Raises FileError where it is cut short, no trace, or beyond the bounds."""
    try:
        with open_ordinary(path) as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            file = io.TextIOWrapper(
                gzip.GzipFile(fileobj=raw) if packed else raw,
                encoding="utf-8", errors="replace",
            )  # fmt: skip
            yield from _parsed(file, path)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or str(error) or "its events are nested too deep"
        raise FileError(f"{path} cannot be read", why=why, remedy="give a whole trace of torch.profiler") from None


def _parsed(file: io.TextIOWrapper, path: Path) -> Iterator[dict[str, Any]]:
    decoder, text, size, inside = json.JSONDecoder(), "", 0, False
    while True:
        chunk = file.read(_CHUNK)
        size += len(chunk)
        if size > MOST_TRACE:
            raise ValueError(f"it has more than {MOST_TRACE >> 30} GiB")
        text += chunk
        if not inside:
            at = text.find('"traceEvents"')
            start = text.find("[", at) if at >= 0 else -1
            if start < 0:
                if not chunk:
                    raise ValueError("it has no traceEvents")
                text = text[-64:] if at < 0 else text[at:]
                if len(text) > LONGEST_EVENT:
                    raise ValueError("it has no list of traceEvents")
                continue
            text, inside = text[start + 1 :], True
        place = 0
        while True:
            place = _after_gap(text, place)
            if text[place : place + 1] == "]":
                return
            try:
                event, place = decoder.raw_decode(text, place)
            except json.JSONDecodeError:
                break
            if isinstance(event, dict):
                yield event
        text = text[place:]
        if len(text) > LONGEST_EVENT + _CHUNK:
            raise ValueError("an event is no JSON, or longer than a megabyte")
        if not chunk:
            raise ValueError("it ends in the middle of its events")


def _after_gap(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place
