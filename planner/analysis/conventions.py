"""FLOPs per token as each tool and paper counts them: the rows of `presets/rules/flops.toml` on a model's parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.config.model import ModelConfig
from planner.counts.flops import mask_entries_per_sequence
from planner.counts.parameters import Parameters, parameters_of
from planner.counts.shape import attended_keys, shape_of
from planner.counts.tensors import parameter_tensors
from planner.rules import rules

ROUTERS = ("mlp.router.weight", "mlp.shared_gate.weight")


@dataclass(frozen=True, slots=True)
class Parts:
    """A model in parts that do not overlap, in parameters; what each is stands at the top of flops.toml."""

    blocks: int
    router: int
    idle: int
    head: int
    lookup: int
    positions: int
    vectors: int


CONVENTION_PARTS = tuple(Parts.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to count: a factor per part, per width of the heads and key, and per head and key.

    `keys`: which keys a query's scores are counted against (all, window, mask). `kind`: "model" is divided by the
    peak to give an MFU, "hardware" an HFU. `formula`, `used_by`, `source`, `note` are for people.
    """

    id: str
    kind: Literal["model", "hardware"]
    formula: str
    used_by: str
    source: str
    note: str
    factors: dict[str, float]
    attention: float
    softmax: float
    keys: Literal["all", "window", "mask"]


def conventions() -> tuple[Convention, ...]:
    """Every convention of the table, ours first."""
    return tuple(
        Convention(
            id=row["id"],
            kind=row["kind"],
            formula=row["formula"],
            used_by=row["used_by"],
            source=row["source"],
            note=row["note"],
            factors={part: row.get(part, 0) for part in CONVENTION_PARTS},
            attention=row.get("attention", 0),
            softmax=row.get("softmax", 0),
            keys=row.get("keys", "all"),
        )
        for row in rules("flops")["convention"]
    )


def parts_of(model: ModelConfig) -> Parts:
    """The parts of a model; their sum is its exact number of parameters."""
    s, counts = shape_of(model), parameters_of(model)
    router = sum(t.count * t.times for t in parameter_tensors(model) if t.name in ROUTERS)
    head = s.vocab * s.hidden
    positions = s.learned_positions * s.context * s.hidden
    lookup = 0 if s.tied else head
    return Parts(
        blocks=counts.active_linear - head - router,
        router=router,
        idle=counts.linear - counts.active_linear,
        head=head,
        lookup=lookup,
        positions=positions,
        vectors=_vectors(counts, lookup + positions),
    )


def _vectors(counts: Parameters, looked_up: int) -> int:
    return counts.total - counts.linear - looked_up


def flops_per_token(convention: Convention, model: ModelConfig, seq: int) -> float:
    """FLOPs per token of a training step, forward and backward, as the convention counts them."""
    s, parts = shape_of(model), parts_of(model)
    keys = {
        "all": float(model.layers * seq),
        "window": float(attended_keys(model, seq)),
        "mask": mask_entries_per_sequence(model, seq) / seq,
    }[convention.keys]
    products = sum(factor * getattr(parts, part) for part, factor in convention.factors.items())
    widths = convention.attention * (s.query_width + s.value_width) + convention.softmax * s.heads
    return float(products + widths * keys)
