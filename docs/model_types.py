"""The table of model types in docs/reference/models.md: what each is checked against, and whether it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.shell import ROOT
from planner.counts.untrained import untrained_parts
from planner.inputs.huggingface import FAMILIES, hf_model_of
from planner.inputs.huggingface.kinds import MULTIMODAL, OTHER_KINDS
from planner.inputs.huggingface.simplified import SIMPLIFIED

DATA = ROOT / "tests" / "published" / "data"
HERE = Path("config.json")


def model_types() -> str:
    """A row per model type, then the multimodal types, then those that are refused with their reason."""
    built = {path.stem.removeprefix("hf_numels_"): _cases(path) for path in sorted(DATA.glob("hf_numels_*.json"))}
    published = json.loads((DATA / "hf_published.json").read_text(encoding="utf-8"))
    lines = ["| model_type | models | parameters checked against | `gptplan run` |", "|---|---|---|---|"]
    for kind in FAMILIES:
        cases = {version: [c for c in cases if _kind(c) == kind] for version, cases in built.items()}
        rows = [row for row in published if _kind(row) == kind]
        every = [case for found in (*cases.values(), rows) for case in found]
        lines.append(f"| `{kind}` | {_models(kind)} | {_checks(cases, rows)} | {_run(kind, every)} |")
    inside = ", ".join(f"`{outer}`" for outer in MULTIMODAL)
    reasons: dict[str, list[str]] = {}
    for kind, why in OTHER_KINDS.items():
        reasons.setdefault(why, []).append(f"`{kind}`")
    refused = [f"- {', '.join(sorted(kinds))}: {why}." for why, kinds in reasons.items()]
    about = f"Of the multimodal types {inside} the language model (`text_config`) is read alone, which the plan says."
    return "\n".join([*lines, "", about, "", "Refused, with the reason:", "", *refused])


def _cases(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return found


def _kind(case: dict[str, Any]) -> str:
    config = case["config"]
    return str(config.get("text_config", config)["model_type"])


def _models(kind: str) -> str:
    """The first line of the reader's docstring."""
    return (FAMILIES[kind].__doc__ or "").strip().splitlines()[0].rstrip(".")


def _checks(cases: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]]) -> str:
    versions = [
        f"transformers {version} ({len(found)} shape{'s'[: len(found) > 1]})"
        for version, found in cases.items()
        if found
    ]
    names = [f"{row['name']}: {row['source']}" for row in rows]
    return "; ".join([*versions, *names])


def _run(kind: str, cases: list[dict[str, Any]]) -> str:
    """Whether the reference trainer has all its parts; those that it lacks in some of the checked shapes."""
    found = [untrained_parts(hf_model_of(case["config"], HERE).model) for case in cases]
    parts = dict.fromkeys(part for each in found for part in each)
    if not parts:
        return f"yes, without {SIMPLIFIED[kind]}" if kind in SIMPLIFIED else "yes"
    return f"{'no' if all(found) else 'not with'}: {', '.join(parts)}"
