"""The wheel, installed alone into an empty environment, estimates from an empty directory."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)  # packages come over the network
def test_wheel_estimates_in_an_empty_directory(tmp_path: Path) -> None:
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "presets/gpus/a100-80gb.toml" in names and "tui/app.tcss" in names
    assert {f"{p}/py.typed" for p in ("gptplan", "planner", "reference_trainer", "tui")} <= set(names)
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "docs/"))]

    environment = tmp_path / "env"
    venv.create(environment)
    # the base install only: neither torch nor anything of [dev]
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-compile", str(wheel)], tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    program = str(environment / "bin" / "gptplan")
    text = run([program, "estimate", "--params", "125M", "--tokens", "10B", "--gpu", "a100-80gb"], empty)
    assert "7.5e18" in text and "fits" in text
    found = json.loads(run([program, "estimate", "--model", "gpt2", "--tokens", "10B", "--json"], empty))
    assert found["model"]["parameters"]["total"] == 124_439_808
    code = "import gptplan; print(gptplan.estimate(model='gpt2', tokens='10B').parameters.total)"
    assert run([str(environment / "bin" / "python"), "-c", code], empty) == "124439808\n"
    assert not list(empty.iterdir())

    said = subprocess.run([program, "calibrate"], cwd=empty, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 2 and "gptplan[train]" in said.stderr and "Traceback" not in said.stderr
