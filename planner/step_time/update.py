"""Seconds of the parameter update: clipping, the optimizer's traffic, Muon's products, and the host's calls."""

from __future__ import annotations

from collections import Counter
from math import prod

from planner.config.run import OptimizerConfig
from planner.counts.ranks import held_tensors
from planner.counts.run import Resolved
from planner.counts.shards import local_count, optimizer_cut
from planner.counts.stacks import NEWTON_SCHULZ_STEPS, stack_sizes
from planner.counts.tensors import ParameterTensor
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.measured import Measured
from planner.step_time.rates import Rates


def update_seconds(run: Resolved, rates: Rates) -> float:
    """One update of this device's parameters, clipping included."""
    optimizer, table = run.config.optimizer, rules("time")["optimizer"]
    cut = optimizer_cut(run)
    tensors = [*cut.parts(held_tensors(run))]
    muon = [t for t in tensors if optimizer.name == "muon" and t.role.has_muon]
    rest = [t for t in tensors if t not in muon]
    if rates.measured is not None:
        return _measured_seconds(run, rates, rates.measured, tensors, muon)
    kind = "adamw" if optimizer.name == "muon" else optimizer.name
    implementation = f"{kind}-{optimizer.implementation}"
    state = 0.75 if optimizer.state_dtype == "bf16" else 1.0  # two of four streams are half as wide
    bytes_moved = table[implementation] * state * local_count(rest, 1)
    bytes_moved += table["adamw-foreach"] * local_count(muon, 1)
    clips = (optimizer.clip_norm is not None) + (optimizer.clip_value is not None)
    bytes_moved += table["clip"] * (0.5 + 0.5 * clips) * local_count(tensors, 1)
    if 0 < run.recipe.gradients_bytes_per_parameter < run.recipe.master_weights_bytes_per_parameter:
        bytes_moved += table["widened"] * local_count(tensors, 1)
    device = real(throughput.traffic_seconds(bytes_moved, rates.bandwidth)) + _muon_seconds(muon, run, rates)
    return real(throughput.with_host_seconds(device, _host_seconds(run, muon, rest)))


def _host_seconds(run: Resolved, muon: list[ParameterTensor], rest: list[ParameterTensor]) -> float:
    """Seconds of the host's calls for one update on a GPU."""
    optimizer, table = run.config.optimizer, rules("time")["optimizer"]
    number, alone = sum(t.times for t in rest), sum(t.times for t in muon)
    # a stack's products, and some calls for each of its matrices
    host = table[f"host-{_way_of(optimizer)}"] * number
    host += table["host-muon"] * _stacks(muon, run) + table["host-lion"] * alone
    return float(host + table["host-clip"] * (number + alone))


def _way_of(optimizer: OptimizerConfig) -> str:
    """The loop over tensors: the trainer's own reads nothing back; torch.optim's reads every step counter."""
    return "lion" if optimizer.name == "lion" or optimizer.state_dtype == "bf16" else optimizer.implementation


def _measured_seconds(
    run: Resolved, rates: Rates, measured: Measured, tensors: list[ParameterTensor], muon: list[ParameterTensor]
) -> float:
    """The same from a profile: AdamW's times, by the traffic and calls of another optimizer beside fused AdamW's."""
    optimizer, table = run.config.optimizer, rules("time")["optimizer"]
    rest = [t for t in tensors if t not in muon]
    kind = "adamw" if optimizer.name == "muon" else optimizer.name
    traffic = table[f"{kind}-{optimizer.implementation}"] * (0.75 if optimizer.state_dtype == "bf16" else 1.0)
    if 0 < run.recipe.gradients_bytes_per_parameter < run.recipe.master_weights_bytes_per_parameter:
        traffic += table["widened"]
    # a processor's times hold the calls; on a GPU they are the host's, beside the kernels
    calls = 1.0 if measured.on_gpu else table[f"host-{_way_of(optimizer)}"] / table["host-fused"]
    # half of the clip's traffic is the norm, half the scaling: without limits the norm is taken all the same. Cutting
    # values reads and writes twice as the scaling does once, and the limit of the norm then wants the norm of the rest
    norm, value = optimizer.clip_norm is not None, optimizer.clip_value is not None
    halves = (1 + norm + value * (2 + norm)) / 2
    updated = ((rest, "adamw", traffic / table["adamw-fused"], calls), (tensors, "clip", halves, halves))
    seconds = _muon_seconds(muon, run, rates)
    for those, name, of_bytes, of_calls in (
        *updated,
        (muon, "adamw", table["adamw-foreach"] / table["adamw-fused"], 1.0),
    ):
        if those:
            seconds += of_bytes * measured.read(name, "fp32", (local_count(those, 1),))
            seconds += of_calls * measured.read(f"{name}_tensors", "fp32", (sum(t.times for t in those),))
    if not measured.on_gpu:
        return seconds
    return real(throughput.with_host_seconds(seconds, _host_seconds(run, muon, rest)))


def _stacks(muon: list[ParameterTensor], run: Resolved) -> int:
    """Number of stacks in which Muon updates its matrices; narrow gradients are widened one by one."""
    alone = 0 < run.recipe.gradients_bytes_per_parameter < run.recipe.master_weights_bytes_per_parameter
    numbers = Counter[tuple[int, ...]]()
    for tensor in muon:
        numbers[tensor.shape] += tensor.times
    return sum(n if alone else len(stack_sizes(prod(shape), n)) for shape, n in numbers.items())


def _muon_seconds(muon: list[ParameterTensor], run: Resolved, rates: Rates) -> float:
    """Newton-Schulz in bf16, five times: of a matrix a x b, a <= b, two products of 2 a^2 b FLOPs and one of 2 a^3."""
    seconds = 0.0
    for tensor in muon:
        a, b = sorted(tensor.shape)
        for sizes in ((a, b, a), (a, a, a), (a, a, b)):
            one = throughput.gemm_seconds(*sizes, 2, rates.head_flops, rates.bandwidth, rates.small)
            seconds += NEWTON_SCHULZ_STEPS * tensor.times * float(one)
    return seconds
