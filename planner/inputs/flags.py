"""What a user typed, field by field, as text: the flags shared by `estimate`, `plan` and the terminal program."""

from __future__ import annotations

from dataclasses import dataclass, fields

from planner.config.run import Assumption, RunConfig
from planner.errors import InputError, UnitError, UnknownNameError
from planner.units import parse_count, parse_number

LARGEST = 10**18  # what a config holds; a run with more of anything is a slip of the keyboard


@dataclass(frozen=True, slots=True)
class Flags:
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
    pad_vocab: str | None = None
    position: str | None = None
    rotary_dim: str | None = None
    norm: str | None = None
    norm_placement: str | None = None
    qk_norm: str | None = None
    mlp: str | None = None
    biases: str | None = None
    tied: str | None = None
    sliding_window: str | None = None
    experts: str | None = None
    top_k: str | None = None
    expert_ffn: str | None = None
    shared_ffn: str | None = None
    seq: str | None = None
    tokens: str | None = None
    steps: str | None = None
    dataset_tokens: str | None = None
    gpu: str | None = None
    gpus: str | None = None
    allocator: str | None = None
    micro_batch: str | None = None
    accumulation: str | None = None
    global_batch_tokens: str | None = None
    precision: str | None = None
    recipe: str | None = None
    activation_checkpointing: str | None = None
    activation_checkpointing_every: str | None = None
    runtime: str | None = None
    attention: str | None = None
    document_masking: str | None = None
    loss_kind: str | None = None
    loss_chunks: str | None = None
    dropout: str | None = None
    optimizer: str | None = None
    optimizer_implementation: str | None = None
    state_dtype: str | None = None
    clip_value: str | None = None
    schedule: str | None = None
    peak_lr: str | None = None
    min_lr: str | None = None
    warmup_steps: str | None = None
    warmup_tokens: str | None = None
    warmup_ratio: str | None = None
    cooldown_steps: str | None = None
    cooldown_tokens: str | None = None
    cooldown_ratio: str | None = None
    decay_power: str | None = None
    tflops: str | None = None
    mfu: str | None = None
    price_per_gpu_hour: str | None = None
    seed: str | None = None
    checkpoint_every: str | None = None
    keep_checkpoints: str | None = None
    async_save: str | None = None
    eval_every: str | None = None
    eval_tokens: str | None = None
    patience: str | None = None
    on_spike: str | None = None

    def given(self, *names: str) -> list[str]:
        """Those of `names` that were typed."""
        return [n for n in names if getattr(self, n) is not None]

    def count(self, name: str, *, allow_zero: bool = False) -> int | None:
        """The whole number typed for a field, None where nothing was typed. Raises UnitError, also above 10^18."""
        text = getattr(self, name)
        if text is None:
            return None
        found = parse_count(text, name=flag(name), allow_zero=allow_zero)
        if found > LARGEST:
            raise UnitError(
                f"{flag(name)}: {text[:40]!r} is larger than 10^18",
                why="a config holds no larger number",
                remedy="check its suffix and its exponent",
            )
        return found

    def number(self, name: str, *, allow_zero: bool = False) -> float | None:
        """The real number typed for a field, None where nothing was typed. Raises UnitError."""
        text = getattr(self, name)
        return None if text is None else parse_number(text, name=flag(name), allow_zero=allow_zero)

    def anything(self) -> bool:
        """Whether any field was typed."""
        return bool(self.given(*(f.name for f in fields(self))))


YES_OR_NO = {"yes": True, "no": False}


def yes_or_no(flags: Flags, name: str) -> bool | None:
    """What was typed for a field that takes yes or no, None where nothing was. Raises UnknownNameError."""
    text = getattr(flags, name)
    if text is not None and text not in YES_OR_NO:
        raise UnknownNameError(f"answer to {flag(name)}", text, YES_OR_NO)
    return None if text is None else YES_OR_NO[text]


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


# fields of which one at most may be typed, and why
EITHER = (
    (("params", "model", "hf_config"), "each chooses the model"),
    (("model", "family"), "a preset has its own style"),
    (("hf_config", "family"), "the file says which style it has"),
    (("params", "layers"), "the rule of --params chooses the layers"),
    (("params", "hidden"), "the rule of --params chooses the width"),
    (("tokens", "steps"), "one follows from the other and the batch"),
    (("accumulation", "global_batch_tokens"), "the batch in tokens fixes the accumulation"),
    (("precision", "recipe"), "a recipe contains the precision"),
    (("warmup_steps", "warmup_tokens", "warmup_ratio"), "each fixes the warm-up"),
    (("cooldown_steps", "cooldown_tokens", "cooldown_ratio"), "each fixes the cooldown"),
    (("tflops", "mfu"), "each fixes the speed"),
)


def refuse_contradictions(flags: Flags) -> None:
    """Flags that say the same thing twice are refused, not ranked. Raises InputError."""
    for names, why in EITHER:
        found = flags.given(*names)
        if len(found) > 1:
            spelled = " and ".join(flag(n) for n in found)
            raise InputError(f"{spelled} contradict each other", why=why, remedy=f"give one of {spelled}")


SHAPE = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")
# A typed field ends the assumption of its own name, and those here. --optimizer ends none: its numbers stay assumed.
MODEL_KEYS = ("shape", "family", "heads", "ffn", "vocab", "norm_parameters", "top_k", "expert_ffn")
ENDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("params", "model", "hf_config", "family"), MODEL_KEYS),
    **{name: (name, "shape") for name in SHAPE},
    "hidden": ("shape", "heads", "ffn"),
    "norm": ("norm_parameters",),
    "precision": ("recipe",),
    "warmup_tokens": ("warmup_steps",),
    "warmup_ratio": ("warmup_steps",),
    "cooldown_tokens": ("cooldown_steps",),
    "cooldown_ratio": ("cooldown_steps",),
    "accumulation": ("accumulation", "global_batch_tokens"),
    "global_batch_tokens": ("accumulation", "global_batch_tokens"),
    "optimizer": (),
}


class Assumptions:
    """Collects the assumptions of a draft: those of the file that no flag ended, then its own."""

    def __init__(self, flags: Flags, base: RunConfig | None) -> None:
        ended = {key for name in flags.given(*Flags.__dataclass_fields__) for key in ENDS.get(name, (name,))}
        carried = base.provenance.assumptions if base else ()
        self.found = {a.key: a for a in carried if a.key not in ended}

    def add(self, key: str, value: object, source: str) -> None:
        """Record that `key` was not typed, which value it got, and by which rule."""
        self.found[key] = Assumption(key=key, value=str(value), source=source)
