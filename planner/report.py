"""A plan as one JSON object: base units, stable keys, unknown is null."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from planner.checks import Finding
from planner.config import SCHEMA_VERSION
from planner.plan import Plan


def document(plan: Plan, found: tuple[Finding, ...]) -> dict[str, Any]:
    """The object that `estimate --json` prints."""
    config, shape, counts, flops = plan.config, plan.shape, plan.parameters, plan.flops
    memory = asdict(plan.memory)
    throughput = asdict(plan.throughput)
    return {
        "schema_version": SCHEMA_VERSION,
        "config": config.model_dump(mode="json"),
        "tokens": asdict(plan.tokens),
        "model": {
            "name": config.model.name,
            "source": config.model.source,
            "parameters": {
                "nominal": plan.nominal_parameters,
                "total": counts.total,
                "embedding": counts.embedding,
                "non_embedding": counts.non_embedding,
                "active": counts.total,
            },
            "shape": {
                "layers": shape.layers,
                "hidden": shape.hidden,
                "heads": shape.heads,
                "kv_heads": shape.kv_heads,
                "head_dim": shape.head_dim,
                "ffn": shape.ffn,
                "vocab": shape.vocab,
                "seq": config.training.seq,
            },
        },
        "flops": asdict(flops),
        "batch": asdict(plan.batch),
        "memory": memory,
        "throughput": throughput,
        "time": asdict(plan.time),
        "cost": asdict(plan.cost),
        "schedule": asdict(plan.schedule),
        "findings": [asdict(f) for f in found],
        "assumptions": [a.model_dump() for a in config.provenance.assumptions],
    }
