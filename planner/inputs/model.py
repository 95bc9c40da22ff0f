"""Which model a run has: a preset, a Hugging Face config, flags, or the shape that a parameter count picks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from planner import presets
from planner.config.model import ModelConfig
from planner.config.options import OPTIONS, flag
from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.shape import GATED
from planner.errors import InputError
from planner.inputs.architecture import CHOICES, NUMBERS, changed_options, default_ffn, padded_vocab
from planner.inputs.flags import Assumptions, Flags
from planner.inputs.run_toml import explain_validation
from planner.units import format_count, format_count_exact, format_fraction

GPT2_VOCAB = 50257
HEAD_DIM = 64
# Width over depth of the GPT-3 table (arXiv 2005.14165, table 2.1): 64 at 125M, rising to 128 from 6.7B on
ASPECT = ((125e6, 64.0), (350e6, 43.0), (760e6, 64.0), (1.3e9, 85.0), (2.7e9, 80.0), (6.7e9, 128.0))
ASPECT_WEIGHT = 0.1
WIDEST = 65536
MOST_LAYERS = 10_000
RULE = (
    "GPT-2 family (learned positions, LayerNorm, GELU 4h, biases, tied embeddings, heads of 64): the layers and the "
    "width, a multiple of 64, whose exact count and width-to-depth ratio (GPT-3, table 2.1) come closest"
)


def model_of(flags: Flags, base: RunConfig | None, seq: int, assumptions: Assumptions) -> ModelConfig:
    """The model of what was typed; `base` is the config that the flags override.

    Raises InputError when no model was typed, or when its parts do not fit together.
    """
    numbers = {name: flags.count(name) for name in NUMBERS}
    wanted = flags.count("params")
    if wanted is not None:
        return model_for_parameters(wanted, numbers, flags, seq, assumptions)
    if flags.model is not None:
        values = _from_preset(flags.model, assumptions)
    elif flags.hf_config is not None:
        from planner.inputs.huggingface import hf_model  # all model types, needed here only

        read = hf_model(Path(flags.hf_config))
        for note in read.notes:
            if note.key != "balancing_rate" or flags.balancing is None:  # else it is that of another method
                assumptions.add(note.key, note.value, note.reason)
        values = read.model.model_dump()
    elif base is not None and flags.family is None:
        values = base.model.model_dump()
        if numbers["hidden"] is not None and numbers["heads"] is None and _heads_by_rule(base):
            numbers["heads"] = _default_heads(numbers["hidden"], assumptions)
    elif flags.given("layers", "hidden", "family"):
        values = _family(flags, numbers, seq, assumptions)
    else:
        raise InputError(
            "the model is missing",
            why="every number of a plan follows from its shape",
            remedy="give --params 125M, or --model gpt2, or --hf-config FILE, or --layers and --hidden",
        )
    changed = {k: v for k, v in numbers.items() if v is not None and values.get(k) != v}
    derived = _with_changes(values, changed, assumptions) if changed else {}
    options = changed_options(values | derived, flags, assumptions)
    padding = padded_vocab(values | derived, flags)
    if changed or options or padding:
        said = {k: v for k, v in {**changed, **options, **padding}.items() if _was_typed(k, flags)}
        name = f"{values['name']} with {', '.join(f'{k} {_said(v)}' for k, v in said.items())}"
        values |= derived | options | padding | {"name": name, "nominal_parameters": None}
    return _whole(values)


def _was_typed(key: str, flags: Flags) -> bool:
    """Whether a flag says this key itself; others follow from one that does."""
    names = [option.name for option in OPTIONS if option.key.startswith(f"model.{key}")]
    names += ["norm_bias"] if key == "norm_parameters" else []
    return key == "vocab" or bool(flags.given(*names))


def _said(value: object) -> str:
    """A changed value in the model's name."""
    if isinstance(value, dict):
        return " ".join(f"{k} {v}" for k, v in value.items() if v)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _heads_by_rule(base: RunConfig) -> bool:
    return any(a.key in ("shape", "heads") for a in base.provenance.assumptions)


def _default_heads(hidden: int, assumptions: Assumptions) -> int:
    heads = hidden // HEAD_DIM if hidden % HEAD_DIM == 0 else 1
    assumptions.add("heads", heads, "heads of 64 where the width is a multiple of it, else one")
    return heads


def _whole(values: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        raise InputError(*explain_validation(error, "model")) from None


def _from_preset(name: str, assumptions: Assumptions) -> dict[str, Any]:
    found = presets.model(name)
    for key in found.unconfirmed:
        assumptions.add(key, found.shape[key], f"of the preset {found.id}, and not confirmed: no source settles it")
    return {"name": found.id, "source": found.source, **found.shape}


def _with_changes(values: dict[str, Any], changed: dict[str, int], assumptions: Assumptions) -> dict[str, Any]:
    """Flags over a preset or file: what depends on a changed width is derived again unless it was typed too."""
    new: dict[str, Any] = dict(changed)
    hidden = changed.get("hidden", values["hidden"])
    if values.get("mla"):
        new["kv_heads"] = changed.get("heads", values["heads"])  # its head widths are its own
    elif ("hidden" in changed or "heads" in changed) and "head_dim" not in changed:
        heads = changed.get("heads", values["heads"])
        new["head_dim"] = _head_dim(hidden, heads)
        if "kv_heads" not in changed:
            was_grouped = values["kv_heads"] != values["heads"]
            new["kv_heads"] = values["kv_heads"] if was_grouped else heads
    if "hidden" in changed and "ffn" not in changed:
        new["ffn"] = default_ffn(hidden, values["mlp"] in GATED, assumptions)
    return new


def _head_dim(hidden: int, heads: int) -> int:
    if hidden % heads:
        legal = [n for n in range(1, min(hidden, 256) + 1) if hidden % n == 0]
        near = sorted(legal, key=lambda n: abs(n - heads))[:2]
        raise InputError(
            f"--hidden {hidden} is not divisible by --heads {heads}",
            why="the width is shared out evenly among the heads",
            remedy=f"the nearest --heads that divide it are {' and '.join(map(str, sorted(near)))}",
        )
    return hidden // heads


def _family(flags: Flags, numbers: dict[str, int | None], seq: int, assumptions: Assumptions) -> dict[str, Any]:
    """A shape from flags: `--layers` and `--hidden` are needed, the rest follows from the family."""
    flags.value("family")
    layers, hidden = numbers["layers"], numbers["hidden"]
    if layers is None or hidden is None:
        missing = "--layers" if layers is None else "--hidden"
        raise InputError(
            f"{missing} is missing",
            why="a shape needs at least its depth and its width",
            remedy="give --layers and --hidden, or a whole model by --model or --params",
        )
    llama = flags.family == "llama"
    if flags.family is None:
        assumptions.add("family", "gpt2", "default: learned positions, LayerNorm, GELU, biases, tied embeddings")
    heads = numbers["heads"]
    if heads is None:
        heads = _default_heads(hidden, assumptions)
    ffn = numbers["ffn"]
    if ffn is None:
        ffn = default_ffn(hidden, llama, assumptions)
    vocab = numbers["vocab"]
    if vocab is None:
        vocab = 32000 if llama else GPT2_VOCAB
        assumptions.add("vocab", vocab, "Llama's tokenizer" if llama else "GPT-2's tokenizer")
    head_dim = numbers["head_dim"] or _head_dim(hidden, heads)
    return {
        "name": f"{flags.family or 'gpt2'}-{layers}x{hidden}",
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": numbers["kv_heads"] or heads,
        "head_dim": head_dim,
        "ffn": ffn,
        "vocab": vocab,
        "context": seq,
        **_style("llama" if llama else "gpt2"),
        "source": "flags",
    }


def _style(family: Literal["gpt2", "llama"]) -> dict[str, Any]:
    if family == "llama":
        return {
            "position": "rotary",
            "norm": "rmsnorm",
            "mlp": "swiglu",
            "norm_parameters": "gain",
            "biases": "none",
            "tied_embeddings": False,
        }
    return {
        "position": "learned",
        "norm": "layernorm",
        "norm_parameters": "gain+bias",
        "mlp": "gelu",
        "biases": "all",
        "tied_embeddings": True,
    }


def model_for_parameters(
    wanted: int, numbers: dict[str, int | None], flags: Flags, seq: int, assumptions: Assumptions
) -> ModelConfig:
    """The shape that `RULE` picks for a parameter count.

    Raises InputError when the smallest shape of the rule is more than twice as large.
    """
    extra = [flag(n) for n in flags.given("heads", "kv_heads", "head_dim", "ffn", *CHOICES)]
    if extra or flags.family not in (None, "gpt2"):
        raise InputError(
            f"--params and {(extra or ['--family'])[0]} contradict each other",
            why="--params picks the whole shape by one rule",
            remedy="give --layers and --hidden instead of --params, or leave the other flag out",
        )
    vocab = numbers["vocab"] or GPT2_VOCAB
    if numbers["vocab"] is None:
        assumptions.add("vocab", vocab, "GPT-2's tokenizer")
    padding = padded_vocab({"vocab": vocab}, flags)
    vocab = padding.get("vocab", vocab)
    layers, hidden = pick_shape(wanted, vocab, seq)
    found = ModelConfig(
        name=f"gpt2-{layers}x{hidden}",
        layers=layers,
        hidden=hidden,
        heads=hidden // HEAD_DIM,
        kv_heads=hidden // HEAD_DIM,
        head_dim=HEAD_DIM,
        ffn=4 * hidden,
        vocab=vocab,
        tokenizer_vocab=padding.get("tokenizer_vocab"),
        context=seq,
        nominal_parameters=wanted,
        source=f"--params by rule: {RULE}",
        **_style("gpt2"),
    )
    exact = parameters_of(found).total
    if exact > 2 * wanted:
        raise InputError(
            f"--params: no shape of the rule has about {format_count_exact(wanted)} parameters",
            why=f"the smallest has {format_count_exact(exact)}, of which {format_count_exact(vocab * hidden)} are the "
            "embedding table",
            remedy="give a smaller --vocab (256 for bytes), or a shape by --layers and --hidden",
        )
    if wanted > 2 * exact:
        raise InputError(
            f"--params: no shape of the rule has about {format_count_exact(wanted)} parameters",
            why=f"the largest has {format_count_exact(exact)}: {layers:,} layers of width {hidden:,}",
            remedy="give a smaller --params",
        )
    difference = f"{format_count_exact(exact)} exactly, {format_fraction(exact / wanted - 1)} from the number typed"
    assumptions.add("shape", f"{layers} layers x {hidden}: {difference}; {nearest_presets(wanted)}", RULE)
    return found


def nearest_presets(wanted: int, most: int = 3) -> str:
    """The named models whose parameters come closest by ratio, for who would rather have a published shape."""
    ratios = {id: size / wanted for id, size in presets.model_parameters().items()}
    near = sorted((id for id in ratios if 0.5 <= ratios[id] <= 2), key=lambda id: (abs(math.log(ratios[id])), id))
    if not near:
        return "no preset is within a factor of two"
    said = [f"{id} ({format_count(round(ratios[id] * wanted))}, {_signed(ratios[id] - 1)})" for id in near[:most]]
    return f"nearest presets: {', '.join(said)}"


def _signed(share: float) -> str:
    return ("+" if share > 0 else "") + format_fraction(share)


def pick_shape(wanted: int, vocab: int, context: int) -> tuple[int, int]:
    """Layers and width whose exact count and aspect ratio come closest to `wanted` parameters."""
    aspect = _aspect(wanted)
    best = (math.inf, 1, HEAD_DIM)
    for hidden in range(HEAD_DIM, WIDEST + 1, HEAD_DIM):
        block = 12 * hidden * hidden + 13 * hidden
        ends = (vocab + context + 2) * hidden
        room = min(MOST_LAYERS, max(1, round((wanted - ends) / block)))
        exact = room * block + ends
        cost = abs(math.log(exact / wanted)) + ASPECT_WEIGHT * abs(math.log(hidden / room / aspect))
        best = min(best, (cost, room, hidden))
        if ends > 2 * wanted:
            break
    return best[1], best[2]


def _aspect(parameters: int) -> float:
    """Width over depth wanted at this size: the nearest row by ratio, 128 beyond the table."""
    if parameters > ASPECT[-1][0]:
        return ASPECT[-1][1]
    return min(ASPECT, key=lambda row: max(row[0] / parameters, parameters / row[0]))[1]
