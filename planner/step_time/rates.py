"""The constants of a run's step time: what its card and its software generation reach, from presets/rules/time.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.config.run import RunConfig
from planner.counts.attention import unknown_speed
from planner.counts.run import Resolved
from planner.presets import Gpu
from planner.rules import rules
from planner.step_time.measured import Measured

ALIGNED = 8  # elements: a matmul kernel for tensor cores reads 16 bytes at a time
WIDE = ("fp32", "tf32")  # nothing is cast: of the traffic of narrow scores, that of the casts is missing
ANY = "all"  # the key of a share that holds for all generations without one of their own


@dataclass(frozen=True, slots=True)
class Rates:
    """Reachable rates of one GPU: FLOP/s of the dense peak, of block products, of the head's, of attention, of the
    batched products of written-out attention; byte/s of memory, of the link between GPUs, of the network per GPU, of
    the bus to the host. unaligned: fraction of a product's rate that stays where its width is no multiple of 8. width:
    factor of the interval. score_bytes: traffic of a score that is stored. small: smallest dimension at which a product
    has half its rate. software, runtime: tables as in the file. measured: the profile that the rates come from, whose
    tables have times of single kernels; None with a data sheet's."""

    peak: float
    block_flops: float
    head_flops: float
    attention_flops: float
    batched_flops: float
    unaligned: float
    bandwidth: float
    link: float | None
    network: float
    host_link: float
    width: float
    score_bytes: float
    small: float
    software: Mapping[str, Any]
    runtime: Mapping[str, Any]
    measured: Measured | None = None


def family_of(gpu_id: str) -> dict[str, Any]:
    """The constants of a card's family; of a card that no family names those for any."""
    table = rules("time")
    return dict(next((family for family in table["family"] if gpu_id in family["gpus"]), table["any"]))


def rates_of(run: Resolved) -> Rates | str:
    """The rates of a run on its GPU; the reason in words where a number of its data sheet is missing."""
    gpu, table = run.gpu, rules("time")
    assert gpu is not None, "a processor has no data sheet here"
    untimed = unknown_speed(run.config.training, gpu)
    if untimed:
        return untimed
    kind, generation = run.recipe.compute_dtype, run.config.hardware.software
    narrow = "bf16" if kind == "fp8" else kind  # what fp8 recipes leave in bf16: attention and the head
    peak, other = gpu.peak_dense_flops.get(kind), gpu.peak_dense_flops.get(narrow)
    if not peak or not other:
        return f"the data sheet of {gpu.id} has no peak in {kind}"
    if gpu.memory_bandwidth is None:
        return f"the data sheet of {gpu.id} has no memory bandwidth"
    family = family_of(gpu.id)
    software, runtime = tables_of(run.config)
    gemm = table["products"]["fp32_share"] if kind == "fp32" else _share(family["gemm"], generation)
    return Rates(
        peak=peak,
        block_flops=peak * gemm,
        head_flops=other * gemm,
        attention_flops=other * _attention_share(family, generation, kind),
        batched_flops=_batched_flops(run, gpu, other * gemm, family["unaligned"]),
        unaligned=family["unaligned"],
        bandwidth=gpu.memory_bandwidth * family["bandwidth"],
        link=None if gpu.link_bandwidth is None else gpu.link_bandwidth * family["link"],
        network=family["network"],
        host_link=host_link_of(gpu, family) * table["offload"]["link_share"],
        width=_width(run),
        score_bytes=software.get("score_bytes", runtime["score_bytes"]) * (0.6 if narrow in WIDE else 1.0),
        small=software["small"],
        software=software,
        runtime=runtime,
    )


def tables_of(config: RunConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The constants of a run's generation of software, and of its runtime in it."""
    table = rules("time")
    software = table["software"][config.hardware.software]
    return software, table["runtime"][config.training.runtime] | software.get(config.training.runtime, {})


def interval_class(config: RunConfig) -> str:
    """The class of a plan's interval: one or many devices, eager or compiled; fused kernels count as compiled."""
    devices = "one" if config.hardware.gpus == 1 else "many"
    return f"{devices}-{'compiled' if config.training.runtime in ('compiled', 'fused') else 'eager'}"


def _width(run: Resolved) -> float:
    """The factor of the interval: wider where the generation of software is an assumption or the card has no family.

    A layout that no row of the fit has, tensor parallel or the like, counts as a card without a family.
    """
    assumed = any(a.key == "software" for a in run.config.provenance.assumptions)
    assert run.gpu is not None
    layout = run.config.parallel
    seen = all(degree == 1 for degree in (layout.tp, layout.pp, layout.cp, layout.ep))
    listed = seen and any(run.gpu.id in family["gpus"] for family in rules("time")["family"])
    situation = ("neither" if assumed else "card") if not listed else "software" if assumed else "known"
    return float(rules("time")["interval"][situation][interval_class(run.config)])


def _share(by_generation: Mapping[str, float], generation: str) -> float:
    return by_generation.get(generation, by_generation[ANY])


def _attention_share(family: Mapping[str, Any], generation: str, kind: str) -> float:
    """Of the peak of the type: outside the tensor cores the products' own."""
    return float(rules("time")["products"]["fp32_share"] if kind == "fp32" else _share(family["attention"], generation))


def _batched_flops(run: Resolved, gpu: Gpu, product_flops: float, unaligned: float) -> float:
    """FLOP/s of the batch of small products that written-out attention is; less for heads that are no multiple of 8.

    cuBLAS 11 took such batches outside the tensor cores: there they have the card's rate in fp32.
    """
    table, generation = rules("time")["products"], run.config.hardware.software
    rate = float(product_flops * table["batched"])
    if run.shape.head_dim % ALIGNED == 0 or run.recipe.compute_dtype == "fp32":
        return rate
    outside = gpu.peak_dense_flops.get("fp32")
    if rules("time")["software"][generation].get("odd_batches_in_fp32") and outside:
        return min(rate, float(outside * table["fp32_share"]))
    return rate * unaligned


def host_link_of(gpu: Gpu, family: Mapping[str, Any]) -> float:
    """A card on the bus has the bus as its link; one with NVLink has a bus of its generation."""
    on_bus = gpu.link_name is not None and gpu.link_name.startswith("PCIe") and gpu.link_bandwidth is not None
    return float(gpu.link_bandwidth if on_bus and gpu.link_bandwidth else family["host_link"])
