"""What must hold for every shape: monotone memory, parts that sum, checkpointing that saves."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import Memory, memory_breakdown
from planner.presets import gpu
from tests.examples import examples

A100 = gpu("a100-80gb")
shapes = st.fixed_dictionaries(
    {
        "family": st.sampled_from(["gpt2", "llama"]),
        "layers": st.integers(1, 40).map(str),
        "heads": st.sampled_from(["1", "2", "4", "8"]),
        "hidden": st.integers(1, 40).map(lambda n: str(64 * n)),
        "vocab": st.integers(2, 60_000).map(str),
        "seq": st.sampled_from(["16", "128", "1024"]),
        "micro_batch": st.integers(1, 8).map(str),
        "accumulation": st.integers(1, 3).map(str),
        "precision": st.sampled_from(["bf16", "fp32"]),
    }
)


def config_of(shape: dict[str, str], **changed: str) -> RunConfig:
    return draft(Flags(**{**shape, "steps": "5", **changed}), as_of="2026-11-21", version="test")


def simulated(shape: dict[str, str], **changed: str) -> Memory:
    """Without the simulated allocator, which changes nothing that these properties are about."""
    config = config_of(shape, **{"runtime": "eager"} | changed)
    return memory_breakdown(replace(resolve(config), gpu=A100), replay=False)


def peak(shape: dict[str, str], **changed: str) -> int:
    return simulated(shape, **changed).peak_requested_bytes


@examples(20)
@given(shapes)
def test_components_sum_at_every_phase_and_bound_each_other(shape: dict[str, str]) -> None:
    memory = memory_breakdown(replace(resolve(config_of(shape)), gpu=A100))
    for phase in memory.phases:
        assert sum(phase.at_peak.values()) == phase.peak_bytes <= memory.peak_requested_bytes
        assert all(size >= 0 for size in phase.at_peak.values())
    own = (memory.activations_bytes, memory.logits_bytes, memory.temporary_bytes)
    for name, largest in zip(("activations", "logits", "temporary"), own, strict=True):
        assert max(p.at_peak[name] for p in memory.phases) <= largest
    low = memory.peak_allocated_bytes.low
    assert low is not None and memory.peak_requested_bytes <= low
    assert memory.saved_bytes == sum(memory.saved_by_operator.values())


@examples(20)
@given(shapes)
def test_more_of_anything_never_needs_less(shape: dict[str, str]) -> None:
    base = peak(shape)
    for name in ("layers", "micro_batch", "accumulation", "vocab"):
        assert peak(shape, **{name: str(int(shape[name]) + 1)}) >= base, name
    assert peak(shape, seq=str(2 * int(shape["seq"]))) >= base


@examples(20)
@given(shapes)
def test_more_checkpointing_never_saves_more_bytes(shape: dict[str, str]) -> None:
    kept = [simulated(shape, activation_checkpointing=mode).saved_bytes for mode in ("none", "selective", "full")]
    assert kept[0] > kept[1] > kept[2]


@examples(12)
@given(shapes, st.integers(3, 60))
def test_peaks_are_linear_in_the_layers_between_the_ends(shape: dict[str, str], layers: int) -> None:
    """The first and last blocks are simulated, the others added at once: one more block costs the same everywhere."""
    phases = [simulated(shape, layers=str(n)).phases for n in (layers, layers + 1, layers + 2)]
    for first, second, third in zip(*phases, strict=True):
        if first.phase in ("init", "forward_end", "backward_start", "optimizer_step"):
            assert third.peak_bytes - second.peak_bytes == second.peak_bytes - first.peak_bytes, first.phase
