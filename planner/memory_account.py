"""The memory account of one device: state, activations by operator, peak of every phase, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass

from planner import activations, memory
from planner.config import RunConfig
from planner.counts import nominal_parameters, parameters_of
from planner.presets import Gpu
from planner.rules import roofline_of, rules
from planner.shape import Shape, recipe_of, shape_of
from planner.tape import COMPONENTS, Ledger, Peak
from planner.walk import walk_micro_batch
from planner.walk_forward import FP32, INDEX, Step

MOMENTS_BYTES = 2 * FP32  # AdamW: two fp32 moments per parameter
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Phase:
    """Peak of one phase, bytes, with the components alive at that moment (they sum to it)."""

    phase: str
    peak_bytes: int
    at_peak: dict[str, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes per device. A component's own line is its own maximum; `at_peak` sums to `peak_requested_bytes`."""

    rule_14_bytes: int
    weights_bytes: int
    master_weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    temporary_bytes: int
    saved_bytes: int
    saved_by_operator: dict[str, int]
    peak_requested_bytes: int
    peak_allocated_bytes: int | None
    peak_allocated_bytes_low: int | None
    peak_allocated_bytes_high: int | None
    peak_reserved_bytes: int | None
    device_used_bytes: int | None
    usable_bytes: int | None
    fits: bool | None
    fits_by: str
    peak_phase: str
    at_peak: dict[str, int]
    phases: tuple[Phase, ...]
    checkpoint_bytes: int


def memory_of(config: RunConfig, gpu: Gpu | None) -> Memory:
    """The account of `config` on `gpu`; None stands for this machine's processor.

    Activation bytes are those of the reference trainer's eager loop (its model is the definition of "exact").
    """
    shape = shape_of(config.model)
    counts = parameters_of(config.model)
    recipe = recipe_of(config)
    phases, largest = _phases(config, shape)
    peak = max(phases, key=lambda p: p.peak_bytes)
    saved = saved_by_operator(config, shape)
    allocator = _beyond_tensors(peak.peak_bytes, config.hardware.gpu) if gpu else _NOTHING_BEYOND
    usable = gpu.usable_bytes if gpu else _host_memory(config)
    need = allocator.needed if gpu else peak.peak_bytes
    return Memory(
        rule_14_bytes=int(memory.rule_14_bytes(nominal_parameters(config.model))),
        weights_bytes=int(memory.weights_bytes(counts.total, recipe.weights_bytes_per_parameter)),
        master_weights_bytes=int(memory.master_weights_bytes(counts.total, recipe.master_weights_bytes_per_parameter)),
        gradients_bytes=int(memory.gradients_bytes(counts.total, recipe.gradients_bytes_per_parameter)),
        optimizer_bytes=int(memory.optimizer_bytes(counts.total, MOMENTS_BYTES)) + FP32 * counts.tensors,
        activations_bytes=largest["activations"],
        logits_bytes=largest["logits"],
        temporary_bytes=largest["temporary"],
        saved_bytes=sum(saved.values()),
        saved_by_operator=saved,
        peak_requested_bytes=peak.peak_bytes,
        peak_allocated_bytes=allocator.allocated,
        peak_allocated_bytes_low=allocator.allocated_low,
        peak_allocated_bytes_high=allocator.allocated_high,
        peak_reserved_bytes=allocator.reserved,
        device_used_bytes=allocator.device,
        usable_bytes=usable,
        fits=None if usable is None or need is None else need <= usable,
        fits_by="peak_allocated_bytes + CUDA context <= usable_bytes"
        if gpu
        else "peak_requested_bytes <= usable_bytes",
        peak_phase=peak.phase,
        at_peak=peak.at_peak,
        phases=tuple(phases),
        checkpoint_bytes=int(memory.checkpoint_bytes(counts.total, MOMENTS_BYTES, counts.tensors)),
    )


def saved_by_operator(config: RunConfig, shape: Shape) -> dict[str, int]:
    """What autograd keeps for backward in one micro-batch, bytes by operator; block lines hold all blocks."""
    a, s, t = activations, shape, config.training
    recipe = recipe_of(config)
    n, c, cast = t.micro_batch * t.seq, recipe.compute_bytes, recipe.weight_casts_bytes_per_linear_weight
    norm = a.saved_by_norm(n, s.hidden, recipe.residual_bytes, s.stat_vectors)
    lines = {"embedding": a.saved_by_embedding(n)}
    if s.learned_positions:
        lines["position"] = a.saved_by_positions(t.seq, 1)
    if t.activation_checkpointing == "full":
        lines["blocks"] = s.layers * a.saved_by_checkpointed_block(n, s.hidden, recipe.residual_bytes)
    else:
        width = s.query_width + 2 * s.key_width
        block = {
            "attention_norm": norm,
            "attention.qkv": a.saved_by_linear(n, s.hidden, width, c, cast),
            "attention": a.saved_by_attention(n, s.query_width, s.key_width, s.heads, s.rotary_factor, c),
            "attention.proj": a.saved_weight_cast(s.query_width, s.hidden, cast),
            "mlp_norm": norm,
        }
        if t.activation_checkpointing == "selective":
            block["attention"] = a.saved_by_recomputed_attention(n, s.query_width, s.key_width, c)
            block["attention.proj"] = a.saved_by_linear(n, s.query_width, s.hidden, c, cast)
        first = "mlp.gate" if s.gated else "mlp.up"
        block[first] = a.saved_by_linear(n, s.hidden, s.ffn, c, cast)
        if s.gated:
            block["mlp.up"] = a.saved_weight_cast(s.hidden, s.ffn, cast)
        block["mlp"] = a.saved_by_swiglu(n, s.ffn, c) if s.gated else a.saved_by_gelu(n, s.ffn, c)
        block["mlp.down"] = a.saved_by_linear(n, s.ffn, s.hidden, c, cast)
        lines |= {f"blocks.{name}": s.layers * size for name, size in block.items()}
    lines["norm"] = norm
    lines["head"] = a.saved_by_linear(n, s.hidden, s.vocab, c, cast)
    lines["loss"] = a.saved_by_loss(n, s.vocab)
    # where nothing is cast, a linear layer's weight is a parameter and no line of its own
    return {name: int(size) for name, size in lines.items() if size}


def _phases(config: RunConfig, shape: Shape) -> tuple[list[Phase], dict[str, int]]:
    """Peaks of every phase of a run, in order, and each component's own maximum."""
    t, counts = config.training, parameters_of(config.model)
    recipe = recipe_of(config)
    n = t.micro_batch * t.seq
    weights = counts.total * recipe.weights_bytes_per_parameter
    gradients = counts.total * recipe.gradients_bytes_per_parameter
    moments = counts.total * MOMENTS_BYTES + FP32 * counts.tensors
    inputs = 2 * INDEX * n + shape.rotary_factor * FP32 * t.seq * shape.head_dim  # ids, targets; cos and sin tables
    # clipping: a norm per tensor, stacked, and the norm of them all
    norms = FP32 * (2 * counts.tensors + 1) if config.optimizer.clip_norm is not None else 0

    ledger = Ledger()
    ledger.phase("init")
    ledger.new("weights", weights)
    ledger.new("activations", inputs)
    ledger.phase("first_optimizer_step")
    made = ledger.new("gradients", gradients)
    ledger.free(ledger.new("temporary", norms))  # clipping comes before the moments appear
    ledger.new("optimizer", moments)
    ledger.free(made)
    with_gradients = (False, True) if t.accumulation > 1 else (False,)
    for exist in with_gradients:
        if exist:
            ledger.new("gradients", gradients - ledger.live["gradients"])
        step = Step(shape, n, t.seq, recipe.compute_bytes, t.activation_checkpointing, exist)
        walk_micro_batch(step, ledger)
    ledger.phase("optimizer_step")
    ledger.new("temporary", norms)
    return [_phase(p) for p in _highest(ledger.phases)], ledger.largest


def _highest(peaks: list[Peak]) -> list[Peak]:
    """One peak per phase name, the highest, in order of first appearance."""
    best: dict[str, Peak] = {}
    for peak in peaks:
        if peak.phase not in best or peak.bytes > best[peak.phase].bytes:
            best[peak.phase] = peak
    return list(best.values())


def _phase(peak: Peak) -> Phase:
    assert sum(peak.components[c] for c in COMPONENTS) == peak.bytes
    return Phase(peak.phase, peak.bytes, peak.components)


@dataclass(frozen=True, slots=True)
class _Beyond:
    """What the device holds beyond the requested bytes of tensors."""

    allocated: int | None = None
    allocated_low: int | None = None
    allocated_high: int | None = None
    reserved: int | None = None
    device: int | None = None
    needed: int | None = None


_NOTHING_BEYOND = _Beyond()


def _beyond_tensors(requested: int, gpu: str) -> _Beyond:
    """Allocated, reserved and device bytes: workspaces and allocator slack, by rule, not yet by simulation."""
    rule = rules("roofline")["memory"]
    workspace = rule["workspace_handles"] * roofline_of(gpu)["workspace_bytes"]
    allocated = round(requested * rule["rounding"]) + workspace
    return _Beyond(
        allocated=allocated,
        allocated_low=requested,
        allocated_high=round(requested * rule["rounding_high"]) + workspace,
        reserved=round(allocated * rule["reserve"]),
        device=round(allocated * rule["reserve"]) + rule["context_bytes"],
        needed=allocated + rule["context_bytes"],
    )


def _host_memory(config: RunConfig) -> int | None:
    """Memory of this machine, from its profile; None without one."""
    found = (config.profile or {}).get("memory_bytes")
    return found if isinstance(found, int) else None
