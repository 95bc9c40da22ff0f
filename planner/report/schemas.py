"""JSON Schemas (2020-12) of the config and of what the commands print with --json."""

from __future__ import annotations

from typing import Any


def schemas() -> dict[str, Any]:
    """The schemas by name; made from the classes themselves, so that they cannot drift."""
    from pydantic import TypeAdapter  # the adapters cost 50 ms, wanted by this command only

    from planner.analysis.batch import BatchReport
    from planner.analysis.flops import FlopsReport
    from planner.analysis.replay import TraceReport
    from planner.analysis.schedules import CurvesDocument
    from planner.config.run import RunConfig
    from planner.document import Document
    from planner.runs.comparison import Comparison
    from planner.runs.preflight import Preflight
    from planner.runs.rate_search import RateSearch

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
