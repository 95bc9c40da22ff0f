"""Seconds of one micro-batch on one device: its parts, added, and the launches that no kernel fills."""

from __future__ import annotations

from planner.counts.run import Resolved
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.blocks import attention_seconds, block_traffic_seconds, offload_seconds, products_seconds
from planner.step_time.head import head_and_loss_seconds
from planner.step_time.host import launching_seconds
from planner.step_time.kernel_calls import element_wise_calls
from planner.step_time.rates import Rates


def block_parts(run: Resolved, rates: Rates) -> dict[str, float]:
    """Forward and backward of the blocks by part."""
    return {
        "matrix products": products_seconds(run, rates),
        "attention": attention_seconds(run, rates),
        "element-wise": block_traffic_seconds(run, rates),
        "offloading": offload_seconds(run, rates),
    }


def device_seconds(run: Resolved, rates: Rates) -> dict[str, float]:
    """Forward and backward by part; with a profile the element-wise kernels are parts of their own."""
    has_head = run.rank is None or run.rank.has_head
    parts = block_parts(run, rates)
    head = {"head and loss": head_and_loss_seconds(run, rates) if has_head else 0.0}
    found = {
        **{name: part for name, part in parts.items() if name != "offloading"},
        **head,
        "offloading": parts["offloading"],
    }
    for part, seconds in _timed_kernels(run, rates).items():
        found[part] = found.get(part, 0.0) + seconds
    return found


def _timed_kernels(run: Resolved, rates: Rates) -> dict[str, float]:
    """Seconds of the element-wise kernels by part, from a profile; a data sheet's are in `device_seconds` already."""
    measured, parts = rates.measured, dict[str, float]()
    if measured is None:
        return parts
    loss = rates.runtime["logits"] * rules("time")["loss"][run.config.training.loss]
    for call in element_wise_calls(run):
        factor = loss if call.part == "head and loss" else rates.runtime["traffic"]
        seconds = measured.read(call.kernel, call.kind, call.sizes, call.makes, call.times)
        parts[call.part] = parts.get(call.part, 0.0) + factor * call.times * seconds
    return parts


def with_launches(device: dict[str, float], run: Resolved, rates: Rates) -> dict[str, float]:
    """The parts with what the host's launches add to them.

    A processor launches nothing ahead: what autograd does for each kernel is added.
    """
    busy = sum(device.values())
    host = launching_seconds(run, rates)
    ahead = rates.measured is None or rates.measured.on_gpu
    micro = real(throughput.with_host_seconds(busy, host)) if ahead else busy + host
    return device | {"launch overhead": throughput.launch_seconds(micro, busy)}
