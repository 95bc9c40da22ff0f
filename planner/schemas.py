"""JSON Schemas (2020-12) of the config, of the plan, of a FLOPs report, of a trace and of a comparison."""

from __future__ import annotations

from typing import Any


def schemas() -> dict[str, Any]:
    """The five schemas by name; made from the classes themselves, so that they cannot drift."""
    from pydantic import TypeAdapter  # the adapters cost 50 ms, wanted by this command only

    from planner.compare import Comparison
    from planner.config import RunConfig
    from planner.flops_report import FlopsReport
    from planner.report import Document
    from planner.trace_report import TraceReport

    return {
        "config": RunConfig.model_json_schema(),
        "plan": TypeAdapter(Document).json_schema(),
        "flops": TypeAdapter(FlopsReport).json_schema(),
        "trace": TypeAdapter(TraceReport).json_schema(),
        "comparison": TypeAdapter(Comparison).json_schema(),
    }
