"""The smallest change that fits: what it may touch, that it fits, and that nothing cheaper does."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import cache

import pytest

from planner import presets
from planner.analysis.changes import FittingChange, every_change, with_micro_batch
from planner.analysis.findings import findings
from planner.analysis.fitting import (
    always_there,
    largest_micro_batch,
    needed_bytes,
    predicted_peak,
    smallest_change,
    what_fits,
    with_remedies,
)
from planner.config.options import flag
from planner.config.run import RunConfig
from planner.counts.run import resolve, tokens_per_step
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import memory_breakdown
from planner.plan import Plan, estimate
from planner.units import format_bytes
from tests.soak import one_in

ABOUT_MEMORY = ("does_not_fit", "allocator_thrash", "nearly_full")
GIB = 2**30
MEMBERS = {flag(name): name for name in Flags.__dataclass_fields__}


@cache
def planned(**flags: str) -> RunConfig:
    words = {"params": "125M", "tokens": "1B", "gpu": "a100-80gb", "micro_batch": "8", "accumulation": "4"}
    words |= {"runtime": "eager"} | flags
    return draft(Flags(**words), as_of="2026-11-21", version="0")


def typed_again(config: RunConfig, change: FittingChange) -> RunConfig:
    """The config that the change's flags give when they are typed over the old one."""
    words = dict(one.split(" ") for one in change.flags)
    return draft(Flags(**{MEMBERS[k]: v for k, v in words.items()}), as_of="2026-11-21", version="0", base=config)


@pytest.mark.parametrize("share", [0.95, 0.8, 0.6, 0.5, 0.4, 0.35])
@pytest.mark.parametrize("recipe", ["mixed-bf16", "pure-bf16"])
def test_the_change_fits_and_is_the_same_training(share: float, recipe: str) -> None:
    config = planned(recipe=recipe)
    same_training_that_fits(config, share)


def test_a_compiled_run_may_run_eagerly_where_no_compiled_one_fits() -> None:
    """Compiled, new gradients and accumulated ones are alive together: no checkpointing makes room for them."""
    config = planned(runtime="compiled")
    compiled = same_training_that_fits(config, 0.7)
    eager = same_training_that_fits(config, 0.45)
    assert compiled.run.config.training.runtime == "compiled"
    assert "--runtime eager" in eager.flags and eager.time_known and eager.time_ratio > compiled.time_ratio > 1


def same_training_that_fits(config: RunConfig, share: float) -> FittingChange:
    """The change to a share of the config's peak, which is the same training."""
    capacity = int(predicted_peak(resolve(config)) * share)
    found = smallest_change(resolve(config), capacity, predicted_peak)
    assert found is not None
    assert found.peak_bytes == predicted_peak(found.run) <= capacity
    assert found.run.tokens_per_step == tokens_per_step(config)
    assert found.run.config.model == config.model and found.run.config.schedule == config.schedule
    again = typed_again(config, found)
    assert predicted_peak(resolve(again)) == found.peak_bytes and tokens_per_step(again) == tokens_per_step(config)
    return found


def test_no_flag_of_a_change_is_needless() -> None:
    """Without one of its flags (micro-batch and accumulation are one) the peak does not fit."""
    config = planned()
    for share in (0.9, 0.6, 0.4, 0.3):
        capacity = int(predicted_peak(resolve(config)) * share)
        found = smallest_change(resolve(config), capacity, predicted_peak)
        assert found is not None
        batch = [one for one in found.flags if one.startswith(("--micro-batch", "--accumulation"))]
        rest = [[one] for one in found.flags if one not in batch]
        for dropped in [batch, *rest] if batch else rest:
            fewer = FittingChange(found.run, tuple(f for f in found.flags if f not in dropped), 0, 1.0)
            if any(f.startswith("--activation-checkpointing-every") for f in fewer.flags) != any(
                f == "--activation-checkpointing full" for f in fewer.flags
            ):
                continue  # neither stands alone, and full of every block is checked by the other
            assert predicted_peak(resolve(typed_again(config, fewer))) > capacity, (share, found.flags, dropped)


def test_what_fits_needs_no_change_and_what_cannot_has_none() -> None:
    config = planned()
    same = smallest_change(resolve(config), predicted_peak(resolve(config)), predicted_peak)
    assert same is not None and same.flags == () and same.run.config == config and same.time_ratio == 1
    assert smallest_change(resolve(config), GIB // 2, predicted_peak) is None


def test_less_memory_never_costs_less_time() -> None:
    config = planned(seq="1024")
    peak, ratios = predicted_peak(resolve(config)), []
    for share in (0.95, 0.8, 0.6, 0.5, 0.4, 0.3):
        found = smallest_change(resolve(config), int(peak * share), predicted_peak)
        assert found is not None
        ratios.append(found.time_ratio)
    assert all(b >= a - 0.005 for a, b in itertools.pairwise(ratios)), ratios


def test_the_largest_micro_batch_that_fits() -> None:
    config = planned(micro_batch="12", accumulation="2")
    sizes = {micro: predicted_peak(with_micro_batch(resolve(config), micro)) for micro in (1, 2, 3, 4, 6, 8, 12)}
    assert sorted(sizes.values()) == list(sizes.values())
    for micro, peak in sizes.items():
        assert largest_micro_batch(resolve(config), peak) == micro
    assert largest_micro_batch(resolve(config), sizes[1] - 1) is None


def test_a_list_of_copies_in_the_update_is_given_up_first() -> None:
    """One sequence: the update is the peak, and the fused kernel has no temporary copies."""
    config = planned(micro_batch="1", accumulation="1", seq="64", optimizer_implementation="foreach")
    found = smallest_change(resolve(config), predicted_peak(resolve(config)) - GIB // 4, predicted_peak)
    assert found is not None and found.flags == ("--optimizer-implementation fused",)


def test_a_peak_can_be_given() -> None:
    """Any measure of the peak will do: here the micro-batch itself."""
    found = smallest_change(resolve(planned()), 3, lambda run: run.config.training.micro_batch)
    assert found is not None and found.flags == ("--micro-batch 2", "--accumulation 16")


def remedy_of(plan: Plan) -> str:
    """What the command says against the memory's finding, which the fast findings leave open."""
    (quick,) = (f for f in findings(plan) if f.code in ABOUT_MEMORY)
    (found,) = (f for f in with_remedies(plan, [quick]))
    assert quick.remedy == "" and quick == replace(found, remedy="")
    return found.remedy


def typed_over(config: RunConfig, remedy: str) -> Plan:
    """The plan after the remedy's flags are typed over the config."""
    words = remedy.partition(" needs ")[0].split()
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    changed = draft(Flags(**{MEMBERS[k]: v for k, v in pairs.items()}), as_of="2026-11-21", version="0", base=config)
    return estimate(changed, replay=True)


@pytest.mark.parametrize(
    "flags",
    [
        {"model": "gemma-2-2b", "gpu": "a100-80gb", "micro_batch": "1", "seq": "8192"},
        {"model": "llama-3.2-1b", "gpu": "h100-80gb", "seq": "32Ki"},
    ],
)
def test_a_larger_card_is_not_asked_for_where_a_change_costs_little(flags: dict[str, str]) -> None:
    """Both were once told to buy a larger card, or to recompute everything: a fused loss is enough."""
    config = draft(Flags(tokens="1B", runtime="eager", **flags), as_of="2026-11-21", version="0")
    plan = estimate(config, replay=True)
    remedy = remedy_of(plan)
    assert plan.memory.fits is False and "--loss-kind fused" in remedy
    (percent,) = re.findall(r"a step takes about ([0-9.]+) % longer", remedy)
    assert 0 < float(percent) < 10
    after = typed_over(config, remedy).memory
    assert after.fits and f"needs {format_bytes(needed_bytes(after))} of {format_bytes(after.usable_bytes)}" in remedy


@pytest.mark.parametrize(
    ("gpu", "micro_batch"), one_in(3, [("a100-40gb", "14"), ("a100-80gb", "53"), ("h100-80gb", "52")])
)
def test_expandable_segments_come_first_where_they_alone_make_it_fit(gpu: str, micro_batch: str) -> None:
    """GPT-2 XL, recomputed: it does not fit by the gaps between segments alone."""
    flags = {"model": "gpt2-xl", "gpu": gpu, "seq": "1024", "micro_batch": micro_batch, "runtime": "eager"}
    config = draft(Flags(tokens="1B", activation_checkpointing="full", **flags), as_of="2026-11-21", version="0")
    plan = estimate(config, replay=True)
    remedy = remedy_of(plan)
    assert plan.memory.fits is False
    assert remedy.startswith("--allocator expandable needs ") and remedy.endswith(", no slower")
    after = typed_over(config, remedy).memory
    assert after.fits and after.peak_requested_bytes == plan.memory.peak_requested_bytes


def test_what_is_not_priced_is_not_called_free() -> None:
    run = resolve(planned())
    priced = FittingChange(run, ("--allocator expandable",), 0, 1.0)
    unpriced = FittingChange(run, ("--loss-kind fused",), 0, 1.0)
    both = FittingChange(run, ("--loss-kind chunked", "--activation-checkpointing full"), 0, 1.25)
    assert priced.price == "no slower" and priced.unpredicted == ()
    assert unpriced.price == "the time that --loss-kind costs is not predicted"
    assert both.price == "a step takes about 25 % longer, and what --loss-kind costs"


LARGE = [("125M", "64"), ("350M", "128"), ("1.3B", "8"), ("2.7B", "2")]
LONG = [("1024", "mixed-bf16"), ("2048", "pure-bf16"), ("4096", "fp32")]
DOES_NOT_FIT = [
    {"params": params, "micro_batch": micro, "seq": seq, "recipe": recipe}
    for (params, micro), (seq, recipe) in itertools.product(LARGE, LONG)
]
# of the smallest and the largest model one that has a remedy, and one that has none
FIRST = (DOES_NOT_FIT[0] | {"runtime": "eager"}, DOES_NOT_FIT[-1])
COMPILED = {"params": "2B", "micro_batch": "1", "accumulation": "8", "seq": "1024"}


def is_helped(flags: dict[str, str]) -> bool | None:
    """Whether a remedy is said; None if the plan fits. What is said fits by the same measure, or else nothing does."""
    config = draft(Flags(tokens="1B", gpu="a100-40gb", **flags), as_of="2026-11-21", version="0")
    plan = estimate(config, replay=True)
    if plan.memory.fits:
        return None
    remedy = remedy_of(plan)
    if remedy.startswith("--"):
        after = typed_over(config, remedy)
        assert after.memory.fits and needed_bytes(after.memory) <= (after.memory.usable_bytes or 0), (flags, remedy)
        assert after.batch.tokens_per_step == plan.batch.tokens_per_step
        return True
    assert "GPU with more memory" in remedy, remedy
    gpu = presets.gpu("a100-40gb")
    assert not any(memory_breakdown(replace(one.run, gpu=gpu)).fits for one in every_change(resolve(config))), flags
    return False


@pytest.mark.parametrize(("flags", "helped"), [(FIRST[0], True), (FIRST[1], False), (COMPILED, True)])
def test_the_remedy_of_a_plan_that_does_not_fit_makes_it_fit(flags: dict[str, str], helped: bool) -> None:
    assert is_helped(flags) is helped


@pytest.mark.soak
@pytest.mark.timeout(500)
def test_every_plan_that_does_not_fit_has_a_remedy_that_fits_or_none_can() -> None:
    found = [is_helped(flags) for flags in DOES_NOT_FIT]
    assert found.count(True) >= 5 and found.count(False) >= 2


@pytest.mark.parametrize(
    "flags",
    [
        {"params": "350M", "micro_batch": "2", "gpus": "8", "activation_checkpointing": "full"},
        {"params": "1.3B", "micro_batch": "2", "recipe": "master-bf16"},
        {"params": "125M", "micro_batch": "2", "optimizer": "muon"},
        {"params": "125M", "micro_batch": "2", "optimizer": "adafactor", "recipe": "pure-bf16"},
    ],
)
def test_the_update_needs_the_same_whatever_is_recomputed(flags: dict[str, str]) -> None:
    run = resolve(draft(Flags(tokens="1B", gpu="a100-40gb", **flags), as_of="2026-11-21", version="0"))
    found: dict[object, int] = {}
    for change in every_change(run):
        alike = change.run.config.parallel, change.run.config.optimizer
        peak, least = predicted_peak(change.run), found.setdefault(alike, always_there(change.run))
        assert least <= peak and abs(always_there(change.run) - least) < 1e-3 * least, change.flags
    assert all(least > 0 for least in found.values())


def test_a_plan_whose_moments_alone_are_too_much_is_not_tried_change_by_change(monkeypatch: pytest.MonkeyPatch) -> None:
    config = draft(Flags(model="mixtral-8x7b", tokens="1B", gpu="h100-80gb", gpus="8"), as_of="2026-11-21", version="0")
    calls = list[object]()
    monkeypatch.setattr(
        "planner.analysis.fitting.memory_breakdown", lambda *a, **k: calls.append(a) or memory_breakdown(*a, **k)
    )
    found = what_fits(resolve(config))
    assert found is None
    assert len(calls) < 20, len(calls)


def test_where_no_micro_batch_fits_replicas_the_finding_names_a_layout_that_does() -> None:
    """Muon needs whole matrices, so that FSDP2 is no way out; a pipeline is."""
    shape = {"layers": "32", "hidden": "4096", "heads": "32", "vocab": "32768", "seq": "1024", "tokens": "1B"}
    words = shape | {"gpu": "a100-40gb", "gpus": "8", "micro_batch": "1", "accumulation": "8", "optimizer": "muon"}
    run = resolve(draft(Flags(**words), as_of="2026-11-21", version="0"))
    change = what_fits(run)
    assert change is not None and any(flag.startswith("--pp") for flag in change.flags)
    memory = memory_breakdown(change.run, replay=False)
    assert memory.usable_bytes is not None and change.peak_bytes <= memory.usable_bytes - memory.outside_bytes
    config = change.run.config
    assert config.training.micro_batch * config.training.accumulation * config.data_parallel == run.sequences_per_step


# a plan whose verdict is open: NCCL's buffers, a layout that no run was compared with, an upper bound
OPEN_PLANS = {
    "nccl_buffers": {"model": "llama-2-7b", "tp": "2", "activation_checkpointing": "full", "seq": "4096",
                     "activation_checkpointing_every": "2", "micro_batch": "1"},
    "layout_interval": {"model": "gpt2-xl", "zero": "1", "seq": "1024", "micro_batch": "14"},
    "upper_bound_only": {"model": "gpt2-xl", "runtime": "compiled", "dropout": "0.1", "seq": "848",
                         "micro_batch": "14"},
    "recomputation_interval": {"layers": "4", "hidden": "6144", "heads": "48", "vocab": "4096", "seq": "4096",
                               "activation_checkpointing": "full", "micro_batch": "22"},
}  # fmt: skip


@pytest.mark.parametrize("code", OPEN_PLANS)
def test_what_is_proposed_for_an_open_verdict_is_certain_to_fit(code: str) -> None:
    words = {"gpu": "a100-80gb", "gpus": "8", "tokens": "10B", "accumulation": "8"} | OPEN_PLANS[code]
    plan = estimate(draft(Flags(**words), as_of="2026-11-21", version="0"), replay=True)
    assert plan.memory.fits_unknown is not None and plan.memory.fits_unknown.code == code
    found = what_fits(plan.run)
    assert found is not None and found.flags
    assert estimate(found.run.config, replay=True).memory.fits, found.flags
