"""Peaks and times over arrays: the same numbers as one plan after the other, to the byte and to 1e-9."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.analysis.search.bounds import BoundTable
from planner.analysis.search.envelope import undominated
from planner.analysis.search.peaks import PeakTable
from planner.analysis.search.space import Choice, Choices, Placement, choices, divisors, placements
from planner.analysis.search.tables import LocalRuns
from planner.analysis.search.times import TimeTable
from planner.counts.run import gpu_of, resolve
from planner.inputs.search import SearchSpace
from planner.memory.coverage import not_covered
from planner.plan import estimate
from tests.planner.analysis.search.runs import drafted_run

DENSE = {"layers": "12", "hidden": "512", "heads": "8", "vocab": "8192", "seq": "1024"}
CASES: dict[str, dict[str, Any]] = {
    "dense, eager": DENSE,
    "stored scores": DENSE | {"attention": "math"},
    "autocast with dropout": DENSE | {"runtime": "autocast", "dropout": "0.1"},
    "fused kernels": DENSE | {"runtime": "fused", "recipe": "master-bf16"},
    "an update in lists": DENSE | {"optimizer_implementation": "foreach"},
    "an update in stacks": DENSE | {"optimizer": "muon"},
    "experts": DENSE | {"experts": "8", "top_k": "2"},
    "windows": DENSE | {"sliding_window": "256"},
    "compiled or eager": DENSE | {"runtime": "compiled"},
    "biases": DENSE | {"family": "gpt2", "runtime": "eager"},
}


@pytest.mark.parametrize("name", CASES)
def test_peaks_and_times_of_a_placement_are_those_of_its_plans(name: str) -> None:
    config = drafted_run(gpu="h100-80gb", gpus="16", global_batch_tokens="96Ki", tokens="1B", **CASES[name])
    space, base = SearchSpace(("h100-80gb",), (16,)), resolve(config)
    sizes, pick = divisors(base.sequences_per_step), random.Random(name)
    local, every = LocalRuns(), choices(config, space)
    peaks, times = PeakTable(sizes, local), TimeTable(sizes, local)
    table = BoundTable(peaks, local)
    compared = 0
    for placement in pick.sample([one for one in placements(config, space) if isinstance(one, Placement)], 8):
        run = replace(base, config=placement.config, gpu=gpu_of(placement.config))
        known = Choices(choice for choice in every if not_covered(run.computed_with(training=choice.keys)) is None)
        if not known:
            continue
        micro = np.array(placement.micro_batches)
        seconds = times.step_seconds(run, known, micro, placement.sequences)
        bounds = table.bounds(run, known, micro, placement.sequences)
        row, column = pick.randrange(len(micro)), pick.randrange(len(known))
        plan = estimate(placement.with_steps(int(micro[row]), known[column]))
        what = placement.config.parallel, int(micro[row]), known[column]
        exact = peaks.peaks(run, known[column], micro, placement.sequences)
        assert int(exact[row]) == plan.memory.peak_requested_bytes, what
        assert (bounds[:, column] <= exact).all(), what
        assert not isinstance(seconds, str)
        assert seconds[row, column] == pytest.approx(plan.throughput.step_seconds.value, rel=1e-9), what
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("interleave", ["1", "2"])
def test_the_bytes_of_some_recomputed_blocks_of_many_are_exact(interleave: str) -> None:
    """One block of three: what a step of three blocks adds is no multiple of three."""
    typed = {"pp": "2", "interleave": interleave, "pp_schedule": "interleaved" if interleave == "2" else "1f1b"}
    shape = {"layers": "64", "hidden": "136", "heads": "2", "head_dim": "68", "ffn": "200", "vocab": "1001"}
    config = drafted_run(
        **shape, seq="50", gpu="h100-80gb", gpus="2", micro_batch="1", accumulation="12", tokens="1M", **typed
    )
    base = resolve(config)
    peaks, micro = PeakTable(divisors(base.sequences_per_step), LocalRuns()), np.array([1, 2, 3, 6])
    for choice in (
        Choice("plain", "full", 3, "eager"),
        Choice("plain", "full", 5, "eager"),
        Choice("plain", "none", 1, "eager"),
    ):
        exact = peaks.peaks(base, choice, micro, 12)
        for row, size in enumerate(micro.tolist()):
            batch = {"micro_batch": size, "accumulation": 12 // size}
            plan = estimate(base.computed_with(training=batch | choice.keys).config)
            assert int(exact[row]) == plan.memory.peak_requested_bytes, (choice, size)
    assert any(found is not None and found.origin.step == 3 for found in peaks.envelopes.values())


def test_pipelines_of_other_chunks_do_not_share_their_buffers() -> None:
    """One table for all, as in a search."""
    config = drafted_run(**DENSE, gpu="h100-80gb", gpus="2", pp="2", micro_batch="1", accumulation="8", tokens="1M")
    base, micro, choice = resolve(config), np.array([1, 2]), Choice("plain", "none", 1, "eager")
    peaks = PeakTable(divisors(base.sequences_per_step), LocalRuns())
    for chunks, order in ((1, "1f1b"), (2, "interleaved"), (3, "interleaved"), (1, "zero-bubble")):
        run = base.computed_with(parallel={"interleave": chunks, "pp_schedule": order})
        exact = peaks.peaks(run, choice, micro, 8)
        for row, size in enumerate(micro.tolist()):
            plan = estimate(run.computed_with(training={"micro_batch": size, "accumulation": 8 // size}).config)
            assert int(exact[row]) == plan.memory.peak_requested_bytes, (chunks, order, size)


CARDS = "h100-80gb", "t4", "b100"  # of 132 multiprocessors, of 40 with half the threads, of an unknown number


@pytest.mark.parametrize("pp", ["1", "2"])
@pytest.mark.parametrize(
    "texts", [{"family": "gpt2", "seq": "4096", "runtime": "eager"}, {"qk_norm": "head", "runtime": "autocast"}]
)
def test_scratch_of_each_cards_kernels_is_exact_at_every_micro_batch(texts: dict[str, str], pp: str) -> None:
    """The loss is small, so that the peak of a recomputed block with a sum over its rows is that of the step."""
    shape = DENSE | {"hidden": "1024", "heads": "16", "layers": "4", "vocab": "512"} | texts
    typed = {"gpu": "h100-80gb", "gpus": pp, "pp": pp, "micro_batch": "1", "accumulation": "60", "tokens": "1B"}
    base = resolve(drafted_run(**shape, **typed))
    micro = np.array(divisors(60))
    choice = Choice("fused", "full", 1, base.config.training.runtime)
    table, scratch = PeakTable(micro.tolist(), LocalRuns()), set()
    for card in CARDS:
        run = base.computed_with(hardware={"gpu": card})
        run = replace(run, gpu=gpu_of(run.config))
        exact = table.peaks(run, choice, micro, 60)
        for row, size in enumerate(micro.tolist()):
            config = run.computed_with(training={"micro_batch": size, "accumulation": 60 // size} | choice.keys).config
            memory = estimate(config).memory
            assert int(exact[row]) == memory.peak_requested_bytes, (card, size)
            scratch.add((size, memory.peak_requested_bytes))
    assert len(scratch) > len(micro)  # cards differ
    assert len([one for one in table.envelopes.values() if one is not None]) == 2  # and share envelopes


def test_rows_that_another_is_above_are_dropped_and_no_others() -> None:
    rows = np.array([[5, 1, 0, 0, 0], [4, 1, 0, 0, 0], [1, 3, 0, 0, 0], [5, 1, 0, 0, 0], [4, 2, 0, 0, 1]])
    kept = {tuple(row) for row in undominated(rows).tolist()}
    assert kept == {(5, 1, 0, 0, 0), (1, 3, 0, 0, 0), (4, 2, 0, 0, 1)}
