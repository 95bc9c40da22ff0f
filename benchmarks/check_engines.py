"""`make check-engines`: the exported files of tests/data/engines, read by the engines' own packages.

Each engine has an environment of its own in .engines/, into which pip installs it; PyTorch is shared from .venv.
Compared are the parameters of the model that the engine builds, and the learning rate of every update.

nanoGPT and Megatron-LM are no packages: they are checked where NANOGPT and MEGATRON_LM name a checkout.

    python -m benchmarks.check_engines --json benchmarks/results/check_engines.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.header import write
from planner.config.run import RunConfig
from planner.counts.run import rate_at, resolve, steps_of
from planner.engines.export import ENGINES
from tests.planner.engines.configs import base_of
from tests.planner.engines.golden import KEPT

ROOT = Path(__file__).parents[1]
WHERE = ROOT / ".engines"
PACKAGES = {
    "torchtitan": ("torchtitan==0.3.0", "triton"),
    "litgpt": ("litgpt==0.5.13",),
    "hf-trainer": ("transformers==5.24.0", "accelerate==1.15.0"),
    "accelerate": ("accelerate==1.15.0", "transformers==5.24.0"),
    "deepspeed": ("deepspeed==0.19.8", "transformers==5.24.0", "accelerate==1.15.0"),
}
CHECKOUTS = {"nanogpt": "NANOGPT", "megatron-lm": "MEGATRON_LM"}  # engine: the variable with its folder
IN_ENVIRONMENT_OF = {"nanogpt": "hf-trainer", "megatron-lm": "torchtitan"}  # numpy and torch; triton
SCRIPTS = {
    "torchtitan": "torchtitan_check.py",
    "litgpt": "litgpt_check.py",
    "nanogpt": "nanogpt_check.py",
    "megatron-lm": "megatron_check.py",
}  # else transformers_check.py
RATE = 1e-9  # of the peak: rates are computed in another order there
LITGPT_APART = 0.05  # of the peak, at most: its rate is that of the last micro-batch


@dataclass(frozen=True, slots=True)
class Check:
    """What an engine made of its files. `largest_rate_difference` is a fraction of the peak rate.

    files: their SHA-256, one after the other.
    """

    engine: str
    files: str
    packages: tuple[str, ...]
    parameters_here: int
    parameters_there: int | None
    updates: int
    largest_rate_difference: float | None
    read: dict[str, Any]
    problem: str

    @property
    def good(self) -> bool:
        """Whether the engine read its files and counts as we do."""
        return not self.problem


def digest(engine: str) -> str:
    """The SHA-256 of an engine's kept files, names included."""
    found = hashlib.sha256()
    for path in sorted((KEPT / engine).iterdir()):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def environment(engine: str) -> Path:
    """The Python of the engine's environment, made and filled if it is not there. Raises CalledProcessError."""
    folder = WHERE / engine
    python = folder / "bin/python"
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        (own,) = folder.glob("lib/python3*/site-packages")
        (own / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[engine]], check=True)
        (folder / ".ready").touch()
    return python


def checked(engine: str) -> Check:
    """The engine's reading of its files, compared with the plan."""
    config = base_of(engine)
    files = digest(engine)
    packages = PACKAGES.get(engine, (ENGINES[engine].stamp,))
    expected = resolve(config).parameters.total
    script = Path(__file__).parent / "engine_checks" / SCRIPTS.get(engine, "transformers_check.py")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(KEPT / engine, folder, dirs_exist_ok=True)
        try:
            python = environment(IN_ENVIRONMENT_OF.get(engine, engine))
        except subprocess.CalledProcessError as error:
            return Check(engine, files, packages, expected, None, 0, None, {}, f"not installed: {error}")
        done = subprocess.run([str(python), str(script)], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return Check(engine, files, packages, expected, None, 0, None, {}, done.stderr.strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    rates, there = found.pop("rates"), found.pop("parameters")
    apart = rate_difference(config, rates, found.pop("rates_are_late"), found.pop("late_after", 0))
    problems = [] if there in (None, expected) else [f"{there} parameters, {expected} planned"]
    most = LITGPT_APART if engine == "litgpt" else RATE
    problems += [] if apart <= most else [f"rates differ by {apart:.2g} of the peak"]
    problems += [] if len(rates) == steps_of(config) else [f"{len(rates)} updates, {steps_of(config)} planned"]
    return Check(engine, files, packages, expected, there, len(rates), apart, found, "; ".join(problems))


def rate_difference(config: RunConfig, rates: list[float], late: int, late_after: int) -> float:
    """The largest difference of rates over the peak, where those of the engine are `late` updates after ours.

    late_after: the update up to which they are not late.
    """
    peak = config.schedule.peak_lr
    ours = [rate_at(config, step if step <= late_after else step - late) for step in range(1, len(rates) + 1)]
    return max(abs(one - other) / peak for one, other in zip(ours, rates, strict=True))


def main() -> None:
    """Check all, print a line each, write the JSON; exit 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the result is kept")
    here = [engine for engine, variable in CHECKOUTS.items() if variable in os.environ]
    parser.add_argument("engines", nargs="*", default=[*PACKAGES, *here], help="engines to check; all by default")
    chosen = parser.parse_args()
    checks = [checked(engine) for engine in chosen.engines]
    for check in checks:
        told = "reads its files, counts and rates agree" if check.good else check.problem
        print(f"{check.engine:12} {check.parameters_here:>15,} parameters  {told}")
    if chosen.json is not None:
        write({"checks": [asdict(check) for check in checks]}, chosen.json)
    sys.exit(not all(check.good for check in checks))


if __name__ == "__main__":
    main()
