"""A plan as one JSON object: base units, stable keys, unknown is null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.config.run import SCHEMA_VERSION, Assumption, RunConfig
from planner.counts.flops import Flops
from planner.finding import Finding
from planner.interval import flattened
from planner.memory.breakdown import Memory
from planner.plan import Batch, Cost, Plan, Schedule, Time, Tokens
from planner.step_time.throughput import Throughput


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters: as typed (`nominal`), exact (`total`) and of it; `active` per token, for a dense model all."""

    nominal: int
    total: int
    embedding: int
    non_embedding: int
    active: int


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """The model's shape, and the sequence it is trained on."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    seq: int


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The model, and where its shape comes from."""

    name: str
    source: str
    parameters: ParameterCounts
    shape: ShapeReport


@dataclass(frozen=True, slots=True)
class Document:
    """What `estimate --json` prints; its JSON Schema is printed by `gptplan schema plan`."""

    schema_version: int
    config: RunConfig
    tokens: Tokens
    model: ModelReport
    flops: Flops
    batch: Batch
    memory: Memory
    throughput: Throughput
    time: Time
    cost: Cost
    schedule: Schedule
    findings: tuple[Finding, ...]
    assumptions: tuple[Assumption, ...]


def report(plan: Plan, found: tuple[Finding, ...]) -> Document:
    """The document of a plan and its findings."""
    config, shape, counts = plan.config, plan.shape, plan.parameters
    return Document(
        schema_version=SCHEMA_VERSION,
        config=config,
        tokens=plan.tokens,
        model=ModelReport(
            name=config.model.name,
            source=config.model.source,
            parameters=ParameterCounts(
                nominal=plan.nominal_parameters,
                total=counts.total,
                embedding=counts.embedding,
                non_embedding=counts.non_embedding,
                active=counts.active,
            ),
            shape=ShapeReport(
                layers=shape.layers,
                hidden=shape.hidden,
                heads=shape.heads,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                ffn=shape.ffn,
                vocab=shape.vocab,
                seq=config.training.seq,
            ),
        ),
        flops=plan.flops,
        batch=plan.batch,
        memory=plan.memory,
        throughput=plan.throughput,
        time=plan.time,
        cost=plan.cost,
        schedule=plan.schedule,
        findings=found,
        assumptions=config.provenance.assumptions,
    )


def document(plan: Plan, found: tuple[Finding, ...]) -> dict[str, Any]:
    """The document as plain values, ready for JSON."""
    values = flattened(report(plan, found))
    values["config"] = plan.config.model_dump(mode="json")
    values["assumptions"] = [a.model_dump() for a in plan.config.provenance.assumptions]
    return values
