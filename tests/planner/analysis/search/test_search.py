"""A search gives what estimating every layout would give, keeps its limits, and says what binds if nothing is found."""

from __future__ import annotations

from typing import Any

import pytest

from planner import presets
from planner.analysis.search.area import Layout
from planner.analysis.search.search import chosen_config, lost_seconds, pareto_front, search
from planner.analysis.search.space import choices, every_layout
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.errors import InputError
from planner.inputs.runtime import why_not_compiled
from planner.inputs.search import RankedBy, SearchLimits, SearchSpace
from planner.memory.coverage import not_covered
from planner.memory.device import context_bytes
from planner.plan import Plan, estimate
from planner.report.search import search_text
from planner.rules import roofline_of, rules
from tests.planner.analysis.search.runs import drafted_run

CARDS = ("a100-40gb", "h100-80gb")
# of a space that brute force walks in a second: one loss, three degrees
KEPT = frozenset({"loss_kind", "sp", "cp", "interleave", "reshard", "hsdp", "ddp_bucket_view"})
MODEL = {"layers": "8", "hidden": "2048", "heads": "16", "vocab": "32768", "seq": "2048", "tokens": "1B"}


def a_run(**more: str) -> RunConfig:
    return drafted_run(**MODEL | {"gpu": CARDS[0], "gpus": "1", "global_batch_tokens": "16Ki"} | more)


def used(plan: Plan) -> int:
    """Bytes of the device by the rule, written once more."""
    gpu, rule = plan.run.gpu, rules("roofline")["memory"]
    assert gpu is not None
    workspace = rule["workspace_handles"] * roofline_of(gpu.id)["workspace_bytes"]
    outside = workspace + context_bytes(gpu) + (plan.memory.nccl_bytes.value or 0)
    return round(plan.memory.peak_requested_bytes * rule["rounding"]) + outside


def score(plan: Plan, by: RankedBy) -> float:
    gpu = presets.gpu(plan.config.hardware.gpu)
    assert gpu.usable_bytes is not None
    found = {
        "time": plan.time.seconds.value,
        "cost": plan.cost.usd.value,
        "energy": plan.cost.energy_kwh,
        "head-room": used(plan) / gpu.usable_bytes,
    }[by]
    assert found is not None
    return found


def brute_force(config: RunConfig, space: SearchSpace) -> list[Plan]:
    """The plan of every layout of the space that is known to fit and keeps the limits."""
    found = []
    for each in every_layout(config, space):
        run = resolve(each)
        if not_covered(run) is not None or (each.training.runtime == "compiled" and why_not_compiled(run)):
            continue
        plan, limits = estimate(each), space.limits
        usable = presets.gpu(each.hardware.gpu).usable_bytes
        seconds, usd = plan.time.seconds.value, plan.cost.usd.value
        assert usable is not None and seconds is not None and usd is not None
        if used(plan) > usable * (1 - limits.head_room) or plan.memory.fits is not True:
            continue
        if (limits.seconds is None or seconds <= limits.seconds) and (limits.usd is None or usd <= limits.usd):
            found.append(plan)
    return found


SPACES: dict[str, tuple[dict[str, str], SearchSpace, RankedBy]] = {
    "two cards by time": ({}, SearchSpace(CARDS, (2,), KEPT), "time"),
    "by cost, within a time": ({}, SearchSpace(CARDS, (1, 2), KEPT, limits=SearchLimits(seconds=86_400 / 4)), "cost"),
    "by head-room": ({"activation_checkpointing": "full"}, SearchSpace(CARDS[:1], (4,), KEPT), "head-room"),
    "with head-room, by energy": ({}, SearchSpace(CARDS, (2,), KEPT, limits=SearchLimits(head_room=0.75)), "energy"),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_winner_is_that_of_brute_force(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.analysis.search.space.periods", lambda layers: (1, 2))
    more, space, by = SPACES[name]
    config = a_run(**more)
    plans = brute_force(config, space)
    result = search(config, space, by)
    best, winner = min(plans, key=lambda plan: score(plan, by)), result.best[0]
    assert score(result.plans[0], by) == pytest.approx(score(best, by), rel=1e-9)
    assert winner.config == result.plans[0].config
    assert winner.used_bytes == used(result.plans[0])
    assert winner.seconds == pytest.approx(result.plans[0].time.seconds.value, rel=1e-9)
    assert winner.usd == pytest.approx(result.plans[0].cost.usd.value, rel=1e-9)
    assert winner.energy_kwh == pytest.approx(result.plans[0].cost.energy_kwh, rel=1e-9)
    front = pareto_front([as_layout(plan) for plan in plans])
    for what in ("seconds", "usd"):
        expected = [getattr(one, what) for one in front]
        assert [getattr(one, what) for one in result.front] == pytest.approx(expected, rel=1e-9)
    others = [best_of(plans, one, by) for one in result.best]
    assert [one_score for one_score in others] == sorted(others), "ranked"


def as_layout(plan: Plan) -> Layout:
    seconds, usd = plan.time.seconds.value, plan.cost.usd.value
    assert seconds is not None
    return Layout(plan.config, 0.0, seconds, usd, None, used(plan), 1)


def best_of(plans: list[Plan], one: Layout, by: RankedBy) -> float:
    """The best that brute force has of a placement."""
    c = one.config
    return min(score(p, by) for p in plans if (p.config.parallel, p.config.hardware) == (c.parallel, c.hardware))


def test_what_is_typed_stays() -> None:
    config = a_run(tp="2", gpus="4", micro_batch="2")
    result = search(config, SearchSpace(CARDS[:1], (4,), frozenset({"tp", "micro_batch"})))
    assert {(one.config.parallel.tp, one.config.training.micro_batch) for one in result.best} == {(2, 2)}
    zero = search(a_run(zero="2", gpus="4"), SearchSpace(CARDS[:1], (4,), frozenset({"zero"})))
    assert {one.config.parallel.zero for one in zero.best} == {2}
    alone = search(a_run(gpus="4"), SearchSpace(CARDS[:1], (4,), replicas=2))
    assert {one.config.data_parallel for one in alone.best} == {2}


def test_every_layout_computes_the_same_steps_and_can_be_read_back() -> None:
    config = a_run()
    result = search(config, SearchSpace(CARDS, (4,)))
    for one in result.best:
        found = resolve(one.config)
        assert (found.sequences_per_step, found.steps) == (8, resolve(config).steps)
        assert RunConfig(**one.config.model_dump()) == one.config
    winner = chosen_config(result)
    chosen = {a.key: a.value for a in winner.provenance.assumptions if "gptplan search" in a.source}
    assert chosen["gpus"] == "4" and chosen["micro_batch"] == str(winner.training.micro_batch)


def test_the_lost_seconds_add_up_to_what_the_second_loses() -> None:
    result = search(a_run(), SearchSpace(CARDS, (4,), KEPT))
    first, second = result.plans
    lost = sum(seconds for _, seconds in lost_seconds(first, second))
    assert lost == pytest.approx(result.best[1].step_seconds - result.best[0].step_seconds, abs=1e-12)


LARGE = {"layers": "48", "hidden": "12288", "heads": "96"}
NOTHING: dict[str, tuple[dict[str, str], SearchSpace, tuple[str, ...]]] = {
    "memory": (LARGE, SearchSpace(CARDS, (1,)), ("memory binds", "nearest: 1 x h100-80gb")),
    "head-room": (
        {},
        SearchSpace(CARDS, (2,), limits=SearchLimits(head_room=0.99)),
        ("--head-room 99 % binds", "nearest: 2 x"),
    ),
    "time": (
        {},
        SearchSpace(CARDS, (1,), limits=SearchLimits(seconds=1.0)),
        ("--within 1 s binds", "fastest"),
    ),
    "cost": ({}, SearchSpace(CARDS, (1,), limits=SearchLimits(usd=0.5)), ("--max-cost $0.5 binds", "cheapest")),
    "batch": ({}, SearchSpace(CARDS, (64,), frozenset({"tp", "pp", "cp"})), ("no layout divides",)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_where_nothing_is_found_the_message_names_what_binds_and_the_nearest(name: str) -> None:
    more, space, words = NOTHING[name]
    with pytest.raises(InputError) as caught:
        search(a_run(**more), space)
    for word in words:
        assert word in caught.value.message(), caught.value.message()
    assert caught.value.remedy


def test_two_limits_that_exclude_each_other_are_both_named() -> None:
    space: dict[str, Any] = {"cards": CARDS[:1], "gpus": (1, 8), "kept": KEPT}
    front = search(a_run(), SearchSpace(**space)).front
    assert len(front) > 1
    fastest, cheapest = front[0], front[-1]
    assert fastest.usd is not None and cheapest.usd is not None
    limits = SearchLimits(usd=cheapest.usd * 1.0001, seconds=fastest.seconds * 1.0001)
    with pytest.raises(InputError, match="exclude each other"):
        search(a_run(), SearchSpace(**space, limits=limits))


# the fastest layouts of this model need what NCCL may take, or the upper end of a layout's interval
TIGHT = {"layers": "24", "hidden": "3072"}
NONE_KNOWN = {"layers": "42", "hidden": "3072"}


def test_layouts_whose_verdict_is_open_stand_beside_those_that_are_known_to_fit() -> None:
    config, space = a_run(**TIGHT), SearchSpace(CARDS[:1], (2,), KEPT)
    result = search(config, space)
    assert all(one.fits and estimate(one.config).memory.fits for one in result.best)
    assert result.open and all(one.seconds < result.best[0].seconds for one in result.open)
    for one in result.open:
        by_rule, replayed = (estimate(one.config, replay=replay).memory.fits_unknown for replay in (False, True))
        assert one.fits is None and one.why_open in {why.why for why in (by_rule, replayed) if why}
    shown = search_text(result)
    assert "Above the first if they fit, which is not known" in shown and result.open[0].why_open in shown
    # head-room ranks by memory: what is open is never above what is known
    assert not search(config, space, "head-room").open


def test_where_no_layout_is_known_to_fit_those_that_may_are_ranked_and_said_to_be_open() -> None:
    result = search(a_run(**NONE_KNOWN), SearchSpace(CARDS[:1], (2,), KEPT))
    assert result.best and all(one.fits is None and one.why_open for one in result.best)
    assert result.plans[0].memory.fits is None and not result.open
    assert "none is known to fit, these may" in search_text(result)
    assert [one.seconds for one in result.best] == sorted(one.seconds for one in result.best)


def test_a_vocabulary_that_tensor_parallelism_does_not_divide_is_left_out_with_what_to_type() -> None:
    result = search(a_run(vocab="32767"), SearchSpace(CARDS[:1], (2,), KEPT))
    assert {one.config.parallel.tp for one in result.best} == {1}
    why = "tp does not divide the vocabulary of 32,767: give --pad-vocab 128"
    assert result.left_out[why] > 0 and why in search_text(result, 200)
    assert not search(a_run(vocab="32767", pad_vocab="128"), SearchSpace(CARDS[:1], (2,), KEPT)).left_out


def test_no_checkpointing_of_every_block_is_a_choice_that_can_be_kept() -> None:
    """Both keys typed, as a config has them: no mode was left, and an IndexError."""
    config = a_run(activation_checkpointing="none")
    kept = KEPT | {"activation_checkpointing", "activation_checkpointing_every", "runtime"}
    found = choices(config, SearchSpace(cards=CARDS[:1], gpus=(1,), kept=kept))
    assert {(choice.mode, choice.every) for choice in found} == {("none", 1)}
