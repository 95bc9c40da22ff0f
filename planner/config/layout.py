"""Which layouts a model, a batch and a number of GPUs allow: what does not divide is refused with the nearest valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from planner.units import format_count_exact as spell

if TYPE_CHECKING:
    from planner.config.parallel import ParallelConfig
    from planner.config.run import RunConfig


class LayoutError(ValueError):
    """A layout that a config does not allow. remedy: what to type; "": another value of the keys that are named.

    left_out: for a search, what would allow such layouts; "" where nothing would.
    """

    def __init__(self, message: str, remedy: str = "", left_out: str = "") -> None:
        super().__init__(message)
        self.remedy, self.left_out = remedy, left_out


def refuse_layout(config: RunConfig, whole_matrices: tuple[str, ...]) -> None:
    """Raises LayoutError with the first reason why a config has no such layout.

    whole_matrices: optimizers whose update needs whole matrices.
    """
    wrong = layout_problem(config, whole_matrices)
    if wrong is not None:
        raise wrong


def layout_problem(config: RunConfig, whole_matrices: tuple[str, ...]) -> LayoutError | None:
    """The first reason why a config has no such layout; None where it has. Arguments as those of `refuse_layout`."""
    wrong = next(_problems(config, whole_matrices), None)
    return LayoutError(wrong) if isinstance(wrong, str) else wrong


def divisors_near(number: int, wanted: int) -> str:
    """The divisors of a number just below and above a degree that is none, in words."""
    below = next((d for d in range(min(wanted, number), 0, -1) if number % d == 0), 1)
    above = next((d for d in range(wanted, number + 1) if number % d == 0), None)
    return f"{below}" if above is None else f"{below} or {above}"


def _problems(config: RunConfig, whole_matrices: tuple[str, ...]) -> Iterator[str | LayoutError]:
    yield from _of_gpus(config, whole_matrices)
    if config.parallel.is_data_parallel:
        return
    yield from _of_tensors(config, whole_matrices)
    yield from _of_sequences(config)
    yield from _of_stages(config)
    yield from _of_experts(config)


def _of_gpus(config: RunConfig, whole_matrices: tuple[str, ...]) -> Iterator[str | LayoutError]:
    p, gpus, name = config.parallel, config.hardware.gpus, config.optimizer.name
    if gpus % p.gpus_per_replica:
        each = p.gpus_per_replica
        near = " or ".join(str(n) for n in (gpus // each * each, (gpus // each + 1) * each) if n)
        yield (
            f"gpus ({gpus}) is not divisible by tp x pp x cp = {p.tp} x {p.pp} x {p.cp} = {each}: "
            f"every replica has as many; nearest gpus: {near}"
        )
        return
    replicas = gpus // (p.tp * p.pp)
    way = "fsdp = true" if p.fsdp else f"zero = {p.zero}" if p.zero else f"tp = {p.tp}"
    if (p.fsdp or p.zero) and replicas == 1:
        alone = "on 1 GPU" if gpus == 1 and p.fsdp else "with 1 replica"
        yield f"{way} {alone}, gpus = {gpus}: there is nobody to share with; give more gpus, or leave it out"
    if p.hsdp is not None and (replicas % p.hsdp or p.hsdp == 1):
        near = divisors_near(replicas, max(p.hsdp, 2))
        yield f"hsdp ({p.hsdp}) is no group of the {replicas} GPUs that share weights: nearest hsdp: {near}"
    if name in whole_matrices and (p.fsdp or p.zero or p.tp > 1):
        shared = "fsdp" if p.fsdp else "zero" if p.zero else "tp"
        yield LayoutError(
            f'{way} beside name = "{name}": its update needs whole matrices, which no GPU has',
            f"leave out --{shared}: {name} runs with replicas (DDP) and --pp; or give --optimizer adamw",
        )


def _of_tensors(config: RunConfig, whole_matrices: tuple[str, ...]) -> Iterator[str | LayoutError]:
    tp, model, t = config.parallel.tp, config.model, config.training
    if tp == 1:
        return
    sides = {"heads": model.heads, "ffn": model.ffn, "vocab": model.vocab}
    if model.moe is not None:
        sides |= {"expert_ffn": model.moe.expert_ffn, "shared_ffn": model.moe.shared_ffn}
    for name, side in sides.items():
        if side % tp:
            padded = name == "vocab"
            more = f", or vocab {-(-side // tp) * tp}" if padded else ""
            yield LayoutError(
                f"tp ({tp}) does not divide {name} ({side}): nearest tp: {divisors_near(side, tp)}{more}",
                f"give --pad-vocab {tp} (128 is usual), or another tp (--tp)" if padded else "",
                f"tp does not divide the vocabulary of {side:,}: give --pad-vocab 128" if padded else "",
            )
    if model.mla is None and model.kv_heads % tp and tp % model.kv_heads:
        near = divisors_near(model.kv_heads, tp)
        yield f"tp ({tp}) and kv_heads ({model.kv_heads}): neither divides the other; nearest tp: {near}"
    if model.qk_norm == "full":
        yield f'qk_norm = "full" with tp = {tp}: a norm over heads on several GPUs is not counted'
    if config.parallel.sp and t.seq % (tp * config.parallel.cp):
        each = tp * config.parallel.cp
        yield f"sp = true needs seq ({t.seq}) divisible by tp x cp = {each}: nearest seq: {_multiples(t.seq, each)}"


def _multiples(number: int, of: int) -> str:
    return " or ".join(str(n) for n in (number // of * of, -(-number // of) * of) if n)


def _of_sequences(config: RunConfig) -> Iterator[str]:
    cp, model, t = config.parallel.cp, config.model, config.training
    if cp == 1:
        return
    if t.seq % (2 * cp):
        near = _multiples(t.seq, 2 * cp)
        yield f"cp ({cp}) does not cut seq ({t.seq}) into 2 x {cp} equal pieces: nearest seq: {near}"
    if t.attention_kernel != "flash":
        yield f'attention_kernel = "{t.attention_kernel}" with cp = {cp}: a ring of keys is counted with flash only'
    missing = {
        "document_masking = true": t.document_masking,
        "sliding_window": model.sliding_window is not None,
        "attention_chunk": model.attention_chunk is not None,
        'position = "alibi"': model.position == "alibi",
        "mla": model.mla is not None,
    }
    for name in (name for name, there in missing.items() if there):
        yield f"{name} with cp = {cp}: a ring of keys with it is not counted"


def _of_stages(config: RunConfig) -> Iterator[str]:
    p, layers = config.parallel, config.model.layers
    if p.pp == 1:
        return
    # embedding and head may stand in chunks of their own, as in Llama 3 405B (arXiv 2407.21783, section 3.3.2)
    if p.pp * p.interleave > layers + 2 or (p.interleave == 1 and p.pp > layers):
        most = layers // p.interleave if p.interleave == 1 else (layers + 2) // p.interleave
        yield f"pp x interleave = {p.pp} x {p.interleave} is above layers ({layers}): nearest pp: {max(1, most)}"


def _of_experts(config: RunConfig) -> Iterator[str]:
    p, moe = config.parallel, config.model.moe
    if p.ep == 1:
        return
    if moe is None:
        yield f"ep = {p.ep} without experts: a dense model has nothing to share so"
        return
    if moe.experts % p.ep:
        yield f"ep ({p.ep}) does not divide experts ({moe.experts}): nearest ep: {divisors_near(moe.experts, p.ep)}"
    replicas = config.hardware.gpus // (p.tp * p.pp)
    if replicas % p.ep:
        near = divisors_near(replicas, p.ep)
        yield f"ep ({p.ep}) does not divide dp x cp ({replicas}), whose GPUs share the experts: nearest ep: {near}"


def batch_problem(config: RunConfig) -> tuple[str, str, str] | None:
    """What is wrong with the micro-batches of a step for the pipeline's schedule, why, the remedy; None: nothing."""
    return micro_batches_problem(config.parallel, config.training.accumulation)


def micro_batches_problem(p: ParallelConfig, micro_batches: int) -> tuple[str, str, str] | None:
    """What is wrong with so many micro-batches of a step for the schedule, why, the remedy; None: nothing."""
    if p.pp_schedule == "interleaved" and micro_batches % p.pp:
        near = _multiples(micro_batches, p.pp)
        what = f"--accumulation: {micro_batches} micro-batches are not divisible by --pp {p.pp}"
        return what, "an interleaved schedule runs as many as there are stages in turn", f"give --accumulation {near}"
    if p.pp_schedule == "dualpipe" and (micro_batches < 2 * p.pp or micro_batches % 2):
        least = max(2 * p.pp, micro_batches + micro_batches % 2)
        what = f"--accumulation: {micro_batches} micro-batches are too few, or odd, for dualpipe with --pp {p.pp}"
        return what, "each of its two directions needs one for every stage", f"give --accumulation {least}"
    return None


def layout_in_words(config: RunConfig) -> str:
    """A layout in one line, such as "tp 8 with sp, pp 4 x 2 interleaved, dp 16 ZeRO-1"; "" of one GPU."""
    p = config.parallel
    if config.hardware.gpus == 1:
        return ""
    parts = []
    if p.tp > 1:
        parts.append(f"tp {p.tp}{' with sp' if p.sp else ''}")
    if p.pp > 1:
        parts.append(f"pp {p.pp}{f' x {p.interleave} chunks' if p.interleave > 1 else ''}, {p.pp_schedule}")
    parts += [f"{name} {size}" for name, size in (("cp", p.cp), ("ep", p.ep)) if size > 1]
    sharing = "FSDP2" if p.fsdp else f"ZeRO-{p.zero}" if p.zero else "DDP"
    groups = f" in groups of {p.hsdp}" if p.hsdp else ""
    return ", ".join([*parts, f"dp {spell(config.data_parallel)} {sharing}{groups}"])


def layout_in_full(config: RunConfig) -> str:
    """As `layout_in_words`, with what stays gathered, bucket views, loss and compilation where they are not usual."""
    p, loss = config.parallel, config.training.loss
    parts = [layout_in_words(config) or "one GPU"]
    parts += ["not resharded"] if not p.reshard else []
    parts += ["bucket view"] if p.ddp_bucket_view else []
    parts += [f"{loss} loss"] if loss != "plain" else []
    return ", ".join([*parts, "compiled"] if config.training.runtime == "compiled" else parts)
