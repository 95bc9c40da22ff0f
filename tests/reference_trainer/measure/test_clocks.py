"""The clock of a GPU and a sweep with it, on a simulated host and queue: no time here is a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import torch

from reference_trainer.measure import calibrate
from reference_trainer.measure.calibrate import Sweep
from reference_trainer.measure.clocks import CudaClock
from reference_trainer.measure.kernel_pool import Kernel, TensorPool
from reference_trainer.measure.kernel_timings import bytes_of, kernels_on

GPU = torch.device("cuda")
CYCLES = 1.98e9  # a second of the simulated GPU
LAUNCH = 10e-6  # s of the host for each kernel
QUEUE = 1024  # kernels that a queue holds: the host waits for a place


@dataclass
class Simulated:
    """A host whose every launch takes time, and a GPU that runs its queue in order. All times in seconds."""

    now: float = 0.0  # of the host
    ends: list[float] = field(default_factory=list)  # when each kernel in the queue ends

    @property
    def free(self) -> float:
        return self.ends[-1] if self.ends else 0.0

    def kernel(self, seconds: float, launch: float = LAUNCH) -> None:
        self.now += launch
        if len(self.ends) >= QUEUE:
            self.now = max(self.now, self.ends[-QUEUE])
        self.ends.append(max(self.now, self.free) + seconds)

    # what torch.cuda has

    def _sleep(self, cycles: int) -> None:
        self.kernel(cycles / CYCLES)

    def synchronize(self, device: object = None) -> None:
        self.now = max(self.now, self.free)

    def Event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


@dataclass
class Event:
    """An event of the simulated queue."""

    gpu: Simulated
    at: float = 0.0

    def record(self) -> None:
        self.at = max(self.gpu.now, self.gpu.free)

    def query(self) -> bool:
        return self.gpu.now >= self.at

    def synchronize(self) -> None:
        self.gpu.now = max(self.gpu.now, self.at)

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


@pytest.fixture
def gpu() -> Simulated:
    return Simulated()


def clock(gpu: Simulated) -> CudaClock:
    return CudaClock(GPU, gpu, lambda: gpu.now)


def test_the_pause_is_as_long_as_it_is_meant_to_be(gpu: Simulated) -> None:
    assert clock(gpu).cycles_per_second == pytest.approx(CYCLES, rel=0.05)


@pytest.mark.parametrize("seconds", [1e-6, 5e-6, 2e-5, 1e-2])
@pytest.mark.parametrize("calls", [1, 7, 50])
@pytest.mark.parametrize("kernels", [1, 6])
def test_a_kernel_takes_its_own_time_and_no_launch(gpu: Simulated, seconds: float, calls: int, kernels: int) -> None:
    def call() -> None:
        for _ in range(kernels):
            gpu.kernel(seconds)

    assert clock(gpu).seconds(call, calls) == pytest.approx(kernels * seconds)


def test_the_hosts_part_is_the_launch_alone(gpu: Simulated) -> None:
    assert clock(gpu).host_seconds(lambda: gpu.kernel(5e-3), 20) == pytest.approx(LAUNCH)


def test_a_host_that_becomes_slower_gets_a_longer_pause(gpu: Simulated) -> None:
    """The first call was fast, and those that are timed take five times as long to launch."""
    launches: Iterator[float] = (LAUNCH if i == 0 else 5 * LAUNCH for i in count())
    found = clock(gpu).seconds(lambda: gpu.kernel(2e-6, next(launches)), 40)
    assert found == pytest.approx(2e-6)


def test_a_call_that_waits_for_the_gpu_is_timed_with_its_wait(gpu: Simulated) -> None:
    def call() -> None:
        gpu.kernel(2e-6)
        gpu.synchronize()

    # each launch follows the end of the kernel before it, as in a step
    assert clock(gpu).seconds(call, 10) == pytest.approx(LAUNCH + 2e-6, rel=0.15)


def test_more_calls_than_the_queue_holds_are_timed_all_the_same(gpu: Simulated) -> None:
    assert clock(gpu).seconds(lambda: [gpu.kernel(3e-6) for _ in range(40)], 50) == pytest.approx(40 * LAUNCH, rel=0.1)


# --- a sweep ----------------------------------------------------------------------------------------------------------

FLAT = tuple((1 << power,) for power in (10, 20, 28))
BANDWIDTH, FASTEST = 4e12, 2e-6  # bytes a second; seconds of a kernel of one element


def swept(gpu: Simulated, monkeypatch: pytest.MonkeyPatch, limit: float) -> dict[str, Any]:
    """The tables of a sweep over simulated kernels, in a time box of the simulated host."""

    def streaming(pool: TensorPool, dtype: str, sizes: tuple[int, ...]) -> Callable[[], None]:
        return lambda: gpu.kernel(max(FASTEST, 12 * sizes[0] / BANDWIDTH))

    def nothing(pool: TensorPool, dtype: str, sizes: tuple[int, ...]) -> Callable[[], None]:
        def call() -> None:
            gpu.now += 64 * 1e-6  # bookkeeping

        return call

    kernels = {
        "dispatch": Kernel(nothing, ((1,),), divide_by=64, on_host=True),
        "engine": Kernel(nothing, ((1,),), on_host=True),
        "launch": Kernel(streaming, ((1 << 10,),), on_host=True),
        "add": Kernel(streaming, FLAT),
        "gelu_backward": Kernel(streaming, FLAT),
    }
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: gpu.now)
    pool = TensorPool(torch.device("cpu"), 1 << 10)
    pool.device = GPU
    sweep = Sweep(pool, kernels, limit, clock(gpu))
    sweep.run()
    assert sweep.noise() < 1e-6
    return sweep.tables()


def test_a_sweep_separates_what_the_host_and_the_gpu_take(gpu: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = gpu.now
    found = swept(gpu, monkeypatch, 2.0)
    assert gpu.now - begin < 3.0  # the time box, and one round's end
    expected = [[size, pytest.approx(max(FASTEST, 12 * size / BANDWIDTH))] for (size,) in FLAT]
    assert found["add"]["fp32"] == expected
    assert found["gelu_backward"]["fp32"] == expected  # no engine in it: that is the host's
    assert found["launch"]["fp32"] == [[1024, pytest.approx(LAUNCH)]]
    assert found["dispatch"]["fp32"] == [[1, pytest.approx(1e-6)]]
    assert "engine" not in found


# --- the sizes of a GPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gibibytes", "largest"), [(16, 1 << 26), (24, 1 << 28), (80, 1 << 28), (141, 1 << 30)])
def test_sizes_reach_a_steps_own_tensors_as_far_as_memory_goes(
    gibibytes: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = gibibytes << 30
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": total}))
    kernels = kernels_on(GPU)
    assert max(kernels["add"].sizes) == (largest,)
    for name, kernel in kernels.items():
        assert kernel.sizes, name
        assert all(bytes_of(name, sizes) <= total / 4 for sizes in kernel.sizes), name
    assert {"launch"} == set(kernels) - set(kernels_on(torch.device("cpu")))
