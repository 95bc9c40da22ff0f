"""Every rule file loads, names its sources, and speaks of GPUs that exist."""

from __future__ import annotations

import pytest

from planner import presets
from planner.rules import roofline_of, rules

NAMES = sorted(p.stem for p in (presets.PRESETS / "rules").glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_a_source_and_a_date(name: str) -> None:
    table = rules(name)
    assert table["as_of"] == "2026-11-21"
    parts = [table] if "source" in table else [v for v in table.values() if isinstance(v, dict | list)]
    for part in parts:
        for section in part if isinstance(part, list) else [part]:
            inner = [v for v in section.values() if isinstance(v, dict)]
            assert all(len(s["source"]) > 10 for s in (inner or [section])), section


def test_roofline_shares_are_shares_and_their_gpus_exist() -> None:
    for family in [*rules("roofline")["family"], rules("roofline")["any"]]:
        assert set(family.get("gpus", [])) <= set(presets.gpu_ids())
        for key in ("gemm_share", "attention_share", "bandwidth_share", "link_share"):
            assert 0 < family[key] < 1, key
        assert family["width"] > 1


def test_a_card_without_a_family_gets_the_wide_interval() -> None:
    assert roofline_of("rtx-4090")["width"] > roofline_of("a100-80gb")["width"]


def test_rates_fall_with_size() -> None:
    rows = rules("peak-rate")["row"]
    assert [r["parameters"] for r in rows] == sorted(r["parameters"] for r in rows)
    assert [r["peak_lr"] for r in rows] == sorted((r["peak_lr"] for r in rows), reverse=True)
