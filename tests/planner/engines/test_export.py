"""The files of each engine, their launchers, and that learning rates agree where that is claimed."""

from __future__ import annotations

import math
import re
import subprocess
from typing import Any

import pytest

import gptplan
from planner.config.run import RunConfig
from planner.counts.run import rate_at, steps_of
from planner.engines.export import ENGINES, RECORD, engine_export
from planner.engines.launchers import LAUNCHERS
from planner.engines.nanogpt import nanogpt_values
from planner.errors import InputError, UnknownNameError
from tests.planner.engines.configs import GPT2, base_of
from tests.planner.engines.golden import KEPT, golden_files


@pytest.mark.parametrize("name", ENGINES)
def test_the_kept_files_are_what_an_export_writes(name: str) -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in (KEPT / name).iterdir()}
    assert kept == golden_files(name)


@pytest.mark.parametrize("name", ENGINES)
def test_a_record_has_the_version_and_each_carried_key(name: str) -> None:
    done = engine_export(base_of(name), name)
    record = done.files[RECORD]
    assert ENGINES[name].version in record and "bash launch.sh" in record
    assert all(one in record for one in done.differences) and "| model.layers | " in record


def _nanogpt_rate(values: dict[str, Any], it: int) -> float:
    """The rate of iteration `it` by the rule of nanoGPT's train.py at 3adf61e."""
    peak, floor, warmup, end = (values[n] for n in ("learning_rate", "min_lr", "warmup_iters", "lr_decay_iters"))
    if it < warmup:
        return float(peak * (it + 1) / (warmup + 1))
    if it > end:
        return float(floor)
    return float(floor + 0.5 * (1 + math.cos(math.pi * (it - warmup) / (end - warmup))) * (peak - floor))


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_nanogpt_has_the_rate_of_every_update(warmup: int) -> None:
    config = gptplan.plan(**GPT2 | {"tokens": None, "steps": 40, "warmup_steps": warmup})
    values = nanogpt_values(config)
    assert values["max_iters"] + 1 == steps_of(config)  # it stops when iter_num is above max_iters
    for step in range(1, 41):
        assert _nanogpt_rate(values, step - 1) == pytest.approx(rate_at(config, step), rel=1e-12)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_starts_a_process_for_each_gpu(launcher: str) -> None:
    files = engine_export(gptplan.plan(**GPT2 | {"gpus": 16, "allocator": "expandable"}), "nanogpt", launcher).files
    text = files["launch.sh"]
    assert "--nnodes=2 --nproc_per_node=8" in text and "expandable_segments:True" in text
    asks = {
        "torchrun": (),
        "slurm": ("--nodes=2", "--gpus-per-node=8", "NODE_RANK", "HEAD"),
        "skypilot": ("num_nodes: 2", '"H100:8"', "NODE_RANK", "HEAD"),
        "kubernetes": ("completions: 2", "nvidia.com/gpu: 8", "NODE_RANK", "HEAD"),
    }[launcher]
    other = "".join(content for name, content in files.items() if name not in ("launch.sh", RECORD))
    assert all(one in other for one in asks)
    for name in ("launch.sh", "job.slurm"):
        if name in files:
            done = subprocess.run(["bash", "-n"], input=files[name], text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_gpus_that_fill_no_node_are_refused_and_unknown_names_too() -> None:
    config = gptplan.plan(**GPT2 | {"gpus": 12})
    with pytest.raises(InputError, match="fill no whole number of nodes"):
        engine_export(config, "nanogpt")
    with pytest.raises(UnknownNameError, match="--to"):
        engine_export(base_of("nanogpt"), "nanogtp")
    with pytest.raises(UnknownNameError, match="--launcher"):
        engine_export(base_of("nanogpt"), "nanogpt", "pbs")
    with pytest.raises(InputError, match="SkyPilot"):
        engine_export(gptplan.plan(**GPT2 | {"gpu": "a10", "gpus": 1} | {"gpu": "h800"}), "nanogpt", "skypilot")


def test_no_engine_is_claimed_to_train_on_a_cpu_that_does_not() -> None:
    config: RunConfig = gptplan.plan(**GPT2 | {"gpu": "cpu", "gpus": 1, "recipe": "fp32", "runtime": "eager"})
    with pytest.raises(InputError) as caught:
        engine_export(config, "deepspeed")
    assert "hardware.gpu = cpu" in caught.value.why
    assert re.search(r'"use_cpu": true', engine_export(config, "hf-trainer").files["training_args.json"])
