"""What a user typed, field by field, as text: the flags shared by `estimate`, `plan` and the terminal program."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Typed:
    """Flags as text, None where nothing was typed. `flag(name)` is how a message calls a field."""

    params: str | None = None
    model: str | None = None
    hf_config: str | None = None
    family: str | None = None
    layers: str | None = None
    hidden: str | None = None
    heads: str | None = None
    kv_heads: str | None = None
    head_dim: str | None = None
    ffn: str | None = None
    vocab: str | None = None
    seq: str | None = None
    tokens: str | None = None
    steps: str | None = None
    dataset_tokens: str | None = None
    gpu: str | None = None
    gpus: str | None = None
    micro_batch: str | None = None
    accumulation: str | None = None
    global_batch_tokens: str | None = None
    precision: str | None = None
    recipe: str | None = None
    activation_checkpointing: str | None = None
    optimizer: str | None = None
    schedule: str | None = None
    peak_lr: str | None = None
    min_lr: str | None = None
    warmup_steps: str | None = None
    warmup_tokens: str | None = None
    warmup_ratio: str | None = None
    tflops: str | None = None
    mfu: str | None = None
    price_per_gpu_hour: str | None = None
    seed: str | None = None
    checkpoint_every: str | None = None

    def given(self, *names: str) -> list[str]:
        """Those of `names` that were typed."""
        return [n for n in names if getattr(self, n) is not None]

    def anything(self) -> bool:
        """Whether any field was typed."""
        return bool(self.given(*(f.name for f in fields(self))))


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")
