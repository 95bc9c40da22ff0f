"""What the machine has and does: device names, memory counters, and the line or bar that people watch."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from planner.errors import InputError, PlanError
from planner.log import LOG_EVERY_SECONDS, Log
from planner.paths import exists
from planner.units import LOSS_DIGITS, format_duration, format_number, format_rate
from reference_trainer.device.cuda_setup import use_device


def device_of_rank(asked: str | None, local: int, joined: bool) -> str | None:
    """What `pick_device` is asked by a rank, the `local`-th of its machine: each has a GPU of its own.

    Raises InputError for one GPU for all of them.
    """
    if not joined:
        return asked
    if asked is not None and asked.startswith("cuda:"):
        raise InputError(
            f"--device {asked} with several ranks", why="each rank has a GPU of its own", remedy="give --device cuda"
        )
    kind = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    return f"cuda:{local}" if kind == "cuda" else kind


def pick_device(asked: str | None) -> torch.device:
    """The device asked for, made PyTorch's current one; for None a GPU if there is one. Raises PlanError if absent."""
    if asked is None:
        return use_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    kind, _, index = asked.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise InputError(f"unknown device {asked!r}", remedy="cpu, cuda, or cuda:1 for the second GPU")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise PlanError(
            f"there is no device {asked!r} here",
            why=f"PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs",
            remedy="use --device cpu, or install a driver and a PyTorch with CUDA",
        )
    return use_device(torch.device(asked))


def device_name(device: torch.device) -> str:
    """The GPU's name as its driver gives it, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere the bare word
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if exists(cpuinfo) else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # x86 and ARM, as PyTorch names them


def has_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are instructions of the device; others emulate them, slower than fp32.

    It is a property of the hardware as PyTorch reports it, and no timing: a busy machine has the same answer.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    reported = getattr(torch.cpu, "get_capabilities", None)  # not in every supported version
    if reported is None:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    found = reported()
    return any(bool(found.get(name, False)) for name in BF16_INSTRUCTIONS)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Peaks in bytes since training began. The first four are CUDA's and None on a CPU.

    `peak_allocated`: of tensors, rounded up to blocks; `peak_reserved`: taken from the driver by PyTorch;
    `peak_requested`: of tensors, as asked for; `device_used`: of the whole card now, contexts and other processes
    included; `peak_rss`: most memory that this process ever had resident on the host, PyTorch's own code included.
    """

    peak_allocated: int | None
    peak_reserved: int | None
    peak_requested: int | None
    device_used: int | None
    peak_rss: int


def read_memory(device: torch.device) -> DeviceMemory:
    """The counters as they stand."""
    if device.type != "cuda":
        return DeviceMemory(None, None, None, None, _peak_rss())
    stats = torch.cuda.memory_stats(device)
    allocated, reserved, requested = (
        stats[f"{kind}_bytes.all.peak"] for kind in ("allocated", "reserved", "requested")
    )
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(allocated, reserved, requested, total - free, _peak_rss())


@dataclass(frozen=True, slots=True)
class AllocatorState:
    """Bytes allocated and reserved now, and how often the allocator freed its cache to find memory since the process
    began; None on a CPU."""

    allocated: int | None = None
    reserved: int | None = None
    retries: int | None = None


def read_allocator(device: torch.device) -> AllocatorState:
    """The allocator's counters now, by one call: each builds a table of some hundred numbers on the host."""
    if device.type != "cuda":
        return AllocatorState()
    stats = torch.cuda.memory_stats(device)
    allocated, reserved = (int(stats.get(f"{kind}_bytes.all.current", 0)) for kind in ("allocated", "reserved"))
    return AllocatorState(allocated, reserved, int(stats.get("num_alloc_retries", 0)))


def _peak_rss() -> int:
    status = Path("/proc/self/status")
    if exists(status):  # Linux, where getrusage also counts what the parent process had before it started this one
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def wait_for(device: torch.device) -> None:
    """Return when the device has done all its work: only then does a clock show how long it took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


Show = Callable[[int, float, float], None]


@contextmanager
def progress(done: int, steps: int, tokens_per_step: int, log: Log, bar: bool) -> Iterator[Show]:
    """A function to call after each step with (step, loss in nats, seconds): a bar on stderr, or a line every 10 s.

    The bar comes only if it is wanted and stderr is a terminal.
    """
    if not (bar and sys.stderr.isatty()):
        yield _lines(steps, tokens_per_step, log)
        return
    from rich.console import Console  # 60 ms, wanted only where there is a bar
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as shown:
        task = shown.add_task("training", total=steps, completed=done)

        def show(step: int, loss: float, seconds: float) -> None:
            rate = format_rate(tokens_per_step / seconds)
            shown.update(task, completed=step, description=f"loss {format_number(loss, LOSS_DIGITS)}, {rate}")

        yield show


def _lines(steps: int, tokens_per_step: int, log: Log) -> Show:
    last = time.monotonic()

    def show(step: int, loss: float, seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_EVERY_SECONDS:
            last = time.monotonic()
            rate, left = format_rate(tokens_per_step / seconds), format_duration((steps - step) * seconds)
            log(f"step {step}/{steps}: loss {format_number(loss, LOSS_DIGITS)}, {rate}, {left} left")

    return show
