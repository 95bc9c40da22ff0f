"""The choices that memory follows from, typed or kept: runtime, attention kernel, loss, dropout, recomputation."""

from __future__ import annotations

from typing import Any, get_args

from planner import presets
from planner.config.run import HardwareConfig, TrainingConfig
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags, yes_or_no

# field of Typed: field of the section, and what messages call it
CHOICES = {
    "runtime": ("runtime", "runtime"),
    "attention": ("attention_kernel", "attention kernel"),
    "loss_kind": ("loss", "loss"),
}


def memory_options(flags: Flags, old: TrainingConfig | None, recipe: str) -> dict[str, Any]:
    """Fields of `[training]`: what was typed, else the file's, else the recipe's runtime and the plain choices.

    Raises UnknownNameError for a choice that does not exist, InputError for a number that cannot be.
    """
    found: dict[str, Any] = {}
    for name, (field, kind) in CHOICES.items():
        text = getattr(flags, name)
        if text is not None:
            known = get_args(TrainingConfig.model_fields[field].annotation)
            if text not in known:
                raise UnknownNameError(kind, text, known)
            found[field] = text
        elif old is not None:
            found[field] = getattr(old, field)
    if flags.runtime is None and (old is None or recipe != old.recipe):
        found["runtime"] = presets.recipe(recipe).runtime
    chunks, every = flags.count("loss_chunks"), flags.count("activation_checkpointing_every")
    found["loss_chunks"] = chunks or (old.loss_chunks if old else 8)
    found["activation_checkpointing_every"] = every or (old.activation_checkpointing_every if old else 1)
    if chunks and found.get("loss", "plain") == "plain":
        raise InputError(
            "--loss-chunks needs a loss that has chunks",
            why="the plain loss makes all logits at once",
            remedy="add --loss-kind chunked or --loss-kind fused",
        )
    masking = yes_or_no(flags, "document_masking")
    found["document_masking"] = masking if masking is not None else bool(old and old.document_masking)
    found["dropout"] = _dropout(flags, old)
    return found


def _dropout(flags: Flags, old: TrainingConfig | None) -> float:
    share = flags.number("dropout", allow_zero=True)
    if share is None:
        return old.dropout if old else 0.0
    if share >= 1:
        raise InputError(f"--dropout: {share:g} drops everything", why="it is a share below 1", remedy="0.1 or 10%")
    return share


def allocator_of(flags: Flags, old: HardwareConfig | None) -> str:
    """The allocator's setting. Raises UnknownNameError."""
    known = get_args(HardwareConfig.model_fields["allocator"].annotation)
    if flags.allocator is not None and flags.allocator not in known:
        raise UnknownNameError("allocator setting", flags.allocator, known)
    return flags.allocator or (old.allocator if old else "default")
