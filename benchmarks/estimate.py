"""How long one `estimate()` takes in a process that has imported everything: `python -m benchmarks.estimate`.

With and without the allocator's replay, medians of many calls, for models of different depth. Prints JSON.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.header import write
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate

CALLS = 200
PLANS = {
    "gpt2": Flags(model="gpt2", tokens="10B", gpu="h100-80gb"),
    "gpt2-xl, accumulation": Flags(model="gpt2-xl", tokens="10B", gpu="h100-80gb", micro_batch="2"),
    "llama-3-8b, full checkpointing": Flags(
        model="llama-3-8b", tokens="1T", gpu="h200", activation_checkpointing="full", micro_batch="1", seq="8192"
    ),
    "deepseek-v3": Flags(model="deepseek-v3", tokens="1T", gpu="h200", micro_batch="1"),
}


def milliseconds(call: Callable[[], object], times: int) -> dict[str, float]:
    """Median and lowest of `times` calls."""
    call()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1e3)
    return {"median_ms": round(statistics.median(taken), 3), "lowest_ms": round(min(taken), 3)}


def main() -> None:
    """Time every plan."""
    rows = {}
    for name, flags in PLANS.items():
        config = draft(flags, as_of="2026-11-21", version="benchmark")
        plain = milliseconds(lambda config=config: estimate(config), CALLS)  # type: ignore[misc]
        replayed = milliseconds(lambda config=config: estimate(config, replay=True), CALLS // 10)  # type: ignore[misc]
        rows[name] = {"estimate": plain, "with_replay": replayed}
    write({"rows": rows}, None)


if __name__ == "__main__":
    main()
