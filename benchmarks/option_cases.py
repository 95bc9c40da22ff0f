"""The options that are checked against PyTorch: small models and runs from `data/option_cases.toml`, as configs.

A case is run as each of `VARIANTS` and with each way of checkpointing; what these reach is what
docs/reference/coverage.md calls exact.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags

FILE = Path(__file__).parent / "data" / "option_cases.toml"
CHECKPOINTING = ("none", "selective", "full", "offloaded")
# five blocks: of a run of alike units only the first and the last are simulated, the others are added at once
REPEATED: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "second micro-batch, tied": {},
    "every other block unturned": {"no_position_every": 2},
    "norms on both sides": {},
    "every other block sees all": {"full_attention_every": 3},
    "window and ALiBi": {},
    "documents cut apart": {},
    "documents cut apart, every other block sees all": {"full_attention_every": 3},
    "documents cut apart, one of two blocks recomputed": {"activation_checkpointing_every": 3},
    "scores kept, grouped queries": {},
    "dropout": {},
    "fused loss, capped, tied": {},
    "latent attention": {},
    "experts": {},
    "first blocks dense, latent attention": {},
    "one block of two recomputed": {},
    "one block of two recomputed, gated": {"activation_checkpointing_every": 3},
}
# runtime and checkpointing of these
LONG = (("eager", "none"), ("eager", "full"), ("autocast", "none"))
# runtime and recipe
VARIANTS = (("eager", "mixed-bf16"), ("eager", "fp32"), ("autocast", "mixed-bf16"))
PLAIN = ("gpt2", "llama")  # cases that run with every recipe, in these runtimes
RECIPES = (
    *(("eager", r) for r in ("pure-bf16", "master-bf16", "master-bf16-grad16", "mixed-fp16", "tf32", "autocast")),
    *(("autocast", r) for r in ("mixed-fp16", "autocast")),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One case in one runtime, recipe and kind of checkpointing."""

    case: str
    runtime: str
    recipe: str
    checkpointing: str

    @property
    def id(self) -> str:
        """Its name in tests and tables."""
        return f"{self.case}, {self.runtime}, {self.recipe}, {self.checkpointing}"


@cache
def cases() -> dict[str, dict[str, Any]]:
    """The cases by name, each with its `base` and the changed keys of [model] and [training]."""
    return {case["name"]: case for case in _file()["case"]}


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def rows() -> Iterator[Row]:
    """Every case in every variant and kind of checkpointing; in fp32 only none and full, except the plain cases."""
    for (name, case), (runtime, recipe) in itertools.product(cases().items(), VARIANTS):
        for mode in case.get("checkpointing", CHECKPOINTING):
            if recipe != "fp32" or mode in ("none", "full") or name in PLAIN:
                yield Row(name, runtime, recipe, mode)
    for name, (runtime, recipe), mode in itertools.product(PLAIN, RECIPES, CHECKPOINTING):
        yield Row(name, runtime, recipe, mode)


def config_of(row: Row, **changes: Any) -> RunConfig:
    """The config of a row; `changes` are further keys of [model] or [training]."""
    case, size = cases()[row.case], dict(_file()["size"])
    base = case["base"]
    flags = Flags(
        family=base,
        kv_heads="2" if base == "llama" else None,
        accumulation="1",
        steps="10",
        recipe=row.recipe,
        activation_checkpointing="full" if row.checkpointing == "offloaded" else row.checkpointing,
        **{key: str(value) for key, value in size.items()},
    )
    config = draft(flags, as_of="2026-11-21", version="reference")
    values = config.model_dump()
    mode = {"runtime": row.runtime, "activation_checkpointing": row.checkpointing}
    for key, value in {**case.get("model", {}), **case.get("training", {}), **mode, **changes}.items():
        section = "model" if key in values["model"] else "training"
        values[section][key] = value
    return RunConfig.model_validate(values)


def long_rows() -> Iterator[Row]:
    """The rows that are also run with five blocks."""
    for row in rows():
        ways = (row.runtime, row.checkpointing) in LONG or ("recomputed" in row.case and row.checkpointing == "full")
        if row.case in REPEATED and row.recipe == "mixed-bf16" and ways:
            yield row


def long_config_of(row: Row, layers: int = 5) -> RunConfig:
    """The config of a row with more blocks, in units that repeat."""
    return config_of(row, layers=layers, **REPEATED[row.case])
