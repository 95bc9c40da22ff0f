"""The score of published memory rows, on a small file of made-up rows: every way in, every way out."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import accuracy, accuracy_mapping, largest_batch, memory_rows
from planner import presets
from planner.config.model import ModelConfig
from planner.errors import PlanError
from planner.plan import estimate

GIB = 2**30
GPT2 = {
    "id": "row",
    "source_group": "somebody",
    "quality": "A",
    "task": "pretrain",
    "model": "GPT-2-124M",
    "arch": "dense",
    "params_total": "124439808",
    "n_layers": "12",
    "hidden": "768",
    "n_heads": "12",
    "n_kv_heads": "12",
    "head_dim": "64",
    "ffn": "3072",
    "mlp_type": "plain",
    "vocab": "50257",
    "tied": "1",
    "seq_len": "1024",
    "gpu": "A100 SXM 80GB",
    "n_gpus": "1",
    "precision": "bf16 autocast",
    "dp": "1",
    "tp": "1",
    "pp": "1",
    "cp": "1",
    "sharding": "none",
    "micro_batch": "4",
    "grad_accum": "2",
    "act_ckpt": "none",
    "attn_kernel": "SDPA",
    "compile": "0",
    "outcome": "peak",
    "peak_mem_kind": "torch.cuda.max_memory_allocated()",
    "peak_gib_per_gpu_min": "8",
    "peak_gib_per_gpu_max": "8",
}


def written(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, memory_rows.COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(folder: Path, **changes: str) -> memory_rows.Row:
    return memory_rows.read_rows(written(folder, GPT2 | changes))[0]


def case(folder: Path, **changes: str) -> accuracy_mapping.Case:
    return accuracy_mapping.case_of(row(folder, **changes))


def outcome(folder: Path, **changes: str) -> accuracy.Scored | accuracy.Left:
    return accuracy.score_row(row(folder, **changes))


def peak_gib(folder: Path) -> float:
    found = estimate(case(folder).config, replay=True).memory.peak_allocated_bytes.value
    assert found is not None
    return found / GIB


def test_a_row_becomes_the_configuration_that_it_describes(tmp_path: Path) -> None:
    found = case(tmp_path)
    config = found.config
    assert (config.model.norm_parameters, config.model.position, config.model.biases) == ("gain+bias", "learned", "all")
    assert config.training.recipe == "mixed-bf16" and config.training.runtime == "autocast"
    assert config.training.attention_kernel == "flash" and config.training.accumulation == 2
    assert config.optimizer.implementation == "foreach"
    assert config.hardware.gpu == "a100-80gb"
    assert found.field == "peak_allocated_bytes" and not found.buckets


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"params_total": "124337664"}, {"biases": "none", "norm_parameters": "gain"}),
        ({"model": "Something-new", "params_total": ""}, {"biases": "all", "position": "learned"}),
        ({"model": "Llama-3-tiny", "mlp_type": "gated", "params_total": ""}, {"mlp": "swiglu", "norm": "rmsnorm"}),
        ({"model": "Qwen-0.1B", "mlp_type": "gated", "params_total": ""}, {"biases": "qkv"}),
    ],
)
def test_the_family_of_a_name_gives_what_the_columns_do_not(
    tmp_path: Path, changes: dict[str, str], expected: dict[str, str]
) -> None:
    model = case(tmp_path, **changes).config.model
    assert {key: getattr(model, key) for key in expected} == expected


def test_a_family_that_is_only_assumed_is_said_to_be(tmp_path: Path) -> None:
    assert "family assumed" in case(tmp_path, model="Something-new", params_total="").mapping
    assert "family assumed" not in case(tmp_path).mapping


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("torch max_memory_allocated /1e9", "peak_allocated_bytes"),
        ("torch reserved peak, max over ranks", "peak_reserved_bytes"),
        ("nvidia-smi used (of 46068 MiB total)", "device_used_bytes"),
        ("torch peak", "peak_allocated_bytes"),
    ],
)
def test_the_predicted_quantity_follows_what_was_measured(tmp_path: Path, kind: str, field: str) -> None:
    assert case(tmp_path, peak_mem_kind=kind).field == field


def test_a_card_too_old_for_the_compiler_runs_eagerly(tmp_path: Path) -> None:
    assert case(tmp_path, compile="default").config.training.runtime == "compiled"
    assert case(tmp_path, compile="default", gpu="P100 SXM2 16GB").config.training.runtime == "autocast"


def test_a_source_says_what_no_column_does(tmp_path: Path) -> None:
    assert case(tmp_path, source="karpathy/nanoGPT issue").config.optimizer.implementation == "fused"
    assert case(tmp_path, notes="fused AdamW, torch 2.8").config.optimizer.implementation == "fused"
    languini = case(tmp_path, source_group="languini x", compile="default").config
    assert languini.optimizer.clip_norm is None and languini.training.runtime == "autocast"
    assert languini.model.mlp == "gelu"
    assert case(tmp_path, model="languini GPT tiny", params_total="").config.model.mlp == "gelu-written-out"


def test_ddp_buckets_are_one_more_copy_of_the_gradients(tmp_path: Path) -> None:
    one, two = outcome(tmp_path), outcome(tmp_path, sharding="ddp", dp="8", n_gpus="8")
    assert isinstance(one, accuracy.Scored) and isinstance(two, accuracy.Scored)
    assert two.predicted - one.predicted == estimate(one.case.config).memory.gradients_bytes > 0


EXCLUSIONS = {
    "not pre-training": {"task": "lora"},
    "sharded": {"sharding": "fsdp2", "dp": "8", "n_gpus": "8"},
    "not a dense model": {"arch": "moe"},
    "GPU not mapped": {"gpu": "Voodoo 5 6000"},
    "not a peak": {"outcome": "component"},
    "no measured size": {"peak_gib_per_gpu_min": "", "peak_gib_per_gpu_max": ""},
    "kind of memory not stated": {"peak_mem_kind": "as printed"},
    "recipe not counted": {"precision": "int8 mixed"},
    "precision unknown": {"precision": "posit16"},
    "attention kernel unknown": {"attn_kernel": "homemade"},
    "activation checkpointing not stated or not counted": {"act_ckpt": "unstated"},
    "compiler not counted": {"compile": "thunder sdpa+nvfuser"},
    "micro-batch or sequence not stated": {"micro_batch": ""},
    "model shape not stated": {"n_layers": ""},
    "model family unknown": {"model": "Something-new", "mlp_type": ""},
    "model not counted": {"n_kv_heads": "5", "params_total": ""},
    "parameter count contradicts the shape": {"params_total": "1300000000"},
}


@pytest.mark.parametrize("reason", EXCLUSIONS)
def test_a_row_that_cannot_be_scored_is_counted_under_its_reason(tmp_path: Path, reason: str) -> None:
    left = outcome(tmp_path, **EXCLUSIONS[reason])
    assert isinstance(left, accuracy.Left) and left.reason == reason
    assert isinstance(outcome(tmp_path), accuracy.Scored)  # the row without the change


@pytest.mark.parametrize(
    "changes",
    [{"tp": "2"}, {"pp": "2"}, {"cp": "2"}, {"sharding": "zero1 (DeepSpeed)"}, {"sharding": "", "n_gpus": "8"}],
)
def test_whatever_is_cut_up_among_gpus_is_sharded(tmp_path: Path, changes: dict[str, str]) -> None:
    assert accuracy_mapping.is_sharded(row(tmp_path, **changes))
    assert not accuracy_mapping.is_sharded(row(tmp_path, sharding="ddp", dp="8", n_gpus="8"))


def test_a_refusal_of_the_planner_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object, replay: bool) -> None:
        raise PlanError("no such thing")

    monkeypatch.setattr(accuracy, "estimate", refuse)
    left = outcome(tmp_path)
    assert isinstance(left, accuracy.Left) and (left.reason, left.detail) == ("refused by the planner", "no such thing")


def test_the_error_is_nought_inside_an_ambiguous_unit() -> None:
    assert accuracy.signed_error(9.5, 9.0, 10.0) == 0.0
    assert accuracy.signed_error(9.0, 9.0, 10.0) == accuracy.signed_error(10.0, 9.0, 10.0) == 0.0
    assert accuracy.signed_error(8.0, 9.0, 10.0) == pytest.approx(math.log(8 / 9))
    assert accuracy.signed_error(12.0, 9.0, 10.0) == pytest.approx(math.log(12 / 10))


def test_percentiles_lie_between_neighbours() -> None:
    assert accuracy.percentile([0.3], 0.9) == 0.3
    assert accuracy.percentile([5, 1, 2, 4, 3], 0.9) == pytest.approx(4.6)


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


def scored_file(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict:  # type: ignore[type-arg]
    assert accuracy.main(["--memory", str(path), "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


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
    assert found["quality_a_pretraining"] == {"n": 4, "sharded": 0, "unsharded": 4, "unsharded_kept": 3}


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
    path = written(tmp_path, VERDICT, GPT2, VERDICT | {"gpu": "Voodoo 5 6000"})
    assert largest_batch.main(["--memory", str(path)]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[-2:] == [str(largest), f"{largest / 4 - 1:+.0%}"]
    assert largest_batch.main(["--memory", str(tmp_path / "none.csv")]) == 2


def test_what_torch_2_0_keeps_of_a_block_is_as_documented() -> None:
    """docs/why/accuracy.md: 8h + 16, 8q, 6aT and 8f bytes per token and block, beside the casts of its weights."""
    found = json.loads((accuracy_mapping.DATA.parent / "results" / "cut-torch-2.0.0.json").read_text(encoding="utf-8"))
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
    assert found["verdicts"] == {"oom": {"n": 13, "right": 8}, "fits": {"n": 13, "right": 8}}
    assert found["median_of_group_p90"] < 0.01 and found["under_estimates"] == []


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


MALFORMED = {
    "cannot read": None,
    "is empty": "",
    "has no column source_group": "id,task\n1,pretrain\n",
    "n_layers is 'twelve'": GPT2 | {"n_layers": "twelve"},
    "micro_batch is '2.5'": GPT2 | {"micro_batch": "2.5"},
    "hidden is 'nan'": GPT2 | {"hidden": "nan"},
    "tied is 'yes'": GPT2 | {"tied": "yes"},
    "peak_gib_per_gpu_min is '-1'": GPT2 | {"peak_gib_per_gpu_min": "-1"},
    "are no range": GPT2 | {"peak_gib_per_gpu_min": "9"},
    "id is blank": GPT2 | {"id": ""},
}


@pytest.mark.parametrize("message", MALFORMED)
def test_a_file_that_cannot_be_used_is_one_message(
    tmp_path: Path, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, path = MALFORMED[message], tmp_path / "rows.csv"
    if isinstance(content, dict):
        path = written(tmp_path, content)
    elif content is not None:
        path.write_text(content, encoding="utf-8")
    assert accuracy.main(["--memory", str(path), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and message in shown.err and shown.err.count("fix:") == 1


def test_bytes_and_ragged_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfe\x00id")
    assert accuracy.main(["--memory", str(path)]) == 2
    path = written(tmp_path, GPT2)
    path.write_text(path.read_text(encoding="utf-8") + "1,2,3\n", encoding="utf-8")
    assert accuracy.main(["--memory", str(path)]) == 2
    assert "line 3: not as many cells" in capsys.readouterr().err


def test_every_row_of_the_default_file_is_read_and_its_card_known() -> None:
    rows = memory_rows.read_rows(accuracy.DEFAULT)
    assert len({r.id for r in rows}) == len(rows) >= 50
    assert all(r.source and r.task == "pretrain" and r.n_gpus == 1 for r in rows)
    assert not [r.id for r in rows if accuracy_mapping._gpu(r) == ""]


def test_the_names_in_the_tables_are_presets_and_options() -> None:
    known = set(presets.gpu_ids())
    assert {id for id in accuracy_mapping._gpu_names().values() if id} <= known
    assert set(accuracy_mapping._toml("gpu_names")["compiler"]["too_old"]) <= known
    for entry in (*accuracy_mapping._toml("families")["family"], *accuracy_mapping._toml("families")["default"]):
        for variant in ({}, *entry.get("alternatives", ())):
            shape = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 128, "vocab": 99}
            rest = {"name": "x", "context": 16, "tied_embeddings": True, "source": entry["source"]}
            ModelConfig.model_validate(shape | rest | entry["shape"] | variant)
