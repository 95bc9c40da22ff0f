"""Seconds of one micro-batch on one GPU: roofline terms, added, and the launches that no kernel fills."""

from __future__ import annotations

from planner.counts.run import Resolved
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.step_time.blocks import attention_seconds, block_traffic_seconds, offload_seconds, products_seconds
from planner.step_time.head import head_and_loss_seconds
from planner.step_time.host import launching_seconds
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
    """Forward and backward by part."""
    has_head = run.rank is None or run.rank.has_head
    parts = block_parts(run, rates)
    head = {"head and loss": head_and_loss_seconds(run, rates) if has_head else 0.0}
    return {
        **{name: part for name, part in parts.items() if name != "offloading"},
        **head,
        "offloading": parts["offloading"],
    }


def with_launches(device: dict[str, float], run: Resolved, rates: Rates) -> dict[str, float]:
    """The parts with what the host's launches add to them."""
    busy = sum(device.values())
    micro = real(throughput.with_host_seconds(busy, launching_seconds(run, rates)))
    return device | {"launch overhead": throughput.launch_seconds(micro, busy)}
