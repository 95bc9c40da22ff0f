"""Every rule file loads, names its sources, and names only GPUs that have a preset."""

from __future__ import annotations

import pytest

from planner import presets
from planner.analysis.findings import findings
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.rules import roofline_of, rules

NAMES = sorted(p.stem for p in (presets.PRESETS / "rules").glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_a_source_and_a_date(name: str) -> None:
    table = rules(name)
    assert table["as_of"] in ("2026-11-21", "2026-11-27")
    parts = [table] if "source" in table else [v for v in table.values() if isinstance(v, dict | list)]
    for part in parts:
        for section in part if isinstance(part, list) else [part]:
            inner = [v for v in section.values() if isinstance(v, dict)]
            sourced = [section] if "source" in section else inner
            assert sourced and all(len(s["source"]) > 10 for s in sourced), section


def test_the_cards_of_attention_kernels_exist() -> None:
    for key in ("cudnn_first", "efficient_measured"):
        assert set(rules("attention")[key]["gpus"]) <= set(presets.gpu_ids())


def test_roofline_shares_are_shares_and_their_gpus_exist() -> None:
    for family in [*rules("roofline")["family"], rules("roofline")["any"]]:
        assert set(family.get("gpus", [])) <= set(presets.gpu_ids())
        for key in ("gemm_share", "attention_share", "bandwidth_share", "link_share"):
            assert 0 < family[key] < 1, key
        assert family["width"] > 1


def test_a_card_without_a_family_gets_the_wide_interval() -> None:
    assert roofline_of("rtx-4090")["width"] > roofline_of("a100-80gb")["width"]


def test_rates_fall_and_batches_grow_with_size_within_a_source() -> None:
    rows = rules("by-size")["row"]
    assert [r["parameters"] for r in rows] == sorted(r["parameters"] for r in rows)
    for source in {r.get("source") for r in rows}:
        own = [r for r in rows if r.get("source") == source]
        assert [r["peak_lr"] for r in own] == sorted((r["peak_lr"] for r in own), reverse=True)
        assert [r["batch_tokens"] for r in own] == sorted(r["batch_tokens"] for r in own)


@pytest.mark.parametrize("size", [1e7, 1.25e8, 1e9, 7e9, 2e10, 7e10, 1.75e11, 6.71e11])
def test_defaults_by_size_are_not_what_the_findings_complain_of(size: float) -> None:
    flags = Flags(params=f"{size:.0f}", tokens=f"{20 * size:.0f}", gpu="h100-80gb")
    plan = estimate(draft(flags, as_of="2026-01-31", version="0.test"))
    assert "batch_tokens" not in {f.code for f in findings(plan)}
    if size < 1e11:  # GPT-3's own rate is below the later models' range
        assert "peak_lr" not in {f.code for f in findings(plan)}


@pytest.mark.parametrize(
    "words, seq", [(("gpt2",), 1024), (("llama-2-7b",), 4096), (("llama-3.2-1b",), 4096), (("llama-2-7b", "2k"), 2000)]
)
def test_a_published_model_is_planned_at_a_sequence_that_it_was_trained_at(words: tuple[str, ...], seq: int) -> None:
    model, flags = words[0], words[1] if len(words) > 1 else None
    config = draft(Flags(model=model, tokens="10B", seq=flags), as_of="2026-01-31", version="0.test")
    assert config.training.seq == seq
    assert ("seq" in {a.key for a in config.provenance.assumptions}) == (flags is None)
