"""The smallest change that fits: what it may touch, that it fits, and that nothing cheaper does."""

from __future__ import annotations

import itertools
from functools import cache

import pytest

from planner.analysis.fitting import Change, largest_micro_batch, predicted_peak, smallest_change, with_micro_batch
from planner.config.run import RunConfig
from planner.counts.run import tokens_per_step
from planner.inputs.draft import draft
from planner.inputs.flags import Flags, flag

GIB = 2**30
MEMBERS = {flag(name): name for name in Flags.__dataclass_fields__}


@cache
def planned(**flags: str) -> RunConfig:
    words = {"params": "125M", "tokens": "1B", "gpu": "a100-80gb", "micro_batch": "8", "accumulation": "4"} | flags
    return draft(Flags(**words), as_of="2026-11-21", version="0")


def typed_again(config: RunConfig, change: Change) -> RunConfig:
    """The config that the change's flags give when they are typed over the old one."""
    words = dict(one.split(" ") for one in change.flags)
    return draft(Flags(**{MEMBERS[k]: v for k, v in words.items()}), as_of="2026-11-21", version="0", base=config)


@pytest.mark.parametrize("share", [0.95, 0.8, 0.6, 0.5, 0.4, 0.35])
@pytest.mark.parametrize("recipe", ["mixed-bf16", "pure-bf16"])
def test_the_change_fits_and_is_the_same_training(share: float, recipe: str) -> None:
    config = planned(recipe=recipe)
    capacity = int(predicted_peak(config) * share)
    found = smallest_change(config, capacity)
    assert found is not None
    assert found.peak_bytes == predicted_peak(found.config) <= capacity
    assert tokens_per_step(found.config) == tokens_per_step(config)
    assert found.config.model == config.model and found.config.schedule == config.schedule
    again = typed_again(config, found)
    assert predicted_peak(again) == found.peak_bytes and tokens_per_step(again) == tokens_per_step(config)


def test_no_flag_of_a_change_is_needless() -> None:
    """Without one of its flags (micro-batch and accumulation are one) the peak does not fit."""
    config = planned()
    for share in (0.9, 0.6, 0.4, 0.3):
        capacity = int(predicted_peak(config) * share)
        found = smallest_change(config, capacity)
        assert found is not None
        batch = [one for one in found.flags if one.startswith(("--micro-batch", "--accumulation"))]
        rest = [[one] for one in found.flags if one not in batch]
        for dropped in [batch, *rest] if batch else rest:
            fewer = Change(found.config, tuple(f for f in found.flags if f not in dropped), 0, 1.0)
            if any(f.startswith("--activation-checkpointing-every") for f in fewer.flags) != any(
                f == "--activation-checkpointing full" for f in fewer.flags
            ):
                continue  # neither stands alone, and full of every block is checked by the other
            assert predicted_peak(typed_again(config, fewer)) > capacity, (share, found.flags, dropped)


def test_what_fits_needs_no_change_and_what_cannot_has_none() -> None:
    config = planned()
    same = smallest_change(config, predicted_peak(config))
    assert same is not None and same.flags == () and same.config == config and same.time_ratio == 1
    assert smallest_change(config, GIB // 2) is None


def test_recomputing_is_paid_for_and_comes_last() -> None:
    """Less memory never costs less time; recomputation appears only when nothing cheaper is left."""
    config = planned(seq="1024")
    peak, ratios, flags = predicted_peak(config), [], []
    for share in (0.95, 0.8, 0.6, 0.5, 0.4, 0.3):
        found = smallest_change(config, int(peak * share))
        assert found is not None
        ratios.append(found.time_ratio)
        flags.append(found.command_line)
    assert all(b >= a - 0.005 for a, b in itertools.pairwise(ratios)), ratios
    assert "checkpointing" not in flags[0]


def test_the_largest_micro_batch_that_fits() -> None:
    config = planned(micro_batch="12", accumulation="2")
    sizes = {micro: predicted_peak(with_micro_batch(config, micro)) for micro in (1, 2, 3, 4, 6, 8, 12)}
    assert sorted(sizes.values()) == list(sizes.values())
    for micro, peak in sizes.items():
        assert largest_micro_batch(config, peak) == micro
    assert largest_micro_batch(config, sizes[1] - 1) is None


def test_a_list_of_copies_in_the_update_is_given_up_first() -> None:
    """One sequence: the update is the peak, and the fused kernel has no temporary copies."""
    config = planned(micro_batch="1", accumulation="1", seq="64", optimizer_implementation="foreach")
    found = smallest_change(config, predicted_peak(config) - GIB // 4)
    assert found is not None and found.flags == ("--optimizer-implementation fused",)


def test_a_peak_can_be_given() -> None:
    """Any measure of the peak will do: here the micro-batch itself."""
    found = smallest_change(planned(), 3, lambda config: config.training.micro_batch)
    assert found is not None and found.flags == ("--micro-batch 2", "--accumulation 16")
