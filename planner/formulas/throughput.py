"""Seconds of each part of a step on a GPU known by its data sheet: roofline terms, added and not overlapped."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num, maximum, minimum

_ROOFLINE = "Williams et al. 2009 (roofline), terms added: eager kernels do not overlap"


@formula(gives="seconds", source=_ROOFLINE + "; efficiency falls as 1 + k0 / smallest dimension")
def gemm_seconds(
    tokens_per_micro_batch: Num,
    inputs: Num,
    outputs: Num,
    compute_bytes: Num,
    flops_rate: Num,
    bandwidth: Num,
    small_gemm: Num,
) -> Num:
    """One product n x K x M: 2nKM at the reachable rate, plus its operands moved once."""
    smallest = minimum(tokens_per_micro_batch, minimum(inputs, outputs))
    flops = 2 * tokens_per_micro_batch * inputs * outputs
    moved = compute_bytes * (tokens_per_micro_batch * inputs + inputs * outputs + tokens_per_micro_batch * outputs)
    return flops / flops_rate * (1 + small_gemm / smallest) + moved / bandwidth


@formula(gives="seconds", source="Dao 2023 (arXiv 2307.08691): forward 2nTq causal, backward 2.5 x")
def attention_forward_seconds(tokens_per_micro_batch: Num, seq: Num, query_width: Num, flops_rate: Num) -> Num:
    """Causal flash attention of one block, forward: half of 4nTq FLOPs at the kernel's own rate."""
    return 2 * tokens_per_micro_batch * seq * query_width / flops_rate


@formula(gives="seconds", source="bytes per token and block of eager PyTorch: 66h + 15f for the reference block")
def elementwise_seconds(
    tokens_per_micro_batch: Num, hidden: Num, ffn: Num, gate_factor: Num, traffic_unit: Num, bandwidth: Num
) -> Num:
    """Norms, activation, residual sums and casts of one block, forward and backward."""
    return traffic_unit / 126 * (66 * hidden + 15 * ffn * gate_factor) * tokens_per_micro_batch / bandwidth


@formula(gives="seconds", source="definition")
def traffic_seconds(bytes: Num, bandwidth: Num) -> Num:
    """Bytes moved at a bandwidth."""
    return bytes / bandwidth


@formula(gives="seconds", source="host and device run side by side: fourth-power mean, between sum and maximum")
def with_host_seconds(compute_seconds: Num, host_seconds: Num) -> Num:
    """Device time where the host's launches may be the slower."""
    return (compute_seconds**4 + host_seconds**4) ** 0.25


@formula(gives="seconds", source="Patarasuk and Yuan 2009: a ring moves 2 (G - 1) / G of the buffer")
def all_reduce_seconds(bytes: Num, gpus: Num, bandwidth: Num) -> Num:
    """Ring all-reduce of a buffer among G GPUs, the slowest link's bandwidth."""
    return 2 * (gpus - 1) / gpus * bytes / bandwidth


@formula(gives="seconds", source="Li et al. 2020 (PyTorch DDP, arXiv 2006.15704): hidden behind the last backward")
def exposed_seconds(seconds: Num, compute_seconds: Num) -> Num:
    """Communication left over when 60 % of the last micro-batch's time hides it."""
    return maximum(0, seconds - 0.6 * compute_seconds)


@formula(gives="seconds", source="Patarasuk and Yuan 2009: a ring gathers or reduces (G - 1) / G of the buffer")
def gather_seconds(bytes: Num, gpus: Num, bandwidth: Num) -> Num:
    """Ring gather, or reduction to shards, of a buffer among G GPUs."""
    return (gpus - 1) / gpus * bytes / bandwidth


@formula(gives="seconds", source="Zhao et al. 2023 (PyTorch FSDP, arXiv 2304.11277): one block is gathered ahead")
def unhidden_seconds(seconds: Num, compute_seconds: Num, hidden_fraction: Num, exposed_fraction: Num) -> Num:
    """Communication not hidden: what exceeds a fraction of the computation's time, and a fraction that never hides."""
    return maximum(0, seconds - hidden_fraction * compute_seconds) + exposed_fraction * seconds


@formula(gives="seconds", source="definition: achieved FLOP/s in the 6 N D convention")
def seconds_from_rate(training_flops: Num, gpus: Num, flops_rate: Num) -> Num:
    """Wall-clock time from FLOPs and an achieved rate per GPU."""
    return training_flops / (gpus * flops_rate)


@formula(gives="mfu", source="Chowdhery et al. 2022 (arXiv 2204.02311), appendix B")
def utilisation(flops_per_token: Num, tokens_per_second: Num, gpus: Num, peak_flops_rate: Num) -> Num:
    """Share of the dense peak: MFU with model FLOPs, HFU with hardware FLOPs."""
    return flops_per_token * tokens_per_second / (gpus * peak_flops_rate)


_SUM = "sum of a step's parts: eager kernels do not overlap"


@formula(gives="seconds", source=_SUM)
def blocks_seconds(layers: Num, block_seconds: Num, passes: Num) -> Num:
    """All blocks: a block's forward time as often as forward, backward and recomputation are worth."""
    return layers * block_seconds * passes


@formula(gives="seconds", source=_SUM + "; a backward product is two of the forward's size")
def head_seconds(product_seconds: Num, logit_seconds: Num) -> Num:
    """The head's products, forward and backward, and the traffic of logits and loss."""
    return 3 * product_seconds + logit_seconds


@formula(gives="seconds", source="what the host's launches add to the device's time")
def launch_seconds(micro_seconds: Num, compute_seconds: Num) -> Num:
    """Time of one micro-batch that no kernel fills."""
    return micro_seconds - compute_seconds


@formula(gives="seconds", source=_SUM)
def micro_batches_seconds(part_seconds: Num, accumulation: Num) -> Num:
    """A part of one micro-batch, over all micro-batches of a step."""
    return part_seconds * accumulation


@formula(gives="seconds", source="slowest of many GPUs: 1.4 % per doubling beyond one node, found over published runs")
def straggler_seconds(step_seconds: Num, straggler_factor: Num) -> Num:
    """What waiting for the slowest adds to a step."""
    return step_seconds * (straggler_factor - 1)


@formula(gives="step_seconds", source="definition: the run's time in the 6 N D convention, shared among its tokens")
def step_seconds_from_rate(training_flops: Num, tokens_per_step: Num, tokens: Num, gpus: Num, flops_rate: Num) -> Num:
    """Time of one step from an achieved rate per GPU."""
    return seconds_from_rate(training_flops, gpus, flops_rate) * tokens_per_step / tokens


@formula(gives="step_seconds", source="definition of the throughput, solved for the time")
def step_seconds_from_tokens(tokens_per_step: Num, tokens_per_second: Num) -> Num:
    """Time of one step at a measured throughput of the whole run."""
    return tokens_per_step / tokens_per_second


@formula(gives="step_seconds", source="Chowdhery et al. 2022 (arXiv 2204.02311), appendix B, solved for the time")
def step_seconds_from_mfu(flops_per_step: Num, gpus: Num, mfu: Num, peak_flops_rate: Num) -> Num:
    """Time of one step at a given model FLOPs utilisation."""
    return flops_per_step / (gpus * (mfu * peak_flops_rate))


@formula(
    gives="step_seconds", source="interval: over one factor, for what the model leaves out; the peak is not beaten"
)
def quickest_step(step_seconds: Num, interval_width: Num, least_seconds: Num) -> Num:
    """Lower end of the interval of a step's time: not below the time at the card's dense peak."""
    return maximum(step_seconds / interval_width, least_seconds)


@formula(gives="step_seconds", source="interval: times and over one factor, which holds what the model leaves out")
def slowest_step(step_seconds: Num, interval_width: Num) -> Num:
    """Upper end of the interval of a step's time."""
    return step_seconds * interval_width


@formula(gives="tokens_per_second", source="definition")
def tokens_per_second(tokens_per_step: Num, step_seconds: Num) -> Num:
    """Throughput of the whole run."""
    return tokens_per_step / step_seconds


@formula(gives="tokens_per_second_per_gpu", source="definition")
def tokens_per_second_per_gpu(tokens_per_second: Num, gpus: Num) -> Num:
    """Throughput of each GPU."""
    return tokens_per_second / gpus


@formula(gives="seconds", source="definition; interruptions are not counted")
def run_seconds(tokens: Num, tokens_per_second: Num) -> Num:
    """Time of so many tokens at a steady speed."""
    return tokens / tokens_per_second
