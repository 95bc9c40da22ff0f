"""How fast layouts are examined, and that what is examined equals `estimate`: `python -m benchmarks.search`.

Random layouts of several models are compared with one plan each: the peak to the byte, the step's time to 1e-9, and
the bound of the peak, which is below it. Whole searches are timed in CPU seconds of one process, and so is a second
look at the same space, for which nothing is simulated.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
SIX_CARDS = "h100-80gb,a100-80gb,h200,b200,h800,a800-80gb"
SEARCHED: dict[str, dict[str, Any]] = {
    "llama-3-8b on one node": {"model": "llama-3-8b", "seq": 8192, "global_batch_tokens": "1Mi", "gpus": "8"},
    "gpt-3-175b on 1,024 GPUs": GPT3 | {"gpus": "1024"},
    "gpt-3-175b on 1,024 GPUs of six cards": GPT3 | {"gpus": "1024", "gpu": SIX_CARDS},
}


def config_for(keywords: dict[str, Any]) -> tuple[RunConfig, Any]:
    """The config and the space of a search on H100s."""
    from gptplan.drafting import config_over
    from gptplan.keywords import flags_of
    from planner.inputs.search import SearchLimits, one_of_each, searched_config, space_of

    flags = flags_of({"tokens": "300B", "gpu": "h100-80gb", **keywords, "gpus": str(keywords["gpus"])})
    whole = searched_config(config_over(one_of_each(flags), None, AS_OF), flags, None)
    return whole, space_of(flags, whole, SearchLimits())


@dataclass(frozen=True, slots=True)
class Compared:
    """A layout: whether its peak equals the plan's, in a table and alone, and its bound is below; how far the times are
    apart; what it is."""

    equal: bool
    bounded: bool
    apart: float
    what: str


def random_layouts(keywords: dict[str, Any], number: int, seed: int) -> Iterator[Compared]:
    """Random layouts of a space, each compared with its plan."""
    import numpy as np

    from planner.analysis.search.batches import SearchTables
    from planner.analysis.search.space import Choices, Placement, placements
    from planner.counts.run import gpu_of
    from planner.plan import estimate

    config, space = config_for(keywords)
    pick, tables = random.Random(seed), SearchTables(config, space)
    found = [one for one in placements(config, space) if isinstance(one, Placement)]
    done = 0
    while done < number:
        placement, choice = pick.choice(found), pick.choice(tables.choices)
        run = replace(tables.base, config=placement.config, gpu=gpu_of(placement.config))
        if not tables.is_known(run.computed_with(training=choice.keys)):
            continue
        micro = np.array(placement.micro_batches)
        row, sequences = pick.randrange(len(micro)), placement.sequences
        plan = estimate(placement.with_steps(int(micro[row]), choice))
        peak = int(tables.peaks.peaks(run, choice, micro, sequences)[row])
        alone = tables.peaks.peak(run, choice, int(micro[row]), sequences)
        bound = float(tables.bounds.bounds(run, Choices((choice,)), micro, sequences)[row, 0])
        seconds = tables.times.step_seconds(run, Choices((choice,)), micro, sequences)
        assert not isinstance(seconds, str) and plan.throughput.step_seconds.value
        yield Compared(
            equal=peak == alone == plan.memory.peak_requested_bytes,
            bounded=bound <= peak,
            apart=abs(float(seconds[row, 0]) / plan.throughput.step_seconds.value - 1),
            what=f"{placement.config.parallel} {micro[row]} {choice}",
        )
        done += 1


def whole_search(keywords: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds of a search, its counts, and layouts per second of a second look, when nothing is simulated."""
    from planner.analysis.search.search import LayoutSearch
    from planner.analysis.search.survey import Question

    config, space = config_for(keywords)
    begin = time.process_time()
    searching = LayoutSearch(config, space, "time")
    result = searching.result()
    cpu = time.process_time() - begin
    begin = time.process_time()
    again = searching.survey(Question("time", space.limits))
    known = time.process_time() - begin
    best = result.best[0]
    return {
        "cpu_seconds": cpu,
        "layouts": result.considered,
        "placements": result.placements,
        "kinds_of_gpus_simulated": result.simulated,
        "layouts_per_cpu_second": result.considered / cpu,
        "layouts_per_cpu_second_of_a_second_look": again.layouts / known,
        "known_to_fit": best.fits,
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
    wrong = [one for one in compared if not (one.equal and one.bounded)]
    for one in wrong[:5]:
        print("bound above the peak:" if one.equal else "peak differs:", one.what)
    found = {
        "header": header(),
        "compared": len(compared),
        "equal_peaks": sum(one.equal for one in compared),
        "bounds_below_peaks": sum(one.bounded for one in compared),
        "largest_relative_difference_of_time": max(one.apart for one in compared),
        "searches": {name: whole_search(keywords) for name, keywords in SEARCHED.items()},
    }
    text = json.dumps(found, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
