"""`gptplan run` as a user calls it: emit, train, compare, stop, continue, check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gptplan.calling import Said, called
from tests.machine_profile import keep_profile
from tests.processes import child

PLAN = [
    *("--layers", "2", "--hidden", "32", "--heads", "2", "--vocab", "256", "--seq", "32", "--micro-batch", "2"),
    *("--accumulation", "2", "--steps", "8", "--gpu", "cpu", "--precision", "fp32", "--checkpoint-every", "3"),
]
METRICS = {
    *("step", "tokens", "loss", "lr", "grad_norm", "step_seconds", "tokens_per_second", "mfu"),
    *("allocated_bytes", "reserved_bytes"),
}


def in_a_process(*arguments: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """`gptplan` as a shell starts it; PyTorch is loaded anew, which takes seconds."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gptplan", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def gptplan(*arguments: str, cwd: Path, cache: Path, code: int = 0) -> Said:
    """The same program, in this process."""
    said = called(arguments, cwd, cache)
    assert said.code == code, said
    assert "Traceback" not in said.err
    return said


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a hasty profile of this machine: times do not matter here, their presence does."""
    directory = tmp_path_factory.mktemp("cache")
    keep_profile(directory)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A directory with run.toml and a finished run in `out`."""
    here = tmp_path_factory.mktemp("run")
    in_a_process("plan", *PLAN, "-o", "run.toml", cwd=here, cache=cache)
    done = in_a_process("run", "run.toml", "--out", "out", cwd=here, cache=cache)
    assert "Predicted and measured" in done.stdout
    return here


def rows(directory: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((directory / "comparison.json").read_text())
    return {row["key"]: row for row in found["rows"]}


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_run_directory_holds_what_is_promised(finished: Path) -> None:
    out = finished / "out"
    for name in ("config.toml", "plan.json", "metrics.jsonl", "events.jsonl", "comparison.json", "report.md"):
        assert (out / name).stat().st_size, name
    assert (out / "checkpoints" / "step-00000008" / "manifest.json").exists()
    lines = metrics(out)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert set(lines[0]) >= METRICS
    assert lines[-1]["tokens"] == 8 * 2 * 2 * 32


def test_every_exact_line_is_exact(finished: Path) -> None:
    found = rows(finished / "out")
    for row in found.values():
        if not row["timing"] and row["verdict"] != "unknown":
            assert row["verdict"] == "within", row
    for key in ("parameters", "model_flops_per_step", "saved_activation_bytes", "peak_requested_bytes", "peak_phase"):
        assert found[key]["predicted"] == found[key]["measured"], key
    assert found["learning_rate_difference"]["measured"] == 0
    assert found["step_seconds"]["measured"] > 0 and found["step_seconds"]["predicted"] > 0


def test_a_run_carries_its_profile_beside_its_config(finished: Path, cache: Path) -> None:
    (file,) = (finished / "out").glob("config.profile-*.json")
    assert f'profile = "{file.name}"' in (finished / "out" / "config.toml").read_text()
    kept = json.loads((cache / "gptplan" / "profile-cpu.json").read_text())
    assert json.loads(file.read_text()) == kept
    said = gptplan("run", "--resume", "out", "--profile", str(file), cwd=finished, cache=cache, code=2)
    assert "--profile belongs to a new run" in said.err


def test_the_plan_is_a_pure_function_of_the_file(finished: Path, cache: Path) -> None:
    done = gptplan("estimate", "--config", "out/config.toml", "--json", cwd=finished, cache=cache)
    assert json.loads(done.out) == json.loads((finished / "out" / "plan.json").read_text())
    assert json.loads(done.out)["throughput"]["basis"] == "profile"


def test_compare_prints_it_again_and_strict_passes(finished: Path, cache: Path) -> None:
    done = gptplan("compare", "out", "--strict", cwd=finished, cache=cache)
    assert "peak_requested_bytes" in done.out
    printed = gptplan("compare", "out", "--json", cwd=finished, cache=cache)
    assert json.loads(printed.out) == json.loads((finished / "out" / "comparison.json").read_text())


def test_strict_fails_on_a_line_outside(finished: Path, cache: Path, tmp_path: Path) -> None:
    found = json.loads((finished / "out" / "comparison.json").read_text())
    found["rows"][0]["verdict"] = "outside"
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    done = gptplan("compare", str(tmp_path), "--strict", cwd=tmp_path, cache=cache, code=1)
    assert "parameters" in done.err
    gptplan("compare", str(tmp_path), cwd=tmp_path, cache=cache)


def test_a_finished_run_continues_to_nothing(finished: Path, cache: Path) -> None:
    before = {p.name: p.read_bytes() for p in (finished / "out").glob("*.json*")}
    done = gptplan("run", "--resume", "out", cwd=finished, cache=cache)
    assert "nothing is left to do" in done.err
    assert {p.name: p.read_bytes() for p in (finished / "out").glob("*.json*")} == before


def test_a_damaged_comparison_is_one_message(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{")
    assert "damaged" in gptplan("compare", str(tmp_path), cwd=tmp_path, cache=cache, code=2).err


def test_nothing_is_overwritten(finished: Path, cache: Path) -> None:
    before = (finished / "out" / "metrics.jsonl").read_bytes()
    done = gptplan("run", "run.toml", "--out", "out", cwd=finished, cache=cache, code=2)
    assert "--resume" in done.err
    gptplan("plan", *PLAN, "-o", "run.toml", cwd=finished, cache=cache, code=2)
    assert (finished / "out" / "metrics.jsonl").read_bytes() == before


def test_stopped_early_and_continued_twice_ends_as_the_whole_run(finished: Path, cache: Path) -> None:
    gptplan("run", "run.toml", "--out", "parts", "--steps", "3", cwd=finished, cache=cache)
    gptplan("run", "--resume", "parts", "--steps", "5", cwd=finished, cache=cache)
    gptplan("run", "--resume", "parts", cwd=finished, cache=cache)
    whole, parts = metrics(finished / "out"), metrics(finished / "parts")
    for key in ("step", "loss", "lr", "grad_norm"):
        assert [m[key] for m in parts] == [m[key] for m in whole], key
    name = Path("checkpoints") / "step-00000008" / "model.safetensors"
    assert (finished / "parts" / name).read_bytes() == (finished / "out" / name).read_bytes()


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_a_checkpoint(stop: signal.Signals, code: int, finished: Path, cache: Path) -> None:
    name = f"stopped-{code}"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    gptplan("plan", "--config", "run.toml", "--steps", "100000", "-o", f"{name}.toml", cwd=finished, cache=cache)
    command = [sys.executable, "-m", "gptplan", "run", f"{name}.toml", "--out", name]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with child(command, cwd=finished, env=environment, **quiet) as process:
        log = finished / name / "metrics.jsonl"
        while not (log.exists() and log.read_text().count("\n") > 5):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(stop)
        _, said = process.communicate()
    assert process.returncode == code and "Traceback" not in said
    newest = max((finished / name / "checkpoints").iterdir())
    assert int(newest.name.removeprefix("step-")) == metrics(finished / name)[-1]["step"]
    assert (newest / "manifest.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--recipe", "fp8-te"), "does not run the recipe fp8-te"),
        (("--recipe", "tf32"), "does not run the recipe tf32"),
        (("--recipe", "pure-bf16", "--optimizer", "sgd"), "fused SGD"),
    ],
)
def test_what_cannot_be_trained_here_is_refused_by_name(
    flags: tuple[str, str], said: str, cache: Path, tmp_path: Path
) -> None:
    """It can be planned; a run of it ends with exit code 2 before anything is written."""
    plain = [f for f in PLAN if f not in ("--precision", "fp32")]
    gptplan("plan", *plain, *flags, "-o", "run.toml", cwd=tmp_path, cache=cache)
    assert said in gptplan("run", "run.toml", "--out", "out", "--device", "cpu", cwd=tmp_path, cache=cache, code=2).err
    assert not (tmp_path / "out").exists()


def test_a_run_with_another_optimizer_and_recipe_is_as_large_as_predicted(cache: Path, tmp_path: Path) -> None:
    plain = [f for f in PLAN if f not in ("--precision", "fp32")]
    chosen = ("--optimizer", "muon", "--optimizer-implementation", "foreach", "--recipe", "master-bf16")
    gptplan("plan", *plain, *chosen, "-o", "run.toml", cwd=tmp_path, cache=cache)
    gptplan("run", "run.toml", "--out", "out", "--device", "cpu", cwd=tmp_path, cache=cache)
    found = rows(tmp_path / "out")
    for key in ("peak_requested_bytes", "checkpoint_bytes"):
        assert found[key]["verdict"] == "within", found[key]
    assert found["checkpoint_bytes"]["ratio"] == pytest.approx(1, abs=0.01)


def test_the_users_own_text(finished: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    gptplan("run", str(finished / "run.toml"), "--out", "own", "--data", "text.txt", cwd=tmp_path, cache=cache)
    report = (tmp_path / "own" / "report.md").read_text()
    assert "sha256" in report and "text.txt" in report


def test_a_continued_run_remembers_its_text(finished: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    begin = ("run", str(finished / "run.toml"), "--out", "own", "--data", "text.txt", "--steps", "4")
    gptplan(*begin, cwd=tmp_path, cache=cache)
    gptplan("run", "--resume", "own", cwd=tmp_path, cache=cache)
    assert [m["step"] for m in metrics(tmp_path / "own")] == list(range(1, 9))
    (tmp_path / "text.txt").write_text("Another text altogether, of about the same length.\n" * 200)
    assert "other data" in gptplan("run", "--resume", "own", cwd=tmp_path, cache=cache, code=2).err
