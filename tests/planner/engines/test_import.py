"""What is exported is read back: the same keys, and the same files once more; hostile files give one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.config.options import value_at
from planner.config.run import RunConfig
from planner.counts.run import steps_of
from planner.engines.export import ENGINES, RECORD, engine_export
from planner.engines.fates import Carried, Fixed
from planner.engines.importing import READERS, Import, engine_import
from planner.errors import PlanError
from tests.planner.engines.configs import base_of

FILE = {
    "torchtitan": "gptplan_torchtitan.py", "nanogpt": "gptplan_nanogpt.py", "nanochat": "gptplan_nanochat.py",
    "megatron-lm": "megatron_args.txt", "litgpt": "pretrain.yaml", "hf-trainer": "training_args.json",
    "accelerate": "accelerate.yaml", "deepspeed": "ds_config.json",
}  # fmt: skip
# said in another way: steps for tokens, names, what a whole model is called
OTHERWISE = {
    "evaluation.tokens",
    "training.tokens",
    "training.steps",
    "model.name",
    "model.source",
    "model.nominal_parameters",
}


def _imported(folder: Path, engine: str, name: str | None = None, **more: Any) -> Import:
    asked: dict[str, Any] = {"engine": None, "gpu": "h100-80gb", "gpus": None} | more
    return engine_import(folder / (name or FILE[engine]), as_of="2026-11-21", version="0", **asked)


def _written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("engine", READERS)
def test_an_export_is_recognised_and_read_back(tmp_path: Path, engine: str) -> None:
    base = base_of(engine)
    files = engine_export(base, engine).files
    done = _imported(_written(tmp_path, files), engine)
    assert done.engine == engine and done.unread == ()
    assert steps_of(done.config) == steps_of(base)
    wrong = {}
    for key, fate in ENGINES[engine].fates.items():
        if isinstance(fate, Carried | Fixed) and key not in OTHERWISE and ".moe." not in key:
            before, after = value_at(base, key), value_at(done.config, key)
            if isinstance(before, float) and isinstance(after, float):
                before = after if abs(before - after) <= 1e-12 * abs(before) else before
            if before != after and not _same_meaning(key, base, done.config):
                wrong[key] = (before, after)
    assert not wrong
    again = engine_export(done.config, engine).files
    changed = {name for name in files if name != RECORD and _bare(again.get(name, "")) != _bare(files[name])}
    assert not changed, (changed, [again[name] for name in changed])


def _bare(text: str) -> list[str]:
    """Lines without names and without the last digits of numbers, which a quotient and its product may change."""
    return [line for line in text.split("\n") if "name" not in line and "min_lr" not in line and "final_lr" not in line]


def _same_meaning(key: str, one: RunConfig, other: RunConfig) -> bool:
    """Unset and the value that unset stands for."""
    values = {value_at(one, key), value_at(other, key)} if key != "model.moe" else set()
    return values in ({None, False}, {None, 8}) or (
        key == "model.moe"
        and one.model.moe is not None
        and other.model.moe is not None
        and one.model.moe.balancing_strength == other.model.moe.balancing_strength
        and one.model.moe.model_copy(update={"balancing_rate": None})
        == other.model.moe.model_copy(update={"balancing_rate": None})
    )


def test_a_config_of_nanogpt_itself_is_read_with_its_defaults(tmp_path: Path) -> None:
    text = "wandb_log = True\nbatch_size = 12\nblock_size = 1024\ngradient_accumulation_steps = 5 * 8\n"
    text += "max_iters = 600000\nlr_decay_iters = 300000\nlearning_rate = 6e-4\nmystery = 3\n"
    (tmp_path / "train_gpt2.py").write_text(text)
    done = _imported(tmp_path, "nanogpt", "train_gpt2.py", gpus=8)
    c = done.config
    assert (c.training.accumulation, c.training.steps, c.model.vocab, c.hardware.gpus) == (5, 600_001, 50_304, 8)
    assert any("lr_decay_iters" in one for one in done.unread) and any("mystery" in one for one in done.unread)
    with pytest.raises(PlanError, match="not divisible"):
        _imported(tmp_path, "nanogpt", "train_gpt2.py", gpus=7)


def test_a_shell_script_of_megatron_is_read(tmp_path: Path) -> None:
    script = """#!/bin/bash
HIDDEN=1024
GPT_ARGS="
    --num-layers 24 --hidden-size $HIDDEN --num-attention-heads 16
    --seq-length 1024 --max-position-embeddings 1024 --micro-batch-size 4 --global-batch-size=64
    --lr 0.00015 --train-iters 500 --lr-decay-style cosine --min-lr 1.0e-5 --vocab-size 50257
    --tensor-model-parallel-size 2 --bf16 --new-thing 7
"
torchrun pretrain_gpt.py $GPT_ARGS --data-path x
"""
    (tmp_path / "pretrain.sh").write_text(script)
    done = _imported(tmp_path, "megatron-lm", "pretrain.sh", gpus=8)
    c = done.config
    assert (c.model.hidden, c.model.vocab, c.parallel.tp, c.training.accumulation) == (1024, 50_432, 2, 4)
    assert c.model.tokenizer_vocab == 50_257 and any("new-thing = 7" in one for one in done.unread)


def test_what_nobody_says_is_an_assumption(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("batch_size = 8\ngradient_accumulation_steps = 4\n")
    done = _imported(tmp_path, "nanogpt", "c.py", gpu=None)
    assert {one.key for one in done.config.provenance.assumptions} == {"gpu", "gpus"}


HOSTILE: dict[str, tuple[str, str]] = {
    "empty.py": ("", "no engine"),
    "words.txt": ("hello", "no engine"),
    "cut.py": ("batch_size = (", "no Python"),
    "text.py": ("batch_size = 'many'", "batch_size"),
    "deep.py": ("batch_size = " + "[" * 5000, "no Python"),
    "big.py": ("batch_size = 9 ** 9 ** 9 ** 9", "batch_size"),
    "inf.py": ("batch_size = 1e308 * 10", "batch_size"),
    "infinite.yaml": ("model_config:\n  n_embd: 1e999\n  n_head: 2\ntrain:\n", "n_embd"),
    "infinite.txt": ("--num-layers 1e999 --hidden-size 64 --num-attention-heads 2 --micro-batch-size 1", "must be"),
    "odd.py": ("batch_size = 1if 1else 2", "batch_size = 1if"),
    "call.py": ("batch_size = __import__('os').system('touch harm')", "batch_size"),
    "zero.py": ("batch_size = 0", "batch_size"),
    "cut.json": ('{"learning_rate": 1, "output_dir": ', "line 1"),
    "alone.json": ('{"learning_rate": 1, "output_dir": "x"}', "config.json beside"),
    "list.json": ('["learning_rate", "output_dir"]', "config.json beside"),
    "ds.json": ('{"zero_optimization": 3}', "training_args.json beside"),
    "tabs.yaml": ("model_config:\n\tx: 1\ntrain:\n", "model_config"),
    "anchor.yaml": ("model_config: &a\n  x: 1\ntrain: *a\n", "anchors"),
    "twice.yaml": ("model_config:\n  x: 1\n  x: 2\ntrain:\n", "twice"),
    "name.yaml": ("model_config:\ntrain:\n  micro_batch_size: 1\n", "no model_config"),
    "deep.yaml": ("model_config:\ntrain:\n" + "".join(f"{' ' * i}a:\n" for i in range(1, 99)), "too deep"),
    "args.txt": ("--num-layers x --hidden-size y --micro-batch-size z", "micro-batch-size = z"),
    "quote.sh": ("--num-layers 2 --hidden-size 64 --num-attention-heads 0 'open", "must be"),
    "RUN.py": ("# torchtitan\nRUN = {'model': 3}", "RUN has no"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_message_and_nothing_runs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, words = HOSTILE[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(PlanError) as caught:
        _imported(tmp_path, "", name)
    assert words in caught.value.message() and not (tmp_path / "harm").exists()
