"""Measures a short profile of this machine: times of kernels, not of models. `planner.step_time.measured` reads them.

The sweep over all kernels and sizes is repeated until the time is up, and the median of each kernel is kept, so a
burst of other work affects one round and not the result. The lower quartile was tried: the sum of many lower
quartiles is below the step's median by the noise, 8 to 10 % when we measured it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean, median

import torch

from planner.bounds import MOST_CALIBRATION_SECONDS, MOST_CALIBRATION_TRIES, refuse_more_than
from planner.errors import PlanError
from planner.inputs.profile_file import NOISY, is_noisy, noise_of
from planner.log import Log
from planner.step_time.kernel_tables import SCHEMA, Table, powers_of
from reference_trainer.device.device import device_name, pick_device
from reference_trainer.measure.clocks import DeviceClock, clock_of
from reference_trainer.measure.kernel_pool import TIMED_DTYPES, Kernel, TensorPool
from reference_trainer.measure.kernel_timings import kernels_on, pool_elements
from reference_trainer.measure.machine import machine_facts
from reference_trainer.measure.waiting import longest_wait, waits_of_threads

TimingKey = tuple[str, str, tuple[int, ...]]  # kernel, element type, sizes

LONGEST_CALL_FRACTION = 1 / 400  # of the time box that one call may take: larger sizes are left out
FIRST_ROUND_FRACTION = 0.6  # of the time box, after which the first round leaves out sizes between those at the ends
# about how long one try may take, where nobody says: a GPU loads each kernel at its first call, 15 ms for every size
DEFAULT_SECONDS = {"cpu": 15.0, "cuda": 40.0}
OUTLIER_RATIO = 2.0  # a first reading this many times the expected one is taken again …
OUTLIER_MIN_SECONDS = 1e-3  # … if it is long enough to be another process's turn on the processor
OUTLIER_MAX_CALLS = 2.0  # … and not so long, in longest calls, that the kernel is simply slow
RETRIES = 4
RETRY_SLEEP = 0.01  # seconds, times the attempt
CANARIES = 3  # calls of a small addition before each kernel
CANARY_SECONDS = 1e-3  # of one: it takes 1e-5 to 1e-4 s where nobody else runs
CANARY_SLEEP = 0.02
MOST_CALLS = 50
BATCH_SECONDS = 2e-4  # calls are timed together until they take this long: a clock reading costs 1e-7 s
UNKNOWN_NOISE = 0.5  # where the time box allowed one round only: a guess, on the safe side
MIN_SECONDS = 1e-9  # a difference of two times is at least this


def quiet_profile(device: str, seconds: float, tries: int, log: Log = lambda line: None) -> dict[str, object] | None:
    """A profile that was not disturbed: measured again, up to `tries` times in all, while the machine is busy.

    Where the time was enough for one round only, the next try has twice as much.

    None if it was busy each time: such a profile is neither kept nor used. Otherwise as `measure_profile`.
    Raises InputError for more than an hour, or a hundred tries.
    """
    refuse_more_than(MOST_CALIBRATION_SECONDS, seconds, "--seconds", "a minute is enough for every kernel")
    refuse_more_than(MOST_CALIBRATION_TRIES, tries, "--tries", "a machine that stays busy is measured another day")
    for attempt in range(1, tries + 1):
        profile = measure_profile(device, seconds, log)
        if not is_noisy(profile):
            return profile
        why = f"the machine was busy: noise {noise_of(profile):.0%} is above {NOISY:.0%}"
        again = "measuring again"
        if profile.get("rounds") == 1:  # of one time each nobody knows how it scatters
            why = f"{seconds:g} s were enough to time each kernel once: their noise is unknown"
            seconds = min(2 * seconds, MOST_CALIBRATION_SECONDS)
            again = f"measuring for {seconds:g} s"
        log(f"{why} (try {attempt} of {tries}): {again if attempt < tries else 'the profile is not kept and not used'}")
    return None


def measure_profile(device: str = "cpu", seconds: float = 12.0, log: Log = lambda line: None) -> dict[str, object]:
    """Time the kernels of a training step on `device`; a dict that JSON and TOML can hold.

    It takes about `seconds` (s), up to twice as long if it has to wait for other work on the machine.

    `kernels` is {name: {"fp32" | "bf16": [[size, …, seconds], …]}}; `relative_noise` the median over all
    kernels of half the interquartile range divided by the median, or what they waited for a processor (`Sweep.noise`);
    `memory_bytes` the device's total memory.
    Raises PlanError if the device is missing. `log` gets two lines.
    """
    target = pick_device(device)
    name = device_name(target)
    log(f"timing kernels on {name} for about {seconds:.0f} s; other work on it now makes the result worse")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # as in training: no TF32
    try:
        with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
            pool = TensorPool(target, pool_elements(target))
            sweep = Sweep(pool, kernels_on(target), seconds, clock_of(target))
            sweep.run()
    finally:
        torch.set_float32_matmul_precision(precision)
    noise = sweep.noise()
    log(f"{len(sweep.samples)} times taken, noise {'unknown' if sweep.rounds == 1 else f'{noise:.1%}'}")
    return {
        "schema": SCHEMA,
        "device": device,
        "device_name": name,
        **machine_facts(target),
        "date": datetime.now(UTC).date().isoformat(),
        "relative_noise": noise,
        "rounds": sweep.rounds,
        "kernels": sweep.tables(),
    }


class Sweep:
    """Rounds over all kernels and sizes; `samples` has the seconds of one call, one sample per round."""

    def __init__(self, pool: TensorPool, kernels: dict[str, Kernel], seconds: float, clock: DeviceClock) -> None:
        self.pool, self.kernels, self.clock = pool, kernels, clock
        self.longest = seconds * LONGEST_CALL_FRACTION
        # the first optimizer imports the compiler, and the first threads start: a second or two, outside the time box
        for name in ("adamw", "dispatch", "gemm_forward"):
            if name in kernels:
                kernels[name].prepare(pool, "fp32", kernels[name].sizes[0])()
        canary = kernels["add"]
        self.canary = canary.prepare(pool, "fp32", canary.sizes[2])  # large enough for several threads
        self.wait_budget = seconds
        begin = time.perf_counter()
        self.first_deadline, self.deadline = begin + FIRST_ROUND_FRACTION * seconds, begin + seconds
        self.samples: dict[TimingKey, list[float]] = {}
        self.waits: dict[TimingKey, list[float]] = {}  # for a processor, as a fraction of a sample's time

    def run(self) -> None:
        """One round to find the sizes that fit into the time limit, then more rounds until it is over."""
        # where bf16 is emulated, its kernels would take the time of those that runs will use; a GPU's runs use bf16
        order = TIMED_DTYPES if self.pool.device.type == "cpu" else TIMED_DTYPES[::-1]
        # the ends of every grid before the sizes between: a table that is cut short is coarse, and ends where it should
        for ends in (True, False):
            for dtype in order:
                for name, kernel in self.kernels.items():
                    if dtype in kernel.dtypes:
                        self._first(name, kernel, dtype, at_ends(kernel.sizes) if ends else None)
        keys = list(self.samples)
        while time.perf_counter() < self.deadline:
            for key in keys:
                if time.perf_counter() >= self.deadline:
                    return
                self.samples[key].append(self._time(key))

    def _first(self, name: str, kernel: Kernel, dtype: str, chosen: set[tuple[int, ...]] | None) -> None:
        """Time the sizes of a kernel that are expected to stay below the limit of one call.

        chosen: only these, whatever time it is. None: all that are left, until the first round should be over. A size
        far from those that were timed can seem too long, and is looked at again when others are known.
        """
        keys = [(name, dtype, sizes) for sizes in kernel.sizes]
        seen = {key[2]: self.samples[key][0] for key in keys if key in self.samples}
        for sizes in kernel.sizes:
            if sizes in seen or (chosen is not None and sizes not in chosen):
                continue
            expected = Table(dict(seen), powers_of(name, len(sizes))).scaled(sizes) if seen else 0.0
            late = chosen is None and time.perf_counter() > self.first_deadline
            if seen and (expected > self.longest or late):
                continue
            found = self._time((name, dtype, sizes))
            for attempt in range(1, RETRIES + 1):
                if not max(OUTLIER_RATIO * expected, OUTLIER_MIN_SECONDS) < found < OUTLIER_MAX_CALLS * self.longest:
                    break
                # a burst of other work would pass for the kernel's speed, and larger sizes would be left out;
                # who has slept is served first by the system's scheduler
                time.sleep(RETRY_SLEEP * attempt)
                found = min(found, self._time((name, dtype, sizes)))
            seen[sizes] = found
            self.samples[name, dtype, sizes] = [found]

    def _time(self, key: TimingKey) -> float:
        """Seconds of one call: one warm-up call, then enough calls to make the clock's error small."""
        name, dtype, sizes = key
        self._wait_for_quiet()
        self.pool.reset()
        kernel = self.kernels[name]
        call = kernel.prepare(self.pool, dtype, sizes)
        timed = self.clock.host_seconds if kernel.on_host else self.clock.seconds
        with torch.set_grad_enabled(name == "dispatch"):
            warm = timed(call, 1)
            calls = max(1, min(MOST_CALLS, int(BATCH_SECONDS / max(warm, MIN_SECONDS))))
            if self.pool.device.type != "cpu":  # a GPU's own clock, which does not run for the host's other work
                return timed(call, calls)
            before = waits_of_threads()
            found = timed(call, calls)
            waited = longest_wait(before, waits_of_threads())
            if waited is not None:
                self.waits.setdefault(key, []).append(min(1.0, waited / max(calls * found, MIN_SECONDS)))
            return found

    def _wait_for_quiet(self) -> None:
        """Wait while a small addition takes as long as another process's time slice; at most the time limit in total.

        Threads that meet at the end of each kernel wait for the one whose core is taken: every kernel would seem to
        take 10 ms and more.
        """
        begin = time.perf_counter()
        while self.wait_budget > 0 and self.clock.seconds(self.canary, CANARIES) > CANARY_SECONDS:
            time.sleep(CANARY_SLEEP)
            now = time.perf_counter()
            waited, begin = now - begin, now
            self.wait_budget -= waited
            self.first_deadline += waited
            self.deadline += waited

    @property
    def rounds(self) -> int:
        """How often the kernels were timed that were timed most."""
        return max(map(len, self.samples.values()), default=0)

    def tables(self) -> dict[str, dict[str, list[list[float]]]]:
        """The profile's tables: the median of every sample list, minus the overhead of timing."""
        found: dict[str, dict[str, list[list[float]]]] = {}
        kept = {key: median(times) / self.kernels[key[0]].divide_by for key, times in self.samples.items()}
        kept = _not_above_larger(kept)
        # every backward call started the autograd engine, which a training step does once; a GPU's own time has no part
        # in it
        engine = kept["engine", "fp32", (1,)] if self.pool.device.type == "cpu" else 0.0
        for (name, dtype, sizes), seconds in kept.items():
            if name in ("engine", "refill"):
                continue
            if name.endswith("_backward"):
                seconds = max(seconds - engine, seconds / 10)
            if name == "fresh":
                # what new memory costs beyond writing to memory held
                seconds = max(seconds - kept.get(("refill", dtype, sizes), seconds), MIN_SECONDS)
            found.setdefault(name, {}).setdefault(dtype, []).append([*sizes, seconds])
        return found

    def noise(self) -> float:
        """Half the interquartile range of a kernel's times divided by their median; the median over all kernels.

        At least the mean over all kernels of what they waited for a processor, in the median of their samples: steady
        other work stretches all times alike.
        """
        spreads = [
            (_quantile(times, 0.75) - _quantile(times, 0.25)) / 2 / median(times)
            for times in self.samples.values()
            if len(times) > 1
        ]
        waited = fmean(map(median, self.waits.values())) if self.waits else 0.0
        return max(median(spreads) if spreads else UNKNOWN_NOISE, waited)


def at_ends(sizes: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """The sizes of a grid that are smallest or largest in each of their numbers."""
    columns = list(zip(*sizes, strict=True))
    return {size for size in sizes if all(n in (min(c), max(c)) for n, c in zip(size, columns, strict=True))}


def _not_above_larger(times: dict[TimingKey, float]) -> dict[TimingKey, float]:
    """Limit each size to the time of the next larger one: a longer time was disturbed by other work."""
    return {
        key: min(
            seconds
            for other, seconds in times.items()
            if other[:2] == key[:2] and all(a >= b for a, b in zip(other[2], key[2], strict=True))
        )
        for key in times
    }


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1) + 0.5)]


def is_current(profile: dict[str, object]) -> bool:
    """Whether the profile was measured with this PyTorch version, processor or GPU, and number of threads."""
    try:
        name = device_name(pick_device(str(profile.get("device"))))
    except PlanError:
        return False
    here = {"schema": SCHEMA, "torch": torch.__version__, "device_name": name, "threads": torch.get_num_threads()}
    return all(profile.get(key) == value for key, value in here.items())
