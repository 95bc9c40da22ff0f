"""A long test of resuming: a run is killed at random moments, some checkpoints are damaged, and it continues.

    python -m benchmarks.soak [--kills N] [--seed S] [--json FILE]

A clean run of the same config is trained first. The other is killed (SIGKILL) after a random number of steps, and a
few random milliseconds, again and again; after every third kill one bit of its newest checkpoint is turned over, or a
file of it is cut. At the end it must have every step in its metrics once, the losses of the clean run to the last
digit, and weights with the same hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_profile import gpt, run_of
from benchmarks.header import write
from planner.config.run import RunConfig
from planner.inputs.run_toml import config_text
from reference_trainer.device.device import device_name

STEPS = 400
CHILD = """
import sys
from pathlib import Path
from planner.inputs.run_toml import load_config
from reference_trainer.step.options import RunOptions
from reference_trainer.train import run
config, out = load_config(Path(sys.argv[1])), Path(sys.argv[2])
options = RunOptions(device="cpu", resume=sys.argv[3] == "resume")
sys.exit(run(config, out, options, lambda line: print(line, flush=True)).exit_code)
"""


def soaked() -> RunConfig:
    """A run of some seconds with dropout, accumulation and a checkpoint every few steps."""
    config = run_of(gpt(2, 48, 2, vocab=257), seq=64, micro_batch=2, accumulation=2)
    training = config.training.model_copy(update={"steps": STEPS, "checkpoint_every": 7, "dropout": 0.1})
    return config.model_copy(update={"training": training})


def start(toml: Path, out: Path, way: str) -> subprocess.Popen[str]:
    """The run in a process of its own, with one thread: the same bits each time."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", CHILD, str(toml), str(out), way]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(child: subprocess.Popen[str], out: Path, steps: int, pause: float) -> None:
    """Until the run has said that it begins and has written so many more steps, and then `pause` seconds."""
    metrics, events = out / "metrics.jsonl", out / "events.jsonl"
    before = events.stat().st_size if events.exists() else 0
    while child.poll() is None and not (events.exists() and events.stat().st_size > before):
        time.sleep(0.01)
    begun = lines_in(metrics)
    while child.poll() is None and lines_in(metrics) < begun + steps:
        time.sleep(0.002)
    time.sleep(pause)


def lines_in(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def harm(out: Path, rng: random.Random) -> str:
    """Turn over a bit of a file of the newest checkpoint, or cut it; which."""
    standing = sorted((out / "checkpoints").glob("step-*"))
    if len(standing) < 2:
        return ""
    file = rng.choice(sorted(standing[-1].iterdir()))
    content = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        return f"bit of {file.name}"
    file.write_bytes(content[: rng.randrange(len(content))])
    return f"cut {file.name}"


def losses(out: Path) -> list[tuple[int, float]]:
    """Step and loss of every line of the metrics."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def weights(out: Path) -> str:
    """sha256 of the last checkpoint's weights and moments."""
    last = out / "checkpoints" / f"step-{STEPS:08d}"
    return hashlib.sha256(
        b"".join((last / n).read_bytes() for n in ("model.safetensors", "optimizer.safetensors"))
    ).hexdigest()


def soak(kills: int, seed: int) -> dict[str, Any]:
    """The number of kills and when they came. Raises AssertionError if the run differs from the clean run."""
    rng, log = random.Random(seed), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toml, clean, out = folder / "run.toml", folder / "clean", folder / "run"
        toml.write_text(config_text(soaked()), encoding="utf-8")
        child = start(toml, clean, "new")
        said, _ = child.communicate()
        assert child.returncode == 0, said
        while len(log) < kills:
            child = start(toml, out, "resume" if (out / "events.jsonl").exists() else "new")
            steps, pause = rng.randrange(2 * STEPS // kills), rng.uniform(0.0, 0.03)
            wait_for(child, out, steps, pause)
            child.kill()
            said, _ = child.communicate()
            if child.returncode == 0:
                break  # it came to its end before
            assert child.returncode == -9, said
            harmed = harm(out, rng) if len(log) % 3 == 2 else ""
            log.append({"after_steps": steps, "and_seconds": round(pause, 4), "harmed": harmed})
        child = start(toml, out, "resume")
        said, _ = child.communicate()
        assert child.returncode == 0, said
        assert losses(out) == losses(clean), "the losses differ"
        assert weights(out) == weights(clean), "the weights differ"
    return {"kills": len(log), "log": log, "steps": STEPS, "equal": True}


def main() -> None:
    """Run it, and print or write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = soak(asked.kills, asked.seed)
    result = {
        "device": device_name(torch.device("cpu")),
        "seed": asked.seed,
        **found,
    }
    write(result, asked.json)
    sys.stderr.write(f"{found['kills']} kills; the run equals the uninterrupted one\n")


if __name__ == "__main__":
    main()
