"""A profiler's trace is summed event by event, and set beside the plan's parts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import gptplan
from planner.errors import FileError
from planner.plan import estimate
from planner.report.logs import trace_lines
from planner.runs.logs import trace as trace_module
from planner.runs.logs.compare_trace import GROUPS, compare_trace
from planner.runs.logs.trace import class_of, read_trace
from planner.step_time.bounds import _BOUND

PLAN = estimate(
    gptplan.plan(model="gpt2", gpu="h100-80gb", gpus=8, steps=60, seq=1024, as_of="2026-11-21"), replay=False
)
KERNELS = {
    "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT": ("matrix products", 30_000),
    "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm>": ("matrix products", 10_000),
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>": ("attention", 8_000),
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)": ("communication", 90_000),
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdam>": ("optimizer", 4_000),
    "void at::native::vectorized_elementwise_kernel<4, GeluCUDAKernelImpl>": ("element-wise", 6_000),
    "void (anonymous namespace)::cunn_SoftMaxForward<8, float>": ("loss", 5_000),
    "Memcpy DtoD (Device -> Device)": ("copies", 1_000),
}
STEPS = 2


def _trace(marked: bool = True) -> dict[str, Any]:
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 0, "args": {"name": 'python ["]'}}]
    for step in range(STEPS):
        if marked:
            name = f"ProfilerStep#{step}"
            events.append({"ph": "X", "cat": "user_annotation", "name": name, "ts": step * 2e5, "dur": 200_000})
        for name, (_, micro) in KERNELS.items():
            kind = "gpu_memcpy" if name.startswith("Mem") else "kernel"
            events.append({"ph": "X", "cat": kind, "name": name, "ts": 1.5, "dur": micro, "args": {"stream": 7}})
    events.append({"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1, "dur": 1e9})
    return {"schemaVersion": 1, "deviceProperties": [{"name": "H100"}], "traceEvents": events, "traceName": "x.json"}


def test_kernels_have_their_class() -> None:
    assert {name: class_of(name) for name in KERNELS} == {name: kind for name, (kind, _) in KERNELS.items()}


@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_is_summed_and_the_worst_group_is_first(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "_CHUNK", 97)  # events that lie across two reads
    text = json.dumps(_trace(), indent=1).encode()
    path = tmp_path / ("t.json.gz" if packed else "t.json")
    path.write_bytes(gzip.compress(text) if packed else text)
    sums = read_trace(path)
    assert (sums.steps, sums.step_seconds) == (STEPS, pytest.approx(0.2)) and sums.kernels[
        "matrix products"
    ] == 2 * STEPS
    found = compare_trace(PLAN, sums)
    rows = {row.name: row for row in found.rows}
    assert rows["matrix products, head and loss"].measured == pytest.approx(0.045)
    assert rows["idle"].measured == pytest.approx(0.2 - 0.154)
    assert found.rows[0].name == max(rows.values(), key=lambda row: abs(row.measured - (row.predicted or 0.0))).name
    assert sum(row.predicted or 0.0 for row in found.rows) == pytest.approx(PLAN.throughput.step_seconds.value)
    assert "communication" in trace_lines(found) and "ncclDevKernel" in str(rows["communication"].longest)


def test_without_marked_steps_shares_are_compared(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(_trace(marked=False)))
    found = compare_trace(PLAN, read_trace(tmp_path / "t.json"))
    assert found.steps == 0 and "idle" not in {row.name for row in found.rows}
    assert sum(row.measured for row in found.rows) == pytest.approx(1.0)
    assert sum(row.predicted or 0.0 for row in found.rows) == pytest.approx(1.0)


def test_every_part_of_a_plan_has_a_group_that_was_chosen() -> None:
    grouped = {part for parts, _ in GROUPS.values() for part in parts}
    assert set(_BOUND) <= grouped


CUT = json.dumps(_trace())
HOSTILE = {
    "cut": (CUT[: len(CUT) // 2].encode(), "cannot be read"),
    "no trace": (b'{"events": []}', "no traceEvents"),
    "not json": (b'{"traceEvents": [{]}', "cannot be read"),
    "no kernels": (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "dur": 1}]}', "no GPU kernels"),
    "cut gzip": (gzip.compress(CUT.encode())[:200], "cannot be read"),
    "binary": (bytes(range(256)) * 20, "no traceEvents"),
    "nested": (b'{"traceEvents": [' + b"[" * 200_000, "cannot be read"),
    "a long event": (b'{"traceEvents": [{"name": "' + b"x" * (3 << 20), "cannot be read"),
    "wrong kinds": (
        b'{"traceEvents": [1, "a", {"ph": "X", "cat": "kernel", "name": 3, "dur": "x"}]}',
        "no GPU kernels",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_trace_is_one_message(tmp_path: Path, kind: str) -> None:
    content, words = HOSTILE[kind]
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_trace(tmp_path / "t.json")
    assert words in caught.value.message()


def test_a_trace_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "MOST_TRACE", 1000)
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(CUT.encode()))
    with pytest.raises(FileError, match="cannot be read"):
        read_trace(tmp_path / "t.json.gz")
