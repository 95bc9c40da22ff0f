"""Seconds of the transformer blocks in one micro-batch: products, attention, element-wise kernels, offloading.

A product and attention have their seconds from rates, or from the tables of a profile. The matrices are those of
`counts.tensors`, so that a shape that has bytes has FLOPs. A matrix of N tokens runs forward once and backward twice;
a block that is recomputed runs forward once more.
"""

from __future__ import annotations

from planner.counts.attention import repeating_blocks
from planner.counts.flops import last_products
from planner.counts.ranks import held_tensors
from planner.counts.run import Resolved
from planner.counts.shape import blocks_with_rotary, has_window, recomputed_blocks
from planner.formulas import throughput
from planner.formulas.ops import maximum
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.kernel_calls import active_width
from planner.step_time.measured import attention_seconds_of, product_seconds_of
from planner.step_time.rates import ALIGNED, Rates


def recomputed_fraction(run: Resolved) -> float:
    """The fraction of blocks whose forward pass runs again in backward."""
    return recomputed_blocks(run.config.training, run.shape.layers) / run.shape.layers


def is_unaligned(run: Resolved, inputs: int, outputs: int) -> bool:
    """Whether a product takes kernels of another kind, because its width or its height is no multiple of 8."""
    # torch.compile pads operands to a multiple of 8 where that pays
    odd = bool(inputs % ALIGNED or outputs % ALIGNED) and run.config.training.runtime != "compiled"
    return odd and run.recipe.compute_dtype != "fp32"


def product_seconds(run: Resolved, rates: Rates, tokens: float, inputs: int, outputs: int, head: bool = False) -> float:
    """One product forward, slower where its width or its height is no multiple of 8."""
    rate = rates.head_flops if head else rates.block_flops
    if is_unaligned(run, inputs, outputs):
        rate *= rates.unaligned
    return real(
        throughput.gemm_seconds(tokens, inputs, outputs, run.recipe.compute_bytes, rate, rates.bandwidth, rates.small)
    )


def both_ways(
    run: Resolved, rates: Rates, tokens: float, inputs: int, outputs: int, times: float
) -> tuple[float, float]:
    """One product forward, and its two backward. times: how often a micro-batch has it."""
    if rates.measured is None:
        forward = product_seconds(run, rates, tokens, inputs, outputs)
        return forward, 2 * forward
    slower = 1 / rates.unaligned if is_unaligned(run, inputs, outputs) else 1.0  # the tables have whole multiples only
    forward, backward = product_seconds_of(run, rates.measured, tokens, inputs, outputs, times)
    return slower * forward, slower * backward


def products_seconds(run: Resolved, rates: Rates) -> float:
    """All matrix products of all blocks, forward and backward."""
    n, moe = run.config.training.micro_batch * run.config.training.seq, run.config.model.moe
    again = recomputed_fraction(run)
    # the trainer that a profile is of does not make a checkpointed block's last product again
    last = last_products(run.config) if rates.measured is not None else ()
    forward, backward, left_out = 0.0, 0.0, 0.0
    for tensor in held_tensors(run):
        if tensor.name.startswith(("embedding", "position", "head")):
            continue
        if len(tensor.shape) == 2:
            outputs, inputs = tensor.shape
            times, rows = tensor.times, n
        elif len(tensor.shape) == 3:
            assert moe is not None
            experts, inputs, outputs = tensor.shape
            times = tensor.times * experts
            rows = maximum(1.0, n * moe.top_k / experts * rules("time")["experts"]["imbalance"])
        else:
            continue
        there, back = both_ways(run, rates, rows, inputs, outputs, times)
        forward, backward = forward + times * there, backward + times * back
        if tensor.name.removesuffix(".weight") in last:
            left_out += times * there * again
    seconds = real(throughput.blocks_seconds(1, forward, 1 + backward / forward + again))
    return seconds - left_out if left_out else seconds


def attention_seconds(run: Resolved, rates: Rates) -> float:
    """Attention of all blocks, forward and backward; a flash kernel's forward 1, backward 2.5, recomputed 1."""
    s, t, model = run.shape, run.config.training, run.config.model
    n, width = t.micro_batch * t.seq, (s.query_width + s.value_width) / 2
    seq = t.seq * run.config.parallel.cp if run.rank else t.seq  # keys come from all GPUs of a ring
    again = recomputed_fraction(run) + (t.activation_checkpointing == "selective")
    rate = rates.attention_flops * head_width_share(s.head_dim)
    masks, seconds = rules("time")["masks"], 0.0
    window = model.sliding_window or model.attention_chunk
    with_windows = sum(has_window(model, block) for block in range(s.layers)) if window and window < seq else 0
    if t.attention_kernel == "math" or rates.software["attention"] == "math":
        scores = throughput.attention_forward_seconds(n, 2 * seq, width, rates.batched_flops)
        moved = throughput.traffic_seconds(rates.score_bytes * 1.0 * n * seq * s.heads, rates.bandwidth)
        return real(throughput.blocks_seconds(s.layers, real(scores), 3 + again)) + s.layers * real(moved) * (
            1 + again / 3
        )
    masked = model.position == "alibi" or (t.document_masking and t.attention_kernel != "flex")
    for blocks, seen in ((with_windows, True), (s.layers - with_windows, False)):
        if not blocks:
            continue
        slower = masks["full_scores"] if masked or seen else 1.0
        # the memory-efficient kernel; a mask is taken to cost cuDNN's as much
        slower /= masks["kernel_share"] if masked or seen or t.attention_kernel == "efficient" else 1.0
        if rates.measured is None:
            forward, backward = real(throughput.attention_forward_seconds(n, seq, width, rate / slower)), 2.5
        else:
            there, back = attention_seconds_of(run, rates.measured, slower * seq / t.seq)
            forward, backward = there, back / there
        seconds += real(throughput.blocks_seconds(blocks, forward, 1 + backward + again))
    return seconds + _repeated_seconds(run, rates, again)


def _repeated_seconds(run: Resolved, rates: Rates, again: float) -> float:
    """Keys and values repeated for all query heads: read and written in forward, their gradients summed in backward."""
    s, t = run.shape, run.config.training
    moved = 2.0 * (s.key_width + s.query_width) * run.recipe.compute_bytes * t.micro_batch * t.seq
    return real(throughput.traffic_seconds(moved * repeating_blocks(run), rates.bandwidth)) * (2 + again)


def head_width_share(head_dim: int) -> float:
    """Fraction of the attention rate kept at this head width: kernels are built for multiples of 32 (and 8)."""
    if head_dim % 8:
        return 0.5
    return 0.7 if head_dim % 32 else 1.0


def block_traffic_seconds(run: Resolved, rates: Rates) -> float:
    """Norms, activation, residual sums, casts, rotary embedding and dropout of all blocks, both ways.

    With a profile only what its kernels do not hold: `kernel_calls.py` has those.
    """
    s, t = run.shape, run.config.training
    n = t.micro_batch * t.seq
    unit = rates.software["traffic_unit"] * rates.runtime["traffic"]
    gate = 1.6 if s.gated else 1.0
    more = _option_bytes(run, rates)
    if rates.measured is None:
        parts, width = _stream_parts(run), active_width(run)
        block = real(throughput.elementwise_seconds(n, s.hidden / parts, width, gate, unit, rates.bandwidth))
        more += _norm_and_rotary_bytes(run, rates)
    else:
        block = 0.0
    block += real(throughput.traffic_seconds(more, rates.bandwidth))
    # the forward pass has a third of the traffic
    return real(throughput.blocks_seconds(s.layers, block, 1 + recomputed_fraction(run) / 3))


def _norm_and_rotary_bytes(run: Resolved, rates: Rates) -> float:
    """Bytes of one block's norms beside the usual two, and of rotary embedding."""
    s, t, model = run.shape, run.config.training, run.config.model
    n, unit = t.micro_batch * t.seq, rates.software["traffic_unit"] * rates.runtime["traffic"]
    more: float = rates.runtime["rotary_bytes"] * n * _turned_channels(run)
    if model.qk_norm != "none":  # as much for each channel as for one of a norm of the stream
        more += unit / 126 * 16 * n * (s.query_width + s.key_width)
    if model.norm_placement == "both":
        more += unit / 126 * 16 * n * 2 * s.hidden
    return more


def _option_bytes(run: Resolved, rates: Rates) -> float:
    """Bytes of one block that options add to those of every model's kernels."""
    s, t, model = run.shape, run.config.training, run.config.model
    n, width, more = t.micro_batch * t.seq, active_width(run), 0.0
    if model.mlp == "gelu-written-out":
        more += rates.runtime["gelu_bytes"] * n * width
    if model.mlp == "relu2":
        more += rates.runtime["square_bytes"] * n * width
    if t.dropout:
        more += rates.runtime["dropout_bytes"] * n * 2 * s.hidden
    if model.moe is not None and (model.moe.has_balancing_loss or model.moe.balancing == "bias"):
        routed = (s.layers - s.dense_layers) / s.layers
        each = rules("time")["experts"]["balance_bytes" if model.moe.has_balancing_loss else "bias_bytes"]
        more += each * n * model.moe.experts * routed
    if run.recipe.compute_dtype == "fp8":
        more += rules("time")["products"]["fp8_cast_bytes"] * n * (4 * s.hidden + (s.mlp_matrices - 1) * width)
    return more


def _turned_channels(run: Resolved) -> float:
    """Channels of queries and keys per token and block, on average, that rotary embedding turns."""
    s, model = run.shape, run.config.model
    turned = blocks_with_rotary(model) / s.layers
    # the keys of latent attention share one head of turned channels
    return turned * model.rope_dim * (s.heads + (1 if model.mla else s.kv_heads))


def _stream_parts(run: Resolved) -> int:
    """GPUs that share the residual stream by token."""
    p = run.config.parallel
    return p.tp if p.sp and run.rank else 1


def offload_seconds(run: Resolved, rates: Rates) -> float:
    """Inputs of the recomputed blocks to the host's memory and back."""
    t = run.config.training
    if t.activation_checkpointing != "offloaded":
        return 0.0
    itemsize = (
        run.recipe.compute_bytes if run.config.parallel.shards_weights else run.recipe.weights_bytes_per_parameter
    )
    moved = 2.0 * t.micro_batch * t.seq * run.shape.hidden * itemsize
    return real(throughput.traffic_seconds(moved * run.shape.layers * recomputed_fraction(run), rates.host_link))
