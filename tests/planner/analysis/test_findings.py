"""Each finding is raised by a small config with its cause, and not by a similar config without it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import planner.analysis as analysis
from planner.analysis.findings import findings
from planner.analysis.stored_weights import weights_findings
from planner.config.rope import RopeScalingConfig
from planner.config.run import RunConfig
from planner.finding import Finding
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.safetensors import StoredTensor
from planner.plan import estimate
from tests.planner.step_time.test_profile import made_up

SMALL = {"params": "125M", "tokens": "10B", "gpu": "a100-80gb", "runtime": "eager"}
SEVEN = {"model": "llama-2-7b", "gpu": "h200"}  # the model stands in place of --params
LLAMA_3 = {"model": "llama-3.2-1b", "gpu": "h200"}
WEIGHTS = ("weights_match", "weights_layers", "weights_embedding", "weights_head", "weights_blocks",
           "weights_parameters")  # fmt: skip

# code, level, flags with the finding, flags without it; both over SMALL
RAISED: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("does_not_fit", "error", {"micro_batch": "79"}, {"micro_batch": "78"}),
    ("fits_unknown", "warning", {"gpu": "rtx-5090", "micro_batch": "30"}, {"gpu": "rtx-5090", "micro_batch": "29"}),
    ("allocator_thrash", "warning", SEVEN, {**SEVEN, "loss_kind": "fused"}),
    ("nearly_full", "warning", {"micro_batch": "75"}, {"micro_batch": "74"}),
    ("memory_upper_bound", "warning", {"runtime": "compiled", "dropout": "0.1"}, {"runtime": "compiled"}),
    ("selective_saves_little", "note", {"activation_checkpointing": "selective"}, {"activation_checkpointing": "full"}),
    ("no_profile", "warning", {"gpu": "cpu"}, {"gpu": "cpu", "tflops": "0.1"}),
    ("unpriced_parts", "warning", {"gpu": "cpu", "recipe": "mixed-fp16"}, {"gpu": "cpu"}),
    ("profile_left_aside", "note", {"recipe": "mixed-fp16"}, {"runtime": "compiled"}),
    ("unlisted_gpu", "warning", {"gpu": "unlisted-gpu"}, {"gpu": "unlisted-gpu", "tflops": "50"}),
    ("unknown_speed", "warning", {"gpu": "v100-32gb", "precision": "bf16"}, {"gpu": "v100-32gb", "tflops": "50"}),
    ("rate_of_adamw", "warning", {"optimizer": "lion"}, {"optimizer": "lion", "peak_lr": "1e-4"}),
    ("no_clipping", "warning", {}, {}),
    ("clip_norm", "note", {}, {}),
    ("weight_decay", "note", {}, {}),
    ("beta2", "note", {}, {}),
    ("recipe_not_run", "note", {"gpu": "h100-80gb", "recipe": "fp8-te"}, {"gpu": "h100-80gb", "recipe": "pure-bf16"}),
    ("rope_scaling_not_trained", "warning", LLAMA_3, LLAMA_3),
    ("nominal_differs", "warning", {"params": "3M"}, {"params": "5M"}),
    ("vocab_padding", "note", {}, {"pad_vocab": "64"}),
    ("no_checkpoints", "warning", {}, {"checkpoint_every": "1000"}),
    ("old_price", "note", {}, {"price_per_gpu_hour": "2"}),
    ("unknown_price", "note", {"gpu": "a800-80gb"}, {"gpu": "a800-80gb", "price_per_gpu_hour": "2"}),
    ("batch_tokens", "note", {"global_batch_tokens": "128Ki"}, {}),
    ("critical_batch", "note", {"global_batch_tokens": "2Mi"}, {}),
    ("few_steps", "warning", {"tokens": "20M"}, {"tokens": "200M"}),
    ("tokens_per_parameter", "note", {"tokens": "100M"}, {}),
    ("epochs", "note", {"dataset_tokens": "4B"}, {"dataset_tokens": "10B"}),
    ("no_bf16", "note", {"precision": "fp32"}, {}),
    ("peak_lr", "note", {"peak_lr": "2e-4"}, {"peak_lr": "3e-4"}),
    ("zero_floor", "warning", {"min_lr": "0"}, {"min_lr": "10%"}),
    ("no_cooldown", "note", {"schedule": "wsd", "cooldown_steps": "0"}, {"schedule": "wsd"}),
    ("no_warmup", "warning", {"warmup_steps": "0"}, {}),
    ("only_warmup", "note", {"warmup_ratio": "100%"}, {}),
    ("warmup", "note", {"warmup_steps": "50"}, {"warmup_steps": "1000"}),
]
# of an architecture that no flag describes: tests/planner/counts/test_untrained.py
FROM_A_HF_CONFIG = {"architecture_not_simulated"}
# what no flag says stands in the file: section.key, the value with the finding, the value without it
IN_FILE: dict[str, tuple[str, Any, Any]] = {
    "no_clipping": ("optimizer.clip_norm", None, 1.0),
    "clip_norm": ("optimizer.clip_norm", 5.0, 2.0),
    "weight_decay": ("optimizer.weight_decay", 0.5, 0.1),
    "beta2": ("optimizer.beta2", 0.999, 0.99),
    "rope_scaling_not_trained": (
        "model.rope_scaling",
        RopeScalingConfig(kind="longrope", factor=4.0),
        RopeScalingConfig(kind="linear", factor=4.0),
    ),
}


@cache
def _drafted(flags: tuple[tuple[str, str], ...]) -> RunConfig:
    words = SMALL | dict(flags)
    if "model" in words:
        del words["params"]
    return draft(Flags(**words), as_of="2026-11-21", version="0")


def found(code: str, flags: dict[str, str], has: bool) -> dict[str, Finding]:
    config = _drafted(tuple(flags.items()))
    if code in IN_FILE:
        (name, _, key), odd, usual = IN_FILE[code][0].partition("."), *IN_FILE[code][1:]
        section = getattr(config, name).model_copy(update={key: odd if has else usual})
        config = config.model_copy(update={name: section})
    if code in ("unpriced_parts", "profile_left_aside"):  # a measured profile has no kernels for some recipes
        config = config.model_copy(update={"profile": made_up()})
    simulated = code in ("does_not_fit", "fits_unknown", "allocator_thrash", "nearly_full")
    return {f.code: f for f in findings(estimate(config, replay=simulated))}


@pytest.mark.parametrize("code, level, flags, neighbour", RAISED, ids=[r[0] for r in RAISED])
def test_a_finding_has_its_cause(code: str, level: str, flags: dict[str, str], neighbour: dict[str, str]) -> None:
    raised = found(code, flags, True)
    assert code in raised, sorted(raised)
    assert raised[code].level == level and raised[code].message
    assert code not in found(code, neighbour, False)


def test_errors_come_first_and_notes_last() -> None:
    levels = [f.level for f in findings(estimate(_drafted((("micro_batch", "128"),))))]
    assert levels == sorted(levels, key=["error", "warning", "note"].index) and set(levels) == {
        "error",
        "warning",
        "note",
    }


def test_codes_about_stored_weights() -> None:
    """A file of another model has every code but the one for a match."""
    model = _drafted(()).model
    tensors = (StoredTensor("wte.weight", "F32", (5, 7)), StoredTensor("lm_head.weight", "F32", (5, 7)))
    codes = {f.code for f in weights_findings(tensors, model, "x")}
    assert codes == set(WEIGHTS) - {"weights_match"}  # that one is in test_stored_weights.py


def codes_of(file: Path) -> set[str]:
    """The second argument of every `Finding(…)` in a source file, which must be a plain string."""
    calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
    written = [n.args[1] for n in calls if isinstance(n.func, ast.Name) and n.func.id == "Finding"]
    codes = {n.value for n in written if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert written and len(written) >= len(codes) and all(isinstance(n, ast.Constant) for n in written), file
    return codes


def test_no_code_is_without_a_test() -> None:
    folder = Path(analysis.__file__).parent
    raised = {row[0] for row in RAISED} | FROM_A_HF_CONFIG
    assert codes_of(folder / "findings.py") | codes_of(folder / "ranges.py") == raised
    stored = (folder / "stored_weights.py").read_text()
    assert {f"weights_{word}" for word in re.findall(r'"weights_([a-z]+)"', stored)} <= set(WEIGHTS)
    others = [f.name for f in folder.rglob("*.py") if "Finding(" in f.read_text()]
    assert sorted(others) == ["findings.py", "plausible.py", "ranges.py", "stored_weights.py"]
