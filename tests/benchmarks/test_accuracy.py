"""Scores of predicted memory: errors, percentiles, groups, verdicts, the largest batch, and what is printed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import accuracy, accuracy_setup, accuracy_summary, largest_batch
from tests.benchmarks.made_rows import GPT2, case, outcome, peak_gib, row, scored_file, written


def test_the_error_is_nought_inside_an_ambiguous_unit() -> None:
    assert accuracy.signed_error(9.5, 9.0, 10.0) == 0.0
    assert accuracy.signed_error(9.0, 9.0, 10.0) == accuracy.signed_error(10.0, 9.0, 10.0) == 0.0
    assert accuracy.signed_error(8.0, 9.0, 10.0) == pytest.approx(math.log(8 / 9))
    assert accuracy.signed_error(12.0, 9.0, 10.0) == pytest.approx(math.log(12 / 10))


def test_percentiles_lie_between_neighbours() -> None:
    assert accuracy_summary.percentile([0.3], 0.9) == 0.3
    assert accuracy_summary.percentile([5, 1, 2, 4, 3], 0.9) == pytest.approx(4.6)


def test_groups_are_summed_up_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peak = peak_gib(tmp_path)

    def measured(group: str, factor: float) -> dict[str, str]:
        size = repr(peak * factor)
        changed = {"id": f"{group} {factor}", "source_group": group}
        return GPT2 | changed | {"peak_gib_per_gpu_min": size, "peak_gib_per_gpu_max": size}

    rows = [measured("a", math.exp(off)) for off in (0.0, 0.1, -0.02)] + [measured("b", math.exp(0.3))]
    found = scored_file(written(tmp_path, *rows), capsys)
    assert [(g["source_group"], g["n"]) for g in found["groups"]] == [("a", 3), ("b", 1)]
    assert [g["median"] for g in found["groups"]] == pytest.approx([0.02, 0.3])
    assert [g["worst"] for g in found["groups"]] == pytest.approx([0.1, 0.3])
    assert found["groups"][0]["p90"] == pytest.approx(0.084)
    assert found["median_of_group_medians"] == pytest.approx(0.16)
    assert found["median_of_group_p90"] == pytest.approx((0.084 + 0.3) / 2)
    assert [r["id"] for r in found["under_estimates"]] == [f"a {math.exp(0.1)}", f"b {math.exp(0.3)}"]


def test_verdicts_are_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = GPT2 | {"peak_mem_kind": "", "peak_gib_per_gpu_min": "", "peak_gib_per_gpu_max": ""}
    rows = [
        verdict | {"outcome": "fits", "micro_batch": "1"},
        verdict | {"outcome": "fits", "micro_batch": "4000", "id": "too large"},
        verdict | {"outcome": "oom", "micro_batch": "4000"},
        verdict | {"outcome": "oom", "micro_batch": "4000", "gpu": "Voodoo 5 6000"},
    ]
    found = scored_file(written(tmp_path, *rows), capsys)
    assert found["verdicts"] == {"oom": {"n": 1, "right": 1}, "fits": {"n": 2, "right": 1}}
    assert [r["id"] for r in found["wrong_verdicts"]] == ["too large"]
    assert found["groups"] == [] and found["median_of_group_medians"] is None
    assert found["excluded"] == {"GPU not mapped": 1}
    assert found["quality_a_pretraining"] == {
        "n": 4,
        "sharded": 0,
        "sharded_kept": 0,
        "unsharded": 4,
        "unsharded_kept": 3,
    }


def test_a_layout_that_ran_did_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = GPT2 | {"tp": "2", "n_gpus": "2", "vocab": "50304", "params_total": ""}
    oom = layout | {"outcome": "oom", "peak_gib_per_gpu_min": "", "peak_gib_per_gpu_max": ""}
    rows = [layout, layout | {"micro_batch": "4000"}, oom | {"micro_batch": "4000"}, oom | {"gpu": "A100 SXM 40GB"}]
    found = scored_file(written(tmp_path, *rows), capsys)
    right = {kind: (v["n"], v["right"], v["clear"], v["clear_right"]) for kind, v in found["layout_verdicts"].items()}
    assert right == {"oom": (2, 1, 2, 1), "peak": (2, 1, 2, 1)}
    assert found["verdicts"] == {"oom": {"n": 0, "right": 0}, "fits": {"n": 0, "right": 0}}
    assert len(found["layouts_outside"]) == 2 and found["quality_a_pretraining"]["sharded_kept"] == 4


VERDICT = GPT2 | {"outcome": "fits", "peak_mem_kind": "", "peak_gib_per_gpu_min": "", "peak_gib_per_gpu_max": ""}


def test_buffers_of_a_program_lie_beside_the_model(tmp_path: Path) -> None:
    alone, beside = case(tmp_path), case(tmp_path, source_group="languini x")
    assert alone.buffers == () and beside.buffers == (64 * 2**20,) * 12
    one, two = outcome(tmp_path), accuracy.score_row(replace(row(tmp_path), source="languini"))
    assert isinstance(one, accuracy.Scored) and isinstance(two, accuracy.Scored)
    assert two.predicted - one.predicted == 12 * 64 * 2**20
    assert accuracy.verdict_of(beside)
    assert not accuracy.verdict_of(replace(beside, buffers=(2**30,) * 80))  # as much as the card has


def test_the_largest_batch_fits_and_the_next_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = case(tmp_path, **VERDICT)
    largest = largest_batch.largest_batch(found)
    training = found.config.training

    def fits(sequences: int) -> bool | None:
        config = found.config.model_copy(update={"training": training.model_copy(update={"micro_batch": sequences})})
        return accuracy.verdict_of(replace(found, config=config))

    assert fits(largest) and not fits(largest + 1) and 8 < largest < 200
    layout = VERDICT | {"tp": "2", "n_gpus": "2", "vocab": "50304", "params_total": "", "outcome": "oom"}
    path = written(tmp_path, VERDICT, GPT2, VERDICT | {"gpu": "Voodoo 5 6000"}, layout, layout | {"micro_batch": "500"})
    assert largest_batch.main(["--memory", str(path)]) == 0
    _, line, early, late = capsys.readouterr().out.splitlines()
    assert early.split()[-4] == "<4" and early.endswith("too large")
    assert late.split()[-2] == "<500" and largest < int(late.split()[-1]) < 500
    assert line.split()[-2:] == [str(largest), f"{largest / 4 - 1:+.0%}"]
    assert largest_batch.main(["--memory", str(tmp_path / "none.csv")]) == 2


def test_what_torch_2_0_keeps_of_a_block_is_as_documented() -> None:
    """docs/why/accuracy.md: 8h + 16, 8q, 6aT and 8f bytes per token and block, beside the casts of its weights."""
    found = json.loads((accuracy_setup.DATA.parent / "results" / "cut-torch-2.0.0.json").read_text(encoding="utf-8"))
    h, a, seq, layers, sequences = (found[key] for key in ("hidden", "heads", "seq", "layers", "sequences"))
    q, f, tokens = a * found["head_dim"], 4 * h, seq * sequences
    item = {"torch.float32": 4, "torch.bfloat16": 2, "torch.bool": 1, "torch.int64": 8}
    per_token = casts = mask = 0
    for tensor in found["kept"]:
        count = tensor["times"] * math.prod(tensor["shape"])
        size = count * item[tensor["dtype"]]
        if tensor["shape"][0] in (sequences, sequences * a, tokens) and found["vocab"] not in tensor["shape"]:
            per_token += size
        elif tensor["dtype"] == "torch.bool":
            mask += size
        elif tensor["operator"].startswith("prims.convert") and found["vocab"] not in tensor["shape"]:
            casts += size
    ends = 4 * h + 2 * h + 8
    assert per_token == tokens * (layers * (8 * h + 16 + 8 * q + 6 * a * seq + 8 * f) + ends)
    assert (casts, mask) == (2 * layers * (4 * h * q + 2 * h * f), layers * seq**2)


def test_the_published_verdicts_come_out_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    found = scored_file(accuracy.DEFAULT, capsys)
    assert found["verdicts"] == {"oom": {"n": 13, "right": 9}, "fits": {"n": 13, "right": 7}}
    assert found["layout_verdicts"]["peak"]["clear_right"] == found["layout_verdicts"]["peak"]["clear"] > 90
    assert found["median_of_group_medians"] < 0.05
    committed = json.loads((accuracy_setup.DATA.parent / "results" / "memory_rows.json").read_text(encoding="utf-8"))
    assert found["groups"] == [pytest.approx(group) for group in committed["groups"]]
    assert not [row for row in found["under_estimates"] if "runpod" in row["id"]]


def test_every_row_is_printed_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = peak_gib(tmp_path)
    path = written(tmp_path, GPT2, GPT2 | {"id": "other", "task": "sft"})
    first, second = scored_file(path, capsys, "--rows")["rows"]
    assert first["actual_gib"] == [8.0, 8.0] and first["predicted_gib"] == pytest.approx(predicted, abs=1e-3)
    assert first["mapping"][:3] == ["a100-80gb", "mixed-bf16", "autocast"]
    assert second == {"id": "other", "excluded": "not pre-training", "detail": "sft"}
    assert accuracy.main(["--memory", str(path), "--rows"]) == 0
    text = capsys.readouterr().out
    assert "not pre-training: sft" in text and "8.00 GiB" in text and "somebody" in text
