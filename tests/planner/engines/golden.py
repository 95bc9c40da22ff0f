"""The exports that tests/data/engines keeps: read by the tests and by `make check-engines`.

`python -m tests.planner.engines.golden` writes them anew, after a change that is meant.
"""

from __future__ import annotations

from pathlib import Path

from planner.engines.export import RECORD, engine_export
from tests.planner.engines.configs import base_of

KEPT = Path(__file__).parents[2] / "data/engines"
LAUNCHER = {"hf-trainer": "slurm", "accelerate": "kubernetes", "deepspeed": "skypilot"}  # else torchrun


def golden_files(engine: str) -> dict[str, str]:
    """The files of an engine's base but the record, which repeats the tables."""
    files = engine_export(base_of(engine), engine, LAUNCHER.get(engine, "torchrun")).files
    return {name: text for name, text in files.items() if name != RECORD}


def main() -> None:
    """Write all of them."""
    from planner.engines.export import ENGINES

    for engine in ENGINES:
        for name, text in golden_files(engine).items():
            (KEPT / engine).mkdir(parents=True, exist_ok=True)
            (KEPT / engine / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
