"""Files of made-up measured rows, and the result for one row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import accuracy, accuracy_mapping, memory_rows
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


def scored_file(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict:  # type: ignore[type-arg]
    assert accuracy.main(["--memory", str(path), "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found
