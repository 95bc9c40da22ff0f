"""What must hold for every option: parts that sum, memory that grows with every size, checkpointing that saves."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from benchmarks.option_cases import VARIANTS, Row, cases, config_of
from planner.counts.run import resolve
from planner.memory.phases import Simulation, simulate_run
from tests.examples import examples

MODES = ("none", "selective", "full")
CASES = sorted(name for name, case in cases().items() if "checkpointing" not in case)
runs = st.tuples(st.sampled_from(CASES), st.sampled_from(VARIANTS))
sizes = st.fixed_dictionaries(
    {
        "layers": st.integers(2, 12),
        "micro_batch": st.integers(1, 6),
        "seq": st.sampled_from([1, 16, 48, 256]),
        "vocab": st.sampled_from([2, 300, 5000, 50_257]),
        "ffn": st.sampled_from([8, 512, 3000]),
        "accumulation": st.integers(1, 2),
        "context": st.just(1024),
    }
)


def simulation(run: tuple[str, tuple[str, str]], mode: str, size: dict[str, Any]) -> Simulation:
    case, (runtime, recipe) = run
    return simulate_run(resolve(config_of(Row(case, runtime, recipe, mode), **size)))


def peak(found: Simulation) -> int:
    return max(p.peak_bytes for p in found.phases)


def saved(found: Simulation) -> int:
    return sum(found.saved_by_operator.values())


@examples(60)
@given(runs, st.sampled_from(MODES), sizes)
def test_parts_sum_at_every_phase_and_bound_each_other(run: Any, mode: str, size: dict[str, Any]) -> None:
    found = simulation(run, mode, size)
    for phase in found.phases:
        assert sum(phase.at_peak.values()) == phase.peak_bytes
        assert all(0 <= part <= found.max_by_component[name] for name, part in phase.at_peak.items())
    assert all(part > 0 for part in found.saved_by_operator.values())
    forward = next(p for p in found.phases if p.phase == "forward_end")
    assert saved(found) <= forward.peak_bytes  # what is kept for backward was there when forward ended


@examples(40)
@given(runs, st.sampled_from(MODES), sizes)
def test_more_of_anything_never_needs_less(run: Any, mode: str, size: dict[str, Any]) -> None:
    found = simulation(run, mode, size)
    grown = {"layers": 13, "micro_batch": 7, "seq": 512, "vocab": 60_000, "ffn": 4096}
    for name, more in grown.items():
        larger = simulation(run, mode, size | {name: more})
        assert peak(larger) >= peak(found) and saved(larger) >= saved(found), name


@examples(60)
@given(runs, sizes)
def test_more_checkpointing_never_saves_more_bytes(run: Any, size: dict[str, Any]) -> None:
    """With the exception of latent attention over few tokens: what its core is given outweighs the scores it drops."""
    none, selective, full = (saved(simulation(run, mode, size)) for mode in MODES)
    assert selective >= full and none > full
    if size["seq"] >= 64 or not run[0].startswith("latent attention"):
        assert none >= selective


FEW_TOKENS = {"layers": 2, "micro_batch": 2, "seq": 1, "vocab": 300, "ffn": 8, "accumulation": 2, "context": 1024}


@examples(60)
@given(runs, sizes)
@example(("latent attention, wide values, scores kept", ("eager", "fp32")), FEW_TOKENS)  # found by `make fuzz`
def test_more_checkpointing_costs_one_block_at_most(run: Any, size: dict[str, Any]) -> None:
    """A step's peak can rise with checkpointing, by what one block rebuilds.

    Recomputation makes a block's activations when others' weight gradients are there already, which matters where
    those are the larger: few tokens, little vocabulary. Then the peak lies in backward, and one block's saved bytes
    bound the difference, because a block is rebuilt at a time. The exception is latent attention over few tokens, which
    saves more bytes when its core is recomputed: there the peak can also rise by these, before any block is rebuilt.
    """
    found = [simulation(run, mode, size) for mode in MODES]
    two = simulation(run, "none", size | {"layers": size["layers"] + 12})
    block = (saved(two) - saved(found[0])) / 12
    for i, less in enumerate(found):
        for more in found[i + 1 :]:
            excess = peak(more) - peak(less)
            assert excess <= block
            highest = max(more.phases, key=lambda p: p.peak_bytes).phase
            more_saved = max(0, saved(more) - saved(less))
            assert excess <= more_saved or highest in ("backward_block", "backward_end")
            assert more_saved == 0 or run[0].startswith("latent attention")


@examples(60)
@given(runs, sizes)
def test_full_checkpointing_of_two_blocks_or_more_never_needs_more_than_none(run: Any, size: dict[str, Any]) -> None:
    """With norms before the sub-layers: of two blocks the other's activations outweigh what one rebuilds.

    With norms after them it can need one residual stream more: the last norm's input is the block's output. With
    documents cut apart a block that is rebuilt holds a mask of scores of its own: of one token, two bytes more.
    """
    case = cases()[run[0]]
    assume(case.get("model", {}).get("norm_placement") != "post")
    assume(case.get("training", {}).get("document_masking", False) is False)
    assert peak(simulation(run, "full", size)) <= peak(simulation(run, "none", size))


def test_norms_after_are_the_exception() -> None:
    size = {"layers": 2, "micro_batch": 2, "vocab": 300, "seq": 48, "ffn": 3000, "context": 1024}
    run = ("norms after", ("eager", "mixed-bf16"))
    stream = 4 * 2 * 48 * 128  # fp32 [tokens, hidden]
    assert peak(simulation(run, "full", size)) - peak(simulation(run, "none", size)) == stream
