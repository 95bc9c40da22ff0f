"""The terminal planner's drawings: bars, plots with a cursor, names and values of fields."""

from __future__ import annotations

from dataclasses import fields

import pytest

from planner.analysis.findings import findings
from planner.analysis.schedules import curve_of, sampled_steps
from planner.config.options import OPTION, OPTIONS, panels
from planner.inputs.draft import draft
from planner.inputs.effective import effective
from planner.inputs.field_names import names_of
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.report.markdown import markdown
from planner.report.memory_bars import COMPONENT_SIGNS, DEVICE, NAMES, cells_of, component_table, memory_bars
from planner.report.schedule import cursor_plot, key_step_lines, reading
from planner.units import format_bytes


@pytest.fixture(scope="module")
def plan():
    return estimate(draft(Flags(params="125M", tokens="10B", recipe="master-bf16"), as_of="2026-01-31", version="0"))


def test_a_bar_ends_where_its_sum_does():
    assert sum(n for _, n in cells_of({"a": 1, "b": 1, "c": 1}, 9, 10)) == 3
    assert cells_of({"a": 50, "b": 0, "c": 50}, 100, 10) == (("a", 5), ("c", 5))


@pytest.mark.parametrize("width", [10, 37, 100])
@pytest.mark.parametrize("near", [True, False])
def test_bars_of_every_phase_and_of_the_device(plan, width, near):
    bars, m = memory_bars(plan, width, near=near), plan.memory
    assert [row.name for row in bars.rows] == [*(p.phase for p in m.phases), DEVICE]
    assert [row.name for row in bars.rows if row.is_peak] == [m.peak_phase]
    device = bars.rows[-1]
    assert device.bytes == m.device_used_bytes
    scale = device.bytes if near else m.usable_bytes
    for row in bars.rows:
        assert sum(n for _, n in row.cells) == round(row.bytes / scale * width) <= width
    assert bars.capacity == (None if near else width)
    assert set(bars.used()) <= set(COMPONENT_SIGNS) == set(NAMES)


def test_a_bar_beyond_the_capacity_shows_its_line():
    plan = estimate(draft(Flags(params="70B", tokens="10B"), as_of="2026-01-31", version="0"))
    bars = memory_bars(plan, 50)
    assert plan.memory.fits is False and 0 < bars.capacity < 50
    assert max(sum(n for _, n in row.cells) for row in bars.rows) == 50


def test_the_table_ends_with_what_the_device_holds(plan):
    m, last = plan.memory, component_table(plan)[-1]
    device = next(row for row in memory_bars(plan, 100).rows if row.name == DEVICE)
    assert device.bytes == m.peak_reserved_bytes.value + m.context_bytes
    assert last.strip().startswith(DEVICE) and last.rstrip().endswith(format_bytes(device.bytes))
    processor = estimate(draft(Flags(params="10M", tokens="1B", gpu="cpu"), as_of="2026-01-31", version="0"))
    assert component_table(processor)[-1].endswith("100 %"), "it has no allocator of its own"


def test_the_table_says_signs_and_bytes(plan):
    text = "\n".join(component_table(plan))
    for name, sign in COMPONENT_SIGNS.items():
        if name not in ("allocator", "context", "nccl", "communication"):
            assert f"{sign}  {NAMES[name]}" in text
    assert format_bytes(plan.memory.peak_requested_bytes) in text


def test_replicas_have_bars_for_their_buckets_and_for_nccl():
    flags = Flags(params="125M", tokens="1B", gpu="a100-80gb", gpus="8")
    plan = estimate(draft(flags, as_of="2026-01-31", version="0"), replay=True)
    text = "\n".join(component_table(plan))
    assert "D  buckets of DDP" in text and "N  buffers of NCCL" in text
    device = next(row for row in memory_bars(plan, 100).rows if row.name == DEVICE)
    assert device.bytes == plan.memory.device_used_bytes


@pytest.mark.parametrize("width", [40, 73, 120])
def test_the_cursor_stands_over_its_step(plan, width):
    curve = curve_of(plan.config)
    for step in sampled_steps([curve], 9):
        lines = cursor_plot(curve, step, width=width, height=9)
        assert all(len(line) <= width for line in lines)
        axis = next(line for line in lines if "▲" in line)
        start = axis.index("└") + 1
        assert abs((axis.index("▲") - start) / (len(axis) - start - 1) - step / curve.steps) <= 0.5 / (
            len(axis) - start - 1
        )
        assert f"step {step:,} of" in reading(curve, step)
    assert "10B tokens" in lines[-1] and f"{curve.steps:,}" in lines[-2]
    assert "100 % of the peak" in reading(curve, plan.config.schedule.warmup_steps)
    assert len(key_step_lines(curve)) == 8


def test_every_field_has_a_label_and_stands_in_one_panel():
    assert sorted(n for names in panels().values() for n in names) == sorted(f.name for f in fields(Flags))
    assert all(2 < len(o.short) <= 20 for o in OPTIONS)
    assert len({o.short for o in OPTIONS}) == len(OPTIONS)


def test_names_complete_and_each_is_accepted():
    base = Flags(params="125M", tokens="10B")
    for field in ("gpu", "schedule", "optimizer", "recipe", "loss_kind", "on_spike", "allocator"):
        assert len(names_of(field)) > 1
        for name in names_of(field)[:3]:
            flags = Flags(**{"params": base.params, "tokens": base.tokens, field: name})
            draft(flags, as_of="2026-01-31", version="0")
    assert names_of("tokens") == ()


def test_what_an_empty_field_stands_for_gives_the_same_plan(plan):
    found = effective(plan)
    same = ("layers", "hidden", "heads", "ffn", "vocab", "seq", "micro_batch", "accumulation", "recipe", "runtime")
    same += ("schedule", "peak_lr", "min_lr", "warmup_steps", "optimizer", "gpu", "gpus", "attention", "loss_kind")
    flags = Flags(tokens="10B", **{name: found[name] for name in same})
    again = estimate(draft(flags, as_of="2026-01-31", version="0"))
    assert again.memory.peak_requested_bytes == plan.memory.peak_requested_bytes
    assert again.parameters == plan.parameters and again.schedule.points == plan.schedule.points
    assert set(found) <= set(OPTION)


def test_markdown_holds_the_plan(plan):
    text = markdown(plan, findings(plan), "gptplan estimate --params 125M")
    for words in ("| cost |", "## Findings", "$ gptplan estimate --params 125M", "Memory per device", "✓ fits"):
        assert words in text
