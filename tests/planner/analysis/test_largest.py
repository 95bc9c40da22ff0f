"""The largest that fits does, and one step more does not; a plan that fits needs no change."""

from __future__ import annotations

import pytest

from planner.analysis.fitting import needed_bytes
from planner.analysis.largest import LargestThatFits, fit_of, with_heads
from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import resolve
from planner.errors import InputError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import memory_breakdown

LLAMA = {"family": "llama", "heads": "16", "vocab": "32768", "micro_batch": "1", "accumulation": "4"}
RUNS: dict[str, dict[str, str]] = {
    "one GPU": LLAMA | {"layers": "12", "hidden": "2048", "gpu": "a100-40gb"},
    "FSDP2": LLAMA | {"layers": "24", "hidden": "2048", "gpu": "h100-80gb", "gpus": "8", "fsdp": "fsdp"},
}
FLAG = {"micro-batch": "micro_batch", "sequence": "seq", "layers": "layers", "hidden": "hidden"}


def drafted_fit(**texts: str) -> RunConfig:
    return draft(Flags(**{"tokens": "1B", "seq": "1024"} | texts), as_of="2026-11-21", version="0")


def fits(config: RunConfig) -> bool:
    run = resolve(config)
    memory = memory_breakdown(run, replay=False)
    assert memory.usable_bytes is not None
    return needed_bytes(memory) <= memory.usable_bytes


def grown(config: RunConfig, quantity: str, value: int) -> RunConfig:
    """The config with another value of one quantity, written once more."""
    if quantity in ("micro-batch", "sequence"):
        changed = config.training.model_copy(update={FLAG[quantity]: value})
        return config.model_copy(update={"training": changed})
    model = config.model
    if quantity == "layers":
        return config.model_copy(update={"model": model.model_copy(update={"layers": value})})
    return config.model_copy(update={"model": with_heads(model, value // (model.hidden // model.heads))})


STEPS = {"micro-batch": 1, "sequence": 64, "layers": 1}


@pytest.mark.parametrize("name", RUNS)
def test_the_largest_fits_and_one_step_more_does_not(name: str) -> None:
    config = drafted_fit(**RUNS[name])
    found = fit_of(resolve(config))
    assert [one.quantity for one in found.largest] == ["micro-batch", "sequence", "layers", "hidden"]
    for one in found.largest:
        assert one.largest is not None and one.by == "memory", one
        at, step = grown(config, one.quantity, one.largest), STEPS.get(one.quantity, config.model.head_dim)
        assert fits(at), one
        assert not fits(grown(config, one.quantity, one.largest + step)), one
        assert one.parameters == parameters_of(at.model).total
        assert str(one.largest) in one.flags
    assert found.fits_as_it_is == fits(config)


def test_a_plan_that_fits_needs_no_change_and_one_that_does_not_gets_the_findings_remedy() -> None:
    small = fit_of(resolve(drafted_fit(params="125M", gpu="h100-80gb", micro_batch="1", accumulation="8")))
    assert small.fits_as_it_is and small.change is not None and small.change.flags == ()
    large = fit_of(resolve(drafted_fit(params="1B", gpu="a100-40gb", micro_batch="32", accumulation="1")))
    assert not large.fits_as_it_is and large.change is not None
    assert any(flag.startswith("--micro-batch") for flag in large.change.flags)
    assert large.needed_bytes > large.usable_bytes
    none = fit_of(resolve(drafted_fit(params="70B", gpu="a100-40gb", micro_batch="1", accumulation="1")))
    assert none.change is None and {one.largest for one in none.largest[:2]} == {None}
    assert none.largest[2].largest is not None and none.largest[2].largest < none.largest[2].now


@pytest.mark.parametrize("fits_by_simulation", [True, False])
def test_the_largest_does_not_contradict_the_plan(fits_by_simulation: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the limit the simulated allocator and the rule for reserved bytes may differ: the plan has the former's."""
    run = resolve(drafted_fit(**RUNS["one GPU"]))
    by_rule = {one.quantity: one.largest or 0 for one in fit_of(run).largest}
    config = grown(run.config, "micro-batch", by_rule["micro-batch"] + (1 if fits_by_simulation else 0))
    monkeypatch.setattr("planner.analysis.largest.close_peak", lambda capacity: lambda run: capacity - 1)
    if not fits_by_simulation:
        monkeypatch.setattr("planner.analysis.largest.close_peak", lambda capacity: lambda run: capacity + 1)
    found = fit_of(resolve(config))
    assert found.fits_as_it_is is fits_by_simulation
    for one in found.largest:
        assert (one.largest or 0) >= one.now if fits_by_simulation else (one.largest or 0) < one.now, one


def test_learned_positions_limit_the_sequence_and_are_named() -> None:
    config = drafted_fit(model="gpt2", gpu="h100-80gb", micro_batch="1", accumulation="1")
    found: LargestThatFits = fit_of(resolve(config)).largest[1]
    assert (found.largest, found.by) == (1024, "the learned positions")


def test_a_card_without_known_memory_is_refused() -> None:
    with pytest.raises(InputError, match="is not known"):
        fit_of(resolve(drafted_fit(params="125M", gpu="cpu", micro_batch="1", accumulation="1")))
