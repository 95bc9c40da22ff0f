"""JSON Schemas (2020-12) of the config and of what the commands print with --json."""

from __future__ import annotations

from typing import Any

from planner.interval import KEY_ENDS


def schemas() -> dict[str, Any]:
    """The schemas by name; generated from the classes."""
    from pydantic import TypeAdapter  # the adapters cost 50 ms, wanted by this command only

    from planner.analysis.batch import BatchReport
    from planner.analysis.flops import FlopsReport
    from planner.analysis.replay import TraceReport
    from planner.analysis.schedules import CurvesDocument
    from planner.config.run import RunConfig
    from planner.document import Document
    from planner.report.fit import FitDocument
    from planner.report.search import SearchDocument
    from planner.runs.comparison import Comparison
    from planner.runs.preflight import Preflight
    from planner.runs.rate_search import RateSearch

    return {
        "config": RunConfig.model_json_schema(),
        "plan": _flat(TypeAdapter(Document).json_schema()),
        "batch": TypeAdapter(BatchReport).json_schema(),
        "schedule": TypeAdapter(CurvesDocument).json_schema(),
        "flops": TypeAdapter(FlopsReport).json_schema(),
        "trace": TypeAdapter(TraceReport).json_schema(),
        "comparison": TypeAdapter(Comparison).json_schema(),
        "preflight": TypeAdapter(Preflight).json_schema(),
        "lr-find": TypeAdapter(RateSearch).json_schema(),
        "search": TypeAdapter(SearchDocument).json_schema(),
        "fit": TypeAdapter(FitDocument).json_schema(),
    }


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with three properties for each Interval, as `flattened` writes them."""
    defined = schema["$defs"]
    intervals = {f"#/$defs/{name}": defined.pop(name) for name in list(defined) if name.startswith("Interval_")}
    for part in defined.values():
        if any(each.get("$ref") in intervals for each in part.get("properties", {}).values()):
            keys = {name: _keys(name, each, intervals) for name, each in part["properties"].items()}
            part["properties"] = {key: each for found in keys.values() for key, each in found.items()}
            part["required"] = [key for name in part["required"] for key in keys[name]]
    return schema


def _keys(name: str, described: dict[str, Any], intervals: dict[str, Any]) -> dict[str, Any]:
    interval = intervals.get(described.get("$ref", ""))
    if interval is None:
        return {name: described}
    return {
        f"{name}{end}": {
            "anyOf": interval["properties"][part]["anyOf"],
            "title": f"{name}{end}".replace("_", " ").title(),
        }
        for end, part in KEY_ENDS.items()
    }
