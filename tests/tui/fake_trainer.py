"""A fake trainer: writes the same files at any speed and reacts to the same signals. Used as `gptplan run …`."""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = 100000


def main(arguments):
    if "--resume" in arguments:
        out, name = Path(arguments[arguments.index("--resume") + 1]), "resume"
    else:
        out, name = Path(arguments[arguments.index("--out") + 1]), "start"
        if "fails" in out.name:
            print("error: the data is too short\n  why: it has 3 tokens\n  fix: give more", file=sys.stderr)
            sys.exit(2)
        out.mkdir(parents=True)
        (out / "config.toml").write_bytes(Path(arguments[1]).read_bytes())
    signals = []
    signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
    signal.signal(signal.SIGUSR1, lambda *_: event("checkpoint", bytes=1000))
    signal.signal(signal.SIGHUP, lambda *_: None)
    lock = (out / "run.lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    step = 0

    def event(name, **facts):
        with (out / "events.jsonl").open("a") as file:
            file.write(json.dumps({"time": "2026-01-31T10:11:12", "event": name, "step": step} | facts) + "\n")

    event(name, tokens_per_step=256)
    with (out / "metrics.jsonl").open("a") as file:
        while step < STEPS and (not signals or "stubborn" in out.name):
            step += 1
            row = {"step": step, "tokens": 256 * step, "loss": 4 / step, "lr": 1e-3, "grad_norm": 1.0}
            line = json.dumps(row | {"step_seconds": 0.02, "tokens_per_second": 12800.0, "eta_seconds": 9.0}) + "\n"
            for part in (line[:20], line[20:]):  # torn for as long as a step takes
                file.write(part)
                file.flush()
                time.sleep(0.01)
    event("stopped", exit_code=130)
    lock.truncate(0)
    sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
