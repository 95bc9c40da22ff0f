"""JSON Schemas (2020-12) of the config and of what the commands print with --json."""

from __future__ import annotations

from typing import Any


def schemas() -> dict[str, Any]:
    """The schemas by name; made from the classes themselves, so that they cannot drift."""
    from pydantic import TypeAdapter  # the adapters cost 50 ms, wanted by this command only

    from planner.batch_report import BatchReport
    from planner.compare import Comparison
    from planner.config import RunConfig
    from planner.curves import CurvesDocument
    from planner.flops_report import FlopsReport
    from planner.preflight import Preflight
    from planner.rate_search import RateSearch
    from planner.report import Document
    from planner.trace_report import TraceReport

    return {
        "config": RunConfig.model_json_schema(),
        "plan": TypeAdapter(Document).json_schema(),
        "batch": TypeAdapter(BatchReport).json_schema(),
        "schedule": TypeAdapter(CurvesDocument).json_schema(),
        "flops": TypeAdapter(FlopsReport).json_schema(),
        "trace": TypeAdapter(TraceReport).json_schema(),
        "comparison": TypeAdapter(Comparison).json_schema(),
        "preflight": TypeAdapter(Preflight).json_schema(),
        "rates": TypeAdapter(RateSearch).json_schema(),
    }
