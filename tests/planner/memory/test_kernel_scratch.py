"""Scratch memory of CUDA kernels: what an H100 measured, what bounds it, and where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import presets
from planner.counts.run import Resolved, resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.coverage import not_covered
from planner.memory.kernel_scratch import (
    ColumnSum,
    Multiprocessors,
    TableGradient,
    block_of,
    multiprocessors_of,
    scratch_sizes,
)
from planner.memory.phases import simulate_run

H100 = Multiprocessors(132, 2048)
MIDDLE = {"layers": "12", "hidden": "768", "heads": "12"}
SMALL = {"layers": "4", "hidden": "512", "heads": "8", "vocab": "50304", "micro_batch": "8", "accumulation": "2"}
# bytes that the allocator's own counters showed at the peaks of two phases; source: one H100 (SXM, 80 GB), torch 2.11
# for CUDA 13, 2026-11-28; the bytes that were alive before the run, and stayed, are left out
MEASURED: dict[str, tuple[dict[str, str], int, int]] = {
    "GPT-2 124M, sums of 768 columns": (
        MIDDLE | {"vocab": "50304", "micro_batch": "16", "accumulation": "1"},
        7_548_336_432,
        2_252_905_880,
    ),
    "GPT-2 124M under autocast": (
        MIDDLE | {"vocab": "50257", "micro_batch": "8", "accumulation": "2", "runtime": "autocast"},
        5_182_768_432,
        2_353_195_008,
    ),
    "sums of 2,048 columns": (SMALL, 1_481_961_816, 864_055_936),
    "blocks recomputed from host memory": (
        SMALL | {"activation_checkpointing": "offloaded"},
        998_437_160,
        864_055_936,
    ),
    "document masking": (SMALL | {"document_masking": "yes"}, 1_500_901_720, 866_218_624),
    "fused loss and dropout": (SMALL | {"loss_kind": "fused", "dropout": "0.1"}, 1_515_516_248, 864_055_936),
    "Lion under autocast": (SMALL | {"optimizer": "lion", "runtime": "autocast"}, 1_326_399_624, 708_493_744),
    "Muon": (SMALL | {"optimizer": "muon"}, 1_431_630_104, 813_724_224),
}


def gpt2_run(**texts: str) -> Resolved:
    flags = Flags(**{"family": "gpt2", "runtime": "eager", "seq": "1024", "gpu": "h100-80gb", "steps": "6"} | texts)
    return resolve(draft(flags, as_of="2026-11-28", version="test"))


def peaks(run: Resolved, on_gpu: bool = True) -> dict[str, int]:
    return {phase.phase: phase.peak_bytes for phase in simulate_run(run, on_gpu=on_gpu).phases}


@pytest.mark.parametrize("name", MEASURED)
def test_peaks_of_backward_are_those_that_an_h100_measured(name: str) -> None:
    texts, block, end = MEASURED[name]
    found = peaks(gpt2_run(**texts))
    assert (found["backward_block"], found["backward_end"]) == (block, end)


def test_scratch_tensors_are_those_in_the_history_of_an_h100s_allocator() -> None:
    assert scratch_sizes(ColumnSum(16_384, 768, 2), H100) == (100_663_296, 24)
    assert scratch_sizes(ColumnSum(8_192, 2_048, 2), H100) == (134_217_728, 64)
    assert sum(scratch_sizes(TableGradient(16_384, 768, 50_304), H100)) == 56_163_136
    assert scratch_sizes(TableGradient(8_192, 512, 50_304), H100)[-1] == 18_454_528


CARDS = st.builds(Multiprocessors, st.integers(1, 200), st.sampled_from([1024, 1536, 2048]))
COLUMNS = st.integers(1, 20_000)


@given(CARDS, COLUMNS, st.integers(1, 2**16), st.integers(1, 2**10))
def test_scratch_of_a_sum_grows_with_its_rows(card: Multiprocessors, columns: int, rows: int, more: int) -> None:
    """While no tensor is summed in halves. One row of 2^16 + 2^10 of 20,000 columns of a byte is below that."""
    one, two = (sum(scratch_sizes(ColumnSum(n, columns, 1), card)) for n in (rows, rows + more))
    assert one <= two


@given(CARDS, COLUMNS, st.integers(1, 2**18), st.sampled_from([2, 4]))
def test_scratch_of_a_sum_is_bounded_by_the_blocks_that_a_card_holds(
    card: Multiprocessors, columns: int, rows: int, itemsize: int
) -> None:
    """A block covers 128 columns at most. All blocks together are fewer than twice those that the card holds at a time,
    unless each of their threads would add more than 256 values."""
    sizes = scratch_sizes(ColumnSum(rows, columns, itemsize), card)
    if not sizes:
        return
    at_once = next(n for n in (4, 2, 1) if columns % n == 0)
    width, height = block_of(columns // at_once, rows, 512 // at_once)
    assert width * at_once <= 128 and width * height <= 512 // at_once
    covered, held = width * at_once, card.number * (card.threads // (width * height))
    parts = max(2 * held, -(-columns // covered) * (rows // (256 * height) + 1))
    assert 0 < sizes[0] <= 4 * covered * covered * parts
    assert sizes[0] % (4 * columns * covered) == 0 and sizes[1] == 4 * -(-columns // covered)


def test_a_matrix_beyond_the_largest_offset_is_summed_in_halves() -> None:
    rows = 2**31 // (2048 * 2)
    fits, halved = (scratch_sizes(ColumnSum(n, 2048, 2), H100) for n in (rows - 1, rows + 1))
    assert halved == scratch_sizes(ColumnSum(rows // 2 + 1, 2048, 2), H100)
    assert fits[0] > halved[0] > 0


def test_few_rows_many_columns_and_few_indices_take_none() -> None:
    assert scratch_sizes(ColumnSum(1_000, 768, 2), H100) == ()  # fewer than 256 values for a thread
    assert scratch_sizes(ColumnSum(16_384, 768_000, 2), H100) == ()  # the columns alone fill the card
    assert scratch_sizes(TableGradient(3_072, 768, 50_304), H100) == ()
    few = TableGradient(16_384, 768, 1_000)
    assert scratch_sizes(few, H100)[-1] == 4 * 768 * (1_638 + 1_000)


def test_a_smaller_card_cuts_a_sum_into_fewer_parts() -> None:
    """A T4 holds 320 blocks of 128 threads: 54 for each of the 6 that cover 768 columns."""
    t4 = multiprocessors_of(presets.gpu("t4"))
    assert t4 == Multiprocessors(40, 1024)
    assert scratch_sizes(ColumnSum(16_384, 768, 2), t4) == (4 * 768 * 54 * 128, 24)


def test_no_scratch_on_a_processor_on_an_unknown_card_or_in_another_program() -> None:
    run = gpt2_run(**SMALL)
    assert peaks(run)["backward_end"] - peaks(replace(run, gpu=None))["backward_end"] == 18_854_312
    assert peaks(replace(run, gpu=presets.gpu("b100"))) == peaks(replace(run, gpu=None))
    assert peaks(run, on_gpu=False) == peaks(replace(run, gpu=None), on_gpu=False)
    for runtime, recipe in (("compiled", "mixed-bf16"), ("fused", "master-bf16")):
        other = gpt2_run(**SMALL | {"runtime": runtime, "recipe": recipe})
        assert not_covered(other) is None
        assert peaks(other) == peaks(replace(other, gpu=None)), runtime


@pytest.mark.parametrize("texts", [{}, {"family": "llama", "qk_norm": "head", "runtime": "autocast"}])
def test_an_allocator_is_asked_for_the_scratch_too(texts: dict[str, str]) -> None:
    run, events = gpt2_run(**SMALL | {"layers": "2", "micro_batch": "16"} | texts), []
    simulate_run(run, on_gpu=True, events=events)
    live: dict[int, int] = {}
    total = highest = 0
    for key, size in events:
        total += size - live.pop(key, 0)
        if size:
            live[key] = size
        highest = max(highest, total)
    assert highest == max(peaks(run).values())
    shape, tokens = run.shape, 16 * 1024
    columns = 4 * shape.hidden if not texts else run.config.model.head_dim
    rows = tokens if not texts else tokens * shape.heads
    wanted = scratch_sizes(ColumnSum(rows, columns, 2 if not texts else 4), multiprocessors_of(run.gpu))
    assert wanted and set(wanted) <= {size for _, size in events}


def test_a_card_has_both_numbers_of_its_multiprocessors_or_neither() -> None:
    for name in presets.gpu_ids():
        gpu = presets.gpu(name)
        assert (gpu.multiprocessors is None) == (gpu.threads_per_multiprocessor is None), name
        assert gpu.threads_per_multiprocessor in (None, 1024, 1536, 2048), name
