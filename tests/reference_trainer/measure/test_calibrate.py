"""Measuring a profile: complete, usable, and kept. No test depends on how long anything took."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.errors import FileError, InputError
from planner.inputs.profile_cache import load_profile, profile_path, save_profile
from planner.step_time.kernel_tables import Tables
from planner.step_time.profile_rates import step_seconds_from_profile
from planner.step_time.step_seconds import StepSeconds
from reference_trainer.measure import calibrate
from reference_trainer.measure.calibrate import Sweep, is_current, measure_profile, quiet_profile
from reference_trainer.measure.machine import driver_facts_in, processor_clocks
from reference_trainer.measure.waiting import longest_wait, waits_of_threads
from tests.machine_profile import quiet

MakeConfig = Callable[..., RunConfig]

LLAMA = {
    "position": "rotary",
    "norm": "rmsnorm",
    "mlp": "swiglu",
    "biases": "none",
    "tied_embeddings": False,
    "kv_heads": 1,
}


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    """A profile from a time box so small that each kernel is timed at few sizes; it says that it was quiet."""
    return quiet()


def test_every_kernel_has_sizes_and_times(profile: dict[str, Any]) -> None:
    for name, kinds in profile["kernels"].items():
        for kind, rows in kinds.items():
            assert kind in ("fp32", "bf16")
            assert rows, f"{name} in {kind} has no times"
            assert len({len(row) for row in rows}) == 1
            assert all(math.isfinite(number) and number > 0 for row in rows for number in row)


@pytest.mark.parametrize("shape", [{}, LLAMA], ids=["gpt", "llama"])
@pytest.mark.parametrize("recipe", ["fp32", "mixed-bf16"])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_the_smallest_time_box_gives_every_kernel_that_a_prediction_needs(
    profile: dict[str, Any], tiny: MakeConfig, shape: dict[str, Any], recipe: str, checkpointing: str
) -> None:
    config = tiny(**shape, recipe=recipe, activation_checkpointing=checkpointing)
    found = step_seconds_from_profile(resolve(config), profile)
    assert isinstance(found, StepSeconds)
    assert 0 < found.seconds.low < found.seconds.value < found.seconds.high


def test_a_profile_says_what_it_was_measured_on(profile: dict[str, Any]) -> None:
    assert profile["schema"] == 2
    assert profile["device"] == "cpu"
    assert profile["device_name"] and profile["torch"] and profile["date"]
    assert profile["threads"] >= 1
    assert profile["memory_bytes"] > 2**20


def test_a_profile_holds_only_what_json_and_toml_hold(profile: dict[str, Any]) -> None:
    assert json.loads(json.dumps(profile, allow_nan=False)) == profile
    assert "null" not in json.dumps(profile)  # TOML has none
    Tables(json.loads(json.dumps(profile)))


def test_a_saved_profile_is_read_back_the_same(profile: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "profile.json"
    save_profile(profile, path)
    assert load_profile(path) == profile
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"schema": 1}', "\x00", '{"schema": 0, "kernels": {}}'])
def test_a_damaged_profile_is_none(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(damage, encoding="utf-8")
    assert load_profile(path) is None


def test_a_profile_cut_short_is_none(profile: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    save_profile(profile, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert load_profile(path) is None


def test_no_profile_is_none(tmp_path: Path) -> None:
    assert load_profile(tmp_path / "profile.json") is None
    assert load_profile(tmp_path) is None


def test_a_profile_that_cannot_be_written_is_the_users_to_mend(profile: dict[str, Any], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(FileError) as caught:
        save_profile(profile, blocked / "profile.json")
    assert caught.value.remedy


@pytest.mark.parametrize(("key", "other"), [("torch", "0.1"), ("device_name", "another processor"), ("threads", 4096)])
def test_another_machine_or_version_makes_a_profile_stale(profile: dict[str, Any], key: str, other: object) -> None:
    assert is_current(profile)
    assert not is_current(profile | {key: other})
    assert not is_current({name: value for name, value in profile.items() if name != key})


def test_profiles_of_different_devices_are_different_files() -> None:
    assert profile_path("cpu") != profile_path("cuda")
    assert profile_path("cpu").name == "profile-cpu.json"
    assert "gptplan" in str(profile_path("cpu").parent)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError):
        measure_profile("toaster")


# --- busy machines ----------------------------------------------------------------------------------------------------


def tried(monkeypatch: pytest.MonkeyPatch, *noises: float) -> tuple[dict[str, object] | None, list[str], int]:
    """What `quiet_profile` makes of measurements with these noises: the profile, its log, and how many were taken."""
    left, said = list(noises), list[str]()
    monkeypatch.setattr(calibrate, "measure_profile", lambda *_: {"relative_noise": left.pop(0)})
    return quiet_profile("cpu", 1.0, 3, said.append), said, len(noises) - len(left)


def test_a_noisy_profile_is_measured_again_until_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, said, taken = tried(monkeypatch, 0.4, 0.16, 0.15, 0.01)
    assert profile == {"relative_noise": 0.15} and taken == 3
    assert [line.rpartition(": ")[2] for line in said] == ["measuring again"] * 2


def test_a_machine_that_stays_busy_gives_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, said, taken = tried(monkeypatch, 0.4, 0.4, 0.151, 0.01)
    assert profile is None and taken == 3  # no fourth try
    assert "noise 15%" in said[-1] and said[-1].endswith("not kept and not used")


def test_a_time_too_short_to_know_the_noise_is_doubled_and_not_called_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    given, said = list[float](), list[str]()

    def measured(device: str, seconds: float, log: object) -> dict[str, object]:
        given.append(seconds)
        return {"relative_noise": 0.5, "rounds": 1} if len(given) < 3 else {"relative_noise": 0.05, "rounds": 2}

    monkeypatch.setattr(calibrate, "measure_profile", measured)
    assert quiet_profile("cpu", 2.0, 3, said.append) == {"relative_noise": 0.05, "rounds": 2}
    assert given == [2.0, 4.0, 8.0] and "busy" not in "".join(said) and "measuring for 8 s" in said[1]


def test_steady_other_work_is_noise_although_no_time_scatters() -> None:
    """Three kernels, one of which waited in one sample of three: only what half of its samples waited counts."""
    sweep = object.__new__(Sweep)
    keys = [("add", "fp32", (size,)) for size in (1, 2, 3)]
    sweep.samples = {key: [1e-3] * 3 for key in keys}
    sweep.waits = dict(zip(keys, ([0.9, 0.9, 0.0], [0.6, 0.6, 0.6], [0.0, 0.0, 0.9]), strict=True))
    assert sweep.noise() == pytest.approx(0.5)
    sweep.waits = {}  # a system that does not count waits
    assert sweep.noise() == 0.0


def test_a_time_comes_with_what_its_threads_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, waits = object.__new__(Sweep), iter(({"1": 0, "2": 5_000_000}, {"1": 0, "2": 11_000_000, "3": 1_000_000}))
    monkeypatch.setattr(calibrate, "waits_of_threads", lambda: next(waits))
    pool = SimpleNamespace(device=torch.device("cpu"), reset=lambda: None)
    kernel = SimpleNamespace(on_host=False, prepare=lambda *_: lambda: None)
    sweep.pool, sweep.kernels, sweep.wait_budget, sweep.waits = pool, {"add": kernel}, 0.0, {}  # type: ignore[assignment]
    sweep.clock = SimpleNamespace(seconds=lambda call, calls: 0.01, host_seconds=None)  # type: ignore[assignment]
    assert sweep._time(("add", "fp32", (1,))) == 0.01 and sweep.waits == {("add", "fp32", (1,)): [pytest.approx(0.6)]}


def test_what_threads_waited_is_read_where_the_system_counts_it(tmp_path: Path) -> None:
    for name, text in (("7", "12 3000 1\n"), ("8", "5 4500 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    assert waits_of_threads(tmp_path) == {"7": 3000, "8": 4500}
    assert longest_wait({"7": 1000}, {"7": 3000, "8": 4500}) == 4.5e-6
    (tmp_path / "9").mkdir()  # a thread that ends while it is read
    assert waits_of_threads(tmp_path) is None and waits_of_threads(tmp_path / "none") is None
    assert longest_wait(None, {"7": 1}) is None


# --- what a profile says of its machine -------------------------------------------------------------------------------


def test_a_profile_has_versions_and_clocks(profile: dict[str, Any]) -> None:
    assert {"python", "system", "torch", "cores", "threads", "memory_bytes"} <= set(profile)
    assert ("clock_mhz" in profile) == bool(processor_clocks())


def test_clocks_are_those_that_the_system_says(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : x\ncpu MHz\t\t: 2249.998\ncpu MHz : 3100.5\n")
    assert processor_clocks(cpuinfo) == [2249.998, 3100.5]
    assert processor_clocks(tmp_path / "none") == []


def test_what_a_driver_does_not_know_is_absent() -> None:
    facts = driver_facts_in("580.159.04, 1980, 1980, 3201, 700.00\n")
    assert facts == {
        "driver": "580.159.04",
        "clock_mhz": 1980.0,
        "max_clock_mhz": 1980.0,
        "memory_clock_mhz": 3201.0,
        "power_limit_watts": 700.0,
    }
    assert driver_facts_in("580.1, [N/A], 1980, [N/A], 700") == {
        "driver": "580.1",
        "max_clock_mhz": 1980.0,
        "power_limit_watts": 700.0,
    }
    assert driver_facts_in("No devices were found") == {}


def test_a_size_that_would_take_too_long_does_not_end_the_sizes_of_its_kernel() -> None:
    """Sizes are on a grid, not in order of their work: behind one that is too large come smaller ones."""
    sweep, timed = object.__new__(Sweep), list[tuple[int, ...]]()

    def time_of(key: tuple[str, str, tuple[int, ...]]) -> float:
        timed.append(key[2])
        return 1e-6 * key[2][0]

    sweep.longest, sweep.first_deadline, sweep.samples = 1e-4, math.inf, {}
    sweep._time = time_of  # type: ignore[method-assign]
    sweep._first("add", SimpleNamespace(sizes=((1,), (1000,), (3,))), "fp32", None)  # type: ignore[arg-type]
    assert timed == [(1,), (3,)] and [key[2] for key in sweep.samples] == timed


@pytest.mark.parametrize(("device", "order"), [("cpu", ["fp32", "bf16"]), ("cuda", ["bf16", "fp32"])])
def test_a_table_that_time_cuts_short_has_its_ends_and_those_of_runs_come_first(device: str, order: list[str]) -> None:
    """One H100: of attention in bf16 the smallest size alone was timed, and a step scaled from it a thousandfold."""
    sweep, timed = object.__new__(Sweep), list[tuple[str, str, tuple[int, ...]]]()

    def time_of(key: tuple[str, str, tuple[int, ...]]) -> float:
        timed.append(key)
        return 1e-6

    grid = tuple((n, m) for n in (1, 5, 9) for m in (2, 4))
    kernels = {name: SimpleNamespace(sizes=grid, dtypes=("fp32", "bf16")) for name in ("gelu", "attention")}
    sweep.kernels, sweep.pool = kernels, SimpleNamespace(device=torch.device(device))  # type: ignore[assignment]
    sweep.longest, sweep.samples = 1.0, {}
    sweep.first_deadline = sweep.deadline = -math.inf  # no time at all
    sweep._time = time_of  # type: ignore[method-assign]
    sweep.run()
    ends = [(1, 2), (1, 4), (9, 2), (9, 4)]
    assert timed == [(name, dtype, size) for dtype in order for name in kernels for size in ends]
    timed.clear()
    sweep.samples, sweep.first_deadline = {}, math.inf
    sweep.run()
    assert len(timed) == len(set(timed)) == 2 * 2 * len(grid)
    assert [key[2] for key in timed[-2:]] == [(5, 2), (5, 4)]
