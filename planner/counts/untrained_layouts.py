"""Which layouts of several GPUs the reference trainer does not run: they are planned, and trained by other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from planner.config.run import RunConfig
from planner.counts.run import recipe_of


class MissingPart(NamedTuple):
    """What the trainer does not run on several GPUs, as its key says it, and why."""

    name: str
    why: str


def missing_on_ranks(config: RunConfig) -> MissingPart | None:
    """The first part of a config that the trainer does not run with one process for each GPU; None: it runs it."""
    return next(_missing(config), None)


def _missing(config: RunConfig) -> Iterator[MissingPart]:
    p, recipe = config.parallel, recipe_of(config)
    for key, size in (("tp", p.tp), ("pp", p.pp), ("cp", p.cp), ("ep", p.ep)):
        if size > 1:
            yield MissingPart(f"{key} = {size}", "each of its GPUs runs the whole model")
    if p.zero:
        yield MissingPart(
            f"zero = {p.zero}", "its GPUs are replicas under DDP or FSDP2; ZeRO is DeepSpeed's and Megatron's"
        )
    if config.model.moe is not None:
        yield MissingPart("experts on several GPUs", "an expert that a GPU sends no token to has no gradient there")
    if recipe.master_weights_bytes_per_parameter and recipe.gradients_bytes_per_parameter == 4:
        why = "gradients go into fp32 masters as backward makes them, before DDP could reduce them"
        yield MissingPart(f"the recipe {recipe.id} on several GPUs", why)
