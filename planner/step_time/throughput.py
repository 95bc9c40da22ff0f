"""The time account: seconds per step from a given rate, from a measured profile, or from the data sheet."""

from __future__ import annotations

from dataclasses import dataclass

from planner.config.run import RunConfig
from planner.counts.flops import Flops
from planner.counts.run import Resolved
from planner.counts.shape import Shape
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.interval import UNKNOWN, Interval, exactly
from planner.presets import Gpu
from planner.rules import roofline_of, rules
from planner.step_time.collectives import data_parallel_seconds
from planner.step_time.step_seconds import StepSeconds, sum_of_parts

MFU_CONVENTION = "model FLOPs (matrix products with the head, full attention, nothing recomputed) over the dense peak"


@dataclass(frozen=True, slots=True)
class Throughput:
    """Speed of the whole run; `basis` is given, profile or datasheet; None is unknown."""

    tokens_per_second: Interval[float]
    tokens_per_second_per_gpu: float | None
    step_seconds: Interval[float]
    mfu: Interval[float]
    hfu: float | None
    mfu_convention: str
    basis: str
    parts: dict[str, float]


NOT_PREDICTED = Throughput(UNKNOWN, None, UNKNOWN, UNKNOWN, None, MFU_CONVENTION, basis="unknown", parts={})


def throughput_of(run: Resolved, counted: Flops) -> Throughput:
    """Speed and utilisation; every number None where the hardware's own figures are unknown."""
    peak = peak_flops_rate(run)
    step = _step_seconds(run, counted, peak)
    if step is None:
        return NOT_PREDICTED
    gpus = run.config.hardware.gpus
    speed = step.seconds.map(lambda seconds: throughput.tokens_per_second(run.tokens_per_step, seconds))

    def used(per_token: int) -> Interval[float]:
        return speed.map(lambda rate: throughput.utilisation(per_token, rate, gpus, peak)) if peak else UNKNOWN

    return Throughput(
        tokens_per_second=speed,
        tokens_per_second_per_gpu=speed.map(lambda rate: throughput.tokens_per_second_per_gpu(rate, gpus)).value,
        step_seconds=step.seconds,
        mfu=used(counted.per_token_model),
        hfu=used(counted.per_token_hardware).value,
        mfu_convention=MFU_CONVENTION,
        basis=step.basis,
        parts=step.parts,
    )


def peak_flops_rate(run: Resolved) -> float | None:
    """Dense peak of the recipe's compute type, FLOP/s; None when the card has none or it is unknown."""
    found = run.gpu.peak_dense_flops.get(run.recipe.compute_dtype) if run.gpu else None
    return float(found) if found else None


def _step_seconds(run: Resolved, counted: Flops, peak: float | None) -> StepSeconds | None:
    config, gpu, tokens = run.config, run.gpu, run.tokens_per_step
    hardware = config.hardware
    if hardware.tflops is not None:
        work, requested = counted.training_6nd, run.requested_tokens
        seconds = throughput.step_seconds_from_rate(work, tokens, requested, hardware.gpus, hardware.tflops)
        return StepSeconds(exactly(seconds), "given", {})
    if hardware.mfu is not None:
        if peak is None:
            return None
        seconds = throughput.step_seconds_from_mfu(counted.per_step_model, hardware.gpus, hardware.mfu, peak)
        return StepSeconds(exactly(seconds), "given", {})
    if not is_priced(config):
        return None
    if config.profile is not None:
        from planner.step_time.kernels import step_seconds_from_profile  # its tables are needed with a profile only

        return step_seconds_from_profile(run, config.profile)
    if gpu is None or peak is None or gpu.memory_bandwidth is None:
        return None
    return _from_datasheet(run, gpu, peak, gpu.memory_bandwidth)


PRICED_MODEL = {
    "norm_placement": ("pre",),
    "qk_norm": ("none",),
    "embedding_norm": (False,),
    "residual": ("sequential",),
    "mlp": ("gelu", "swiglu"),
    "biases": ("none", "all"),
    "logit_softcap": (None,),
}


def is_priced(config: RunConfig) -> bool:
    """Whether the parts of a step that are timed, or taken from a data sheet, are those of this model and loop.

    A profile holds kernels of GPT-2-like and Llama-like blocks in the eager loop; the data sheet's roofline any dense
    block. Experts and latent attention are priced by neither.
    """
    model, t = config.model, config.training
    if model.moe is not None or model.mla is not None or t.runtime in ("compiled", "fused") or config.parallel.fsdp:
        return False
    if config.profile is None:
        return True
    plain = all(getattr(model, name) in allowed for name, allowed in PRICED_MODEL.items())
    tables = model.position in ("learned", "rotary") and model.sliding_window is None and model.rotary_dim is None
    loop = (t.runtime, t.attention_kernel, t.loss, t.dropout) == ("eager", "flash", "plain", 0.0)
    update = (config.optimizer.name, config.optimizer.implementation) == ("adamw", "fused")
    every = t.activation_checkpointing_every == 1 and t.activation_checkpointing != "offloaded"
    return plain and tables and loop and update and every and t.recipe in ("mixed-bf16", "fp32")


def _from_datasheet(run: Resolved, gpu: Gpu, peak: float, nominal_bandwidth: float) -> StepSeconds | None:
    """Roofline terms of the reference trainer's eager loop, added; data-parallel all-reduce where there are several."""
    s, t, c = run.shape, run.config.training, run.recipe.compute_bytes
    family, runtime = roofline_of(gpu.id), rules("roofline")["runtime"]["eager"]
    n, bandwidth = t.micro_batch * t.seq, nominal_bandwidth * family["bandwidth_share"]
    rate = peak * family["gemm_share"]

    def products(inputs: int, outputs: int) -> float:
        one = throughput.gemm_seconds(n, inputs, outputs, c, rate, bandwidth, runtime["small_gemm"])
        return float(one)

    into, out = products(s.hidden, s.query_width + 2 * s.key_width), products(s.query_width, s.hidden)
    block = throughput.block_product_seconds(
        into, out, products(s.hidden, s.ffn), products(s.ffn, s.hidden), s.mlp_matrices
    )
    core = real(
        throughput.attention_forward_seconds(n, t.seq, s.query_width, peak * family["attention_share"] * _aligned(s))
    )
    elementwise = throughput.elementwise_seconds(
        n, s.hidden, s.ffn, 1.6 if s.gated else 1.0, runtime["traffic_unit"], bandwidth
    )
    again = t.activation_checkpointing
    parts = {
        "matrix products": throughput.blocks_seconds(s.layers, block, 4 if again == "full" else 3),
        # forward 1, backward 2.5, recomputed 1
        "attention": throughput.blocks_seconds(s.layers, core, 3.5 + (again != "none")),
        "element-wise": throughput.blocks_seconds(s.layers, float(elementwise), 4 / 3 if again == "full" else 1),
        "head and loss": throughput.head_seconds(
            products(s.hidden, s.vocab),
            throughput.traffic_seconds(runtime["logit_bytes"] * n * s.vocab, bandwidth),
        ),
    }
    device = sum(parts.values())
    micro = real(throughput.with_host_seconds(device, s.layers * runtime["host_seconds"]))
    parts["launch overhead"] = throughput.launch_seconds(micro, device)
    parts = {name: real(throughput.micro_batches_seconds(part, t.accumulation)) for name, part in parts.items()}
    parts["optimizer"] = real(throughput.traffic_seconds(runtime["optimizer_bytes"] * run.parameters.total, bandwidth))
    shared = data_parallel_seconds(run, gpu, micro)
    if shared is None:
        return None
    parts["all-reduce"], straggling = shared
    parts["stragglers"] = real(throughput.straggler_seconds(sum(parts.values()), straggling))
    return sum_of_parts(parts, "datasheet", family["width"])


def _aligned(shape: Shape) -> float:
    """Share of the attention rate kept at this head dimension: kernels are built for multiples of 32 (and 8)."""
    if shape.head_dim % 8:
        return 0.5
    return 0.7 if shape.head_dim % 32 else 1.0
