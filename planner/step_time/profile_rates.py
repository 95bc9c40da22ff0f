"""The rates of a run from a measured profile, and the time of its step: the same model as from a data sheet.

Products, attention and element-wise kernels have their times from the tables, at their sizes. What no table has, such
as written-out attention or another optimizer, is its FLOPs or bytes at the rates that the tables show. Links between
GPUs are those of the data sheet.
"""

from __future__ import annotations

from planner import presets
from planner.config.run import CPU, RunConfig
from planner.counts.attention import unknown_speed
from planner.counts.run import Resolved
from planner.formulas.itemsize import FP32
from planner.rules import rules
from planner.step_time.kernel_tables import LAUNCH, Tables
from planner.step_time.measured import Measured, kind_of
from planner.step_time.rates import Rates, family_of, host_link_of, tables_of
from planner.step_time.step_parts import parts_of_step
from planner.step_time.step_seconds import StepSeconds, sum_of_parts

# What a sum of kernels leaves out (caches warm or cold, memory handed back and taken again). Measured:
# benchmarks/cpu_profile.py; 0.10 is the agreement asked of it.
MODEL_ERROR = 0.10
# Of what no table has: constants of another machine, applied to this one's rates. The width that published rows of
# cards without measurements have.
UNTIMED_ERROR = 0.5
# of these a step has work of a thousand sizes
SCALED = (
    "gemm_forward", "gemm_input_gradient", "gemm_weight_gradient", "attention_forward", "attention_backward",
)  # fmt: skip
UPDATED_BYTES = 3 * FP32  # that an addition of two tensors into a third reads and writes for an element


def not_timed(config: RunConfig) -> str:
    """Why a measured profile gives no step; "" if it does. Its tables are in fp32 and bf16, of one device."""

    kind = presets.recipe(config.training.recipe).compute_dtype
    on_gpu = config.hardware.gpu != CPU
    missing = ""
    if kind not in ("fp32", "bf16"):
        missing = f"has no kernels for the recipe {config.training.recipe}"
    elif config.hardware.gpus > 1 and not on_gpu:
        missing = "has no links between several processors"
    elif on_gpu and not _has_launches(config.profile or {}):
        missing = "is of an older version, whose small kernels hold the host's launches"
    elif on_gpu:  # a processor's that is cut short has an unknown noise, and is not kept
        missing = _cut_short(config.profile or {}, kind)
    return f"the measured profile {missing}" if missing else ""


def _has_launches(profile: dict[str, object]) -> bool:
    kernels = profile.get("kernels")
    return not isinstance(kernels, dict) or LAUNCH[0] in kernels


def _cut_short(profile: dict[str, object], kind: str) -> str:
    """Which kernel that a step is made of was timed at one size, from which all others would be scaled; "" if none."""
    kernels = profile.get("kernels")
    for name in SCALED:
        kinds = kernels.get(name) if isinstance(kernels, dict) else None
        rows = kinds.get(kind) if isinstance(kinds, dict) else None
        if isinstance(rows, list) and len(rows) == 1:
            return f"was cut short: {name} in {kind} was timed at one size"
    return ""


def step_seconds_from_profile(run: Resolved, profile: dict[str, object]) -> StepSeconds | str:
    """Seconds of one optimizer step on the device that the profile was measured on, or why they are unknown.

    The interval holds the noise seen while measuring, a stated error of the model, more the further the sizes lie
    beyond those timed, and more for the fraction of the step that no table has. Raises ConfigError for a profile that
    cannot be used.
    """
    tables = Tables(profile)
    rates = measured_rates(run, tables)
    if isinstance(rates, str):
        return rates
    parts = parts_of_step(run, rates)
    if isinstance(parts, str):
        return parts
    assert rates.measured is not None
    guessed = untimed_parts(run) | rates.measured.guessed
    untimed = sum(seconds for part, seconds in parts.items() if part in guessed) / sum(parts.values())
    width = 1 + tables.noise + MODEL_ERROR + rates.measured.doubt + UNTIMED_ERROR * untimed
    return sum_of_parts(parts, "profile", width)


def measured_rates(run: Resolved, tables: Tables) -> Rates | str:
    """The rates that a profile shows at the sizes of a run: of its MLP's products, of a sum over its residual stream.

    In words why there are none, for an attention kernel whose speed nobody measured on this card.
    """
    untimed = unknown_speed(run.config.training, run.gpu) if run.gpu is not None else ""
    if untimed:
        return untimed
    measured = Measured(tables, run.gpu is not None)
    table, (software, runtime) = rules("time"), tables_of(run.config)
    s, n, kind = run.shape, run.config.training.micro_batch * run.config.training.seq, kind_of(run)
    product = tables["gemm_forward", kind].read((n, s.hidden, s.ffn)).seconds
    stream = n * s.hidden
    flops = 2 * stream * s.ffn / product
    family = family_of(run.gpu.id) if run.gpu else table["any"]
    return Rates(
        peak=_peak_of(run) or flops,
        block_flops=flops,
        head_flops=flops,
        attention_flops=flops,
        batched_flops=flops * table["products"]["batched"],
        unaligned=family["unaligned"] if run.gpu else 1.0,
        bandwidth=UPDATED_BYTES * stream / tables["add", "fp32"].read((stream,)).seconds,
        link=run.gpu.link_bandwidth * family["link"] if run.gpu and run.gpu.link_bandwidth else None,
        network=family["network"],
        host_link=(
            host_link_of(run.gpu, family) * table["offload"]["link_share"]
            if run.gpu
            else table["run"]["disk"]["memory_copy"]
        ),
        width=1 + tables.noise + MODEL_ERROR,
        score_bytes=runtime["score_bytes"] * (0.6 if kind == "fp32" else 1.0),
        small=0.0,
        software=software,
        runtime=runtime,
        measured=measured,
    )


def _peak_of(run: Resolved) -> float | None:
    return run.gpu.peak_dense_flops.get(run.recipe.compute_dtype) if run.gpu else None


def untimed_parts(run: Resolved) -> set[str]:
    """Parts of a step whose kernels are in no table of a profile, so that other machines' constants give them."""
    t, optimizer, model = run.config.training, run.config.optimizer, run.config.model
    found = {"element-wise", "offloading", "stage transfers", "pipeline bubble", "stragglers"}
    found |= {"all-reduce", "sharding", "tensor parallel", "context parallel", "expert parallel"}
    if t.runtime not in ("eager", "autocast"):
        found |= {"norms", "activations", "casts", "residual and copies", "launch overhead", "head and loss"}
    if run.gpu is not None:  # a count of kernels, where the host has other work too
        found.add("launch overhead")
    if t.loss != "plain":
        found.add("head and loss")
    masked = t.document_masking or model.position == "alibi" or model.sliding_window or model.attention_chunk
    if t.attention_kernel == "math" or masked:
        found.add("attention")
    if (optimizer.name, optimizer.implementation) != ("adamw", "fused"):
        found.add("optimizer")
    return found
