"""Which combinations of options are simulated exactly, and the reasons for those that are not.

Each exclusion is a reason and a test of the config. The runtimes "eager" and "autocast" are simulated operator by
operator for all options. "compiled" and "fused" are closed forms, checked only without the options excluded here.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.config.run import RunConfig
from planner.counts.run import recipe_of
from planner.formulas.itemsize import FP32

Exclusion = tuple[str, Callable[[RunConfig], bool]]

MOST_BLOCKS = 10_000  # every block is walked; no model has a tenth of these
TOO_MANY: Exclusion = (f"more than {MOST_BLOCKS:,} blocks, walked one by one,", lambda c: c.model.layers > MOST_BLOCKS)

# what a form with a witness does not cover, by runtime
COMPILED: tuple[Exclusion, ...] = (
    TOO_MANY,
    ("experts under torch.compile", lambda c: c.model.moe is not None),
    ("latent attention under torch.compile", lambda c: c.model.mla is not None),
    ("a parallel residual under torch.compile", lambda c: c.model.residual != "sequential"),
    ("norms after the sub-layers under torch.compile", lambda c: c.model.norm_placement != "pre"),
    ("a norm of the embedding under torch.compile", lambda c: c.model.embedding_norm),
    ("attention written out under torch.compile", lambda c: c.training.attention_kernel != "flash"),
    ("documents cut apart under torch.compile", lambda c: c.training.document_masking),
    ("dropout under torch.compile", lambda c: c.training.dropout > 0),
    ("a loss in chunks under torch.compile", lambda c: c.training.loss != "plain"),
    (
        "selective or offloaded checkpointing under torch.compile",
        lambda c: c.training.activation_checkpointing not in ("none", "full"),
    ),
    (
        "checkpointing of every k-th block under torch.compile",
        lambda c: c.training.activation_checkpointing_every != 1,
    ),
    (
        "norms of queries and keys, or without gains, under torch.compile in fp32",
        lambda c: (
            recipe_of(c).compute_bytes == FP32 and (c.model.qk_norm != "none" or c.model.norm_parameters == "none")
        ),
    ),
)
FUSED: tuple[Exclusion, ...] = (
    TOO_MANY,
    ("experts in fused kernels", lambda c: c.model.moe is not None),
    ("latent attention in fused kernels", lambda c: c.model.mla is not None),
    ("a parallel residual in fused kernels", lambda c: c.model.residual != "sequential"),
    ("norms after the sub-layers in fused kernels", lambda c: c.model.norm_placement != "pre"),
    ("norms of queries and keys in fused kernels", lambda c: c.model.qk_norm != "none"),
    ("a norm of the embedding in fused kernels", lambda c: c.model.embedding_norm),
    ("a GELU written out in fused kernels", lambda c: c.model.mlp == "gelu-written-out"),
    ("documents cut apart in fused kernels", lambda c: c.training.document_masking),
    ("a loss in chunks in fused kernels", lambda c: c.training.loss != "plain"),
    ("offloaded checkpointing in fused kernels", lambda c: c.training.activation_checkpointing == "offloaded"),
    (
        "weights of another type than the products' in fused kernels",
        lambda c: recipe_of(c).compute_bytes == FP32 or recipe_of(c).weights_bytes_per_parameter == FP32,
    ),
)
EXCLUSIONS: dict[str, tuple[Exclusion, ...]] = {"eager": (), "autocast": (), "compiled": COMPILED, "fused": FUSED}


def not_covered(config: RunConfig) -> str | None:
    """None where the activations are counted exactly or by a form with a witness; else what has none."""
    for reason, holds in EXCLUSIONS[config.training.runtime]:
        if holds(config):
            return reason
    return None
