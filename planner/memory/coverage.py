"""Which combinations of options are simulated exactly, and the reasons for those that are not.

Each exclusion is a reason and a test of the config. The runtimes "eager" and "autocast" are simulated operator by
operator: all options on one GPU, and FSDP2 as said here. "compiled" and "fused" are closed forms, checked only without
the options excluded here.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.config.attention import WITHOUT_SCORES
from planner.counts.attention import repeating_blocks
from planner.counts.run import Resolved
from planner.counts.shape import alternation
from planner.formulas.itemsize import FP32

Exclusion = tuple[str, Callable[[Resolved], bool]]

_MAX_BLOCKS = 10_000  # every block is simulated; no model has a tenth of these
# excluded from both closed forms
_BOTH: tuple[Exclusion, ...] = (
    ("FSDP2", lambda run: run.config.parallel.shards_weights),
    (f"more than {_MAX_BLOCKS:,} blocks", lambda run: run.config.model.layers > _MAX_BLOCKS),
    ("experts", lambda run: run.config.model.moe is not None),
    ("latent attention", lambda run: run.config.model.mla is not None),
    ("a parallel residual", lambda run: run.config.model.residual != "sequential"),
    ("norms after the sub-layers", lambda run: run.config.model.norm_placement != "pre"),
    ("document masking", lambda run: run.config.training.document_masking),
    ("a loss in chunks", lambda run: run.config.training.loss != "plain"),
)
_COMPILED: tuple[Exclusion, ...] = (
    ("keys and values repeated for all query heads", lambda run: repeating_blocks(run) > 0),
    ("sequence parallelism", lambda run: run.config.parallel.sp),
    ("a pipeline", lambda run: run.config.parallel.pp > 1),
    ("context parallelism", lambda run: run.config.parallel.cp > 1),
    ("attention written out", lambda run: run.config.training.attention_kernel not in WITHOUT_SCORES),
    ("dropout", lambda run: run.config.training.dropout > 0),
    (
        "selective or offloaded checkpointing",
        lambda run: run.config.training.activation_checkpointing not in ("none", "full"),
    ),
    (  # the last one's output in fp32 is saved, or is not: which, was not found out
        "full checkpointing with norms without gains",
        lambda run: (
            run.config.training.activation_checkpointing == "full" and run.config.model.norm_parameters == "none"
        ),
    ),
    ("checkpointing of every k-th block", lambda run: run.config.training.activation_checkpointing_every != 1),
    (
        "fp32 with norms of queries and keys, or with norms without gains",
        lambda run: (
            run.recipe.compute_bytes == FP32
            and (run.config.model.qk_norm != "none" or run.config.model.norm_parameters == "none")
        ),
    ),
)
_FUSED: tuple[Exclusion, ...] = (
    ("norms of queries and keys", lambda run: run.config.model.qk_norm != "none"),
    ("a GELU written out", lambda run: run.config.model.mlp == "gelu-written-out"),
    ("offloaded checkpointing", lambda run: run.config.training.activation_checkpointing == "offloaded"),
    (
        "weights of another type than the matmuls'",
        lambda run: run.recipe.compute_bytes == FP32 or run.recipe.weights_bytes_per_parameter == FP32,
    ),
)
# what a part of a layout was compared without
_BESIDE_ANY: tuple[Exclusion, ...] = (
    ("under torch.compile", lambda run: run.config.training.runtime == "compiled"),
    ("in fused kernels", lambda run: run.config.training.runtime == "fused"),
    ("of experts", lambda run: run.config.model.moe is not None),
    ("with logits that are returned", lambda run: run.config.training.returns_logits),
)
_BESIDE_TENSORS: tuple[Exclusion, ...] = (
    *_BESIDE_ANY,
    ("beside FSDP2 in groups", lambda run: run.config.parallel.hsdp is not None),
    ("of latent attention", lambda run: run.config.model.mla is not None),
    ("with a fused loss", lambda run: run.config.training.loss == "fused"),
)


def _is_ordered_by(schedule: str) -> Callable[[Resolved], bool]:
    return lambda run: run.config.parallel.pp_schedule == schedule


# what the rule of a plan counts too much or too little of: `pipeline_passes.py` has it exactly
_BY_RULE: tuple[Exclusion, ...] = (
    ("with the schedule interleaved", _is_ordered_by("interleaved")),
    # the first stage runs all its forward passes before it has gradients, and is counted as if it had them
    (
        "with no more micro-batches than stages",
        lambda run: run.config.training.accumulation <= run.config.parallel.pp,
    ),
)
_BESIDE_PIPELINE: tuple[Exclusion, ...] = (
    ("beside FSDP2", lambda run: run.config.parallel.shards_weights),
    *((f"with the schedule {name}", _is_ordered_by(name)) for name in ("zero-bubble", "dualpipe")),
    *_BESIDE_ANY,
    ("with document masking", lambda run: run.config.training.document_masking),
    ("of kinds of blocks that alternate", lambda run: alternation(run.config.model, run.config.training) > 1),
)
# FSDP2 casts the weights as it gathers them and keeps no second copy
_SHARDED: tuple[Exclusion, ...] = (
    (
        "a master copy of the weights",
        lambda run: run.config.parallel.shards_weights and run.recipe.master_weights_bytes_per_parameter > 0,
    ),
    (
        "casts of the weights that stay",
        lambda run: run.config.parallel.shards_weights and run.recipe.held_casts_bytes_per_linear_weight > 0,
    ),
)


def _named(where: str, exclusions: tuple[Exclusion, ...]) -> tuple[Exclusion, ...]:
    return tuple((f"{option} {where}", holds) for option, holds in exclusions)


EXCLUSIONS: dict[str, tuple[Exclusion, ...]] = {
    "eager": _named("under FSDP2", _SHARDED),
    "autocast": (*_named("under autocast", _BOTH[:1]), *_named("under FSDP2", _SHARDED)),
    "compiled": _named("under torch.compile", _BOTH + _COMPILED),
    "fused": _named("in fused kernels", _BOTH + _FUSED),
}


def _beside(part: str, has: Callable[[Resolved], bool], beside: tuple[Exclusion, ...]) -> tuple[Exclusion, ...]:
    """A part of a layout that was compared, but not beside these."""

    def both(other: Callable[[Resolved], bool]) -> Callable[[Resolved], bool]:
        return lambda run: has(run) and other(run)

    return tuple((f"{part} {name}", both(holds)) for name, holds in beside)


def _is_pipeline(run: Resolved) -> bool:
    return run.config.parallel.pp > 1


# parts of a layout, and kernels, whose bytes no run of PyTorch was compared with: a plan with one is an interval
UNCHECKED: tuple[Exclusion, ...] = (
    *_beside("a pipeline", _is_pipeline, _BESIDE_PIPELINE),
    *_beside("tensor parallelism", lambda run: run.config.parallel.tp > 1, _BESIDE_TENSORS),
    ("context parallelism", lambda run: run.config.parallel.cp > 1),
    ("expert parallelism", lambda run: run.config.parallel.ep > 1),
    ("ZeRO", lambda run: run.config.parallel.zero > 0),
    # scratch of their backward: in no meta function, and no GPU was here
    ("the memory-efficient attention kernel", lambda run: run.config.training.attention_kernel == "efficient"),
    ("cuDNN's attention kernel", lambda run: run.config.training.attention_kernel == "cudnn"),
)
PASSED_OVER = _beside("a pipeline", _is_pipeline, _BY_RULE)


def not_checked(run: Resolved) -> str | None:
    """The first part of the run's layout, or kernel, whose peak is not PyTorch's to the byte; None if all have it."""
    return next((part for part, holds in (*UNCHECKED, *PASSED_OVER) if holds(run)), None)


def has_exact_passes(run: Resolved) -> bool:
    """Whether only the rule for a pipeline keeps the peak from being PyTorch's, so that its passes give it exactly.

    PyTorch refuses fewer micro-batches than stages, and for chunks in turn an odd number of them.
    """
    if any(holds(run) for _, holds in UNCHECKED) or not any(holds(run) for _, holds in PASSED_OVER):
        return False
    stages, micro_batches = run.config.parallel.pp, run.config.training.accumulation
    in_rounds = run.config.parallel.pp_schedule == "1f1b" or micro_batches % stages == 0
    return micro_batches >= stages and in_rounds


def is_recomputed_in_graph(run: Resolved) -> bool:
    """Whether a compiled program recomputes blocks: what is saved is exact, the peak of such a block nearly."""
    return run.config.training.runtime == "compiled" and run.config.training.activation_checkpointing == "full"


def is_interval(run: Resolved) -> bool:
    """Whether the peak of a run whose options are covered is an interval."""
    return not_checked(run) is not None or is_recomputed_in_graph(run)


def not_covered(run: Resolved) -> str | None:
    """The first option whose memory is not known under the run's runtime; None if all are covered."""
    return next((option for option, holds in EXCLUSIONS[run.config.training.runtime] if holds(run)), None)
