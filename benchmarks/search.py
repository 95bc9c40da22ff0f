"""How fast layouts are examined, and that what is examined equals `estimate`: `python -m benchmarks.search`.

Random layouts of several models are compared with one plan each: the peak to the byte, the step's time to 1e-9. Whole
searches are timed in CPU seconds of one process, and so is a placement's arithmetic alone, whose envelopes are known.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.header import header
from planner.config.run import RunConfig

AS_OF = "2026-11-21"
COMPARED: tuple[dict[str, Any], ...] = (
    {"model": "llama-3-8b", "seq": 8192, "global_batch_tokens": "1Mi", "gpus": 32},
    {"model": "gpt2", "seq": 1024, "global_batch_tokens": "512Ki", "gpus": 16, "recipe": "master-bf16"},
    {"model": "mixtral-8x7b", "seq": 4096, "global_batch_tokens": "1Mi", "gpus": 32},
    {"params": "1B", "seq": 2048, "global_batch_tokens": "1Mi", "gpus": 16, "attention": "math"},
    {
        "params": "1B",
        "seq": 2048,
        "global_batch_tokens": "1Mi",
        "gpus": 16,
        "runtime": "fused",
        "recipe": "master-bf16",
    },
    {"params": "1B", "seq": 2048, "global_batch_tokens": "1Mi", "gpus": 16, "optimizer": "muon"},
    {"params": "1B", "seq": 2048, "global_batch_tokens": "1Mi", "gpus": 16, "runtime": "autocast", "dropout": "0.1"},
)
GPT3 = {"model": "gpt-3-175b", "seq": 2048, "global_batch_tokens": 2048 * 1536, "pad_vocab": 1024}
SEARCHED: dict[str, dict[str, Any]] = {
    "llama-3-8b on one node": {"model": "llama-3-8b", "seq": 8192, "global_batch_tokens": "1Mi", "gpus": "8"},
    "gpt-3-175b on 1,024 GPUs": GPT3 | {"gpus": "1024"},
}


def config_for(keywords: dict[str, Any]) -> tuple[RunConfig, Any]:
    """The config and the space of a search on H100s."""
    from gptplan.drafting import config_over
    from gptplan.keywords import flags_of
    from planner.inputs.search import SearchLimits, one_of_each, searched_config, space_of

    flags = flags_of({"tokens": "300B", "gpu": "h100-80gb", **keywords, "gpus": str(keywords["gpus"])})
    whole = searched_config(config_over(one_of_each(flags), None, AS_OF), flags, None)
    return whole, space_of(flags, whole, SearchLimits())


def random_layouts(keywords: dict[str, Any], number: int, seed: int) -> Iterator[tuple[bool, float, str]]:
    """Of random layouts: whether the peak is equal, the relative difference of the times, and what was compared."""
    import numpy as np

    from planner.analysis.search.peaks import PeakTable
    from planner.analysis.search.space import choices, divisors, placements
    from planner.analysis.search.times import TimeTable
    from planner.counts.run import gpu_of, resolve
    from planner.memory.coverage import not_covered
    from planner.plan import estimate

    config, space = config_for(keywords)
    base, pick = resolve(config), random.Random(seed)
    sizes = divisors(base.sequences_per_step)
    peaks, times = PeakTable(sizes), TimeTable(sizes)
    every, found = choices(config, space), list(placements(config, space))
    done = 0
    while done < number:
        placement, choice = pick.choice(found), pick.choice(every)
        run = replace(base, config=placement.config, gpu=gpu_of(placement.config))
        if not_covered(run.computed_with(training=choice.keys)) is not None:
            continue
        micro = np.array(placement.micro_batches)
        row = pick.randrange(len(micro))
        plan = estimate(placement.with_steps(int(micro[row]), choice))
        peak = peaks.peaks(run, choice, micro, placement.sequences)[row]
        seconds = times.step_seconds(run, (choice,), micro, placement.sequences)
        assert not isinstance(seconds, str) and plan.throughput.step_seconds.value
        apart = abs(float(seconds[row, 0]) / plan.throughput.step_seconds.value - 1)
        yield int(peak) == plan.memory.peak_requested_bytes, apart, f"{placement.config.parallel} {micro[row]} {choice}"
        done += 1


def whole_search(keywords: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds of a search, its counts, and layouts per second where the envelopes are known already."""
    from planner.analysis.search.search import LayoutSearch

    config, space = config_for(keywords)
    begin = time.process_time()
    searching = LayoutSearch(config, space, "time", 10)
    result = searching.result()
    cpu = time.process_time() - begin
    begin, again = time.process_time(), 0
    for area in searching.every_area():
        again += area.used.size
    arrays = time.process_time() - begin
    best = result.best[0]
    return {
        "cpu_seconds": cpu,
        "layouts": result.considered,
        "placements": result.placements,
        "envelopes": result.simulated,
        "layouts_per_cpu_second_with_known_envelopes": again / arrays,
        "winner": f"{best.config.parallel} micro-batch {best.config.training.micro_batch}",
        "step_seconds": best.step_seconds,
    }


def main() -> None:
    """Compare, time, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layouts", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    compared = []
    for number, keywords in enumerate(COMPARED):
        share = asked.layouts // len(COMPARED) + (number < asked.layouts % len(COMPARED))
        compared += list(random_layouts(keywords, share, number))
    unequal = [what for equal, _, what in compared if not equal]
    for what in unequal[:5]:
        print("peak differs:", what)
    found = {
        "header": header(),
        "compared": len(compared),
        "equal_peaks": len(compared) - len(unequal),
        "largest_relative_difference_of_time": max(apart for _, apart, _ in compared),
        "searches": {name: whole_search(keywords) for name, keywords in SEARCHED.items()},
    }
    text = json.dumps(found, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
