"""The flags are a contract: `estimate` and `plan` take the same ones, and every help lists the valid values."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from functools import cache
from typing import Any

import pytest
import typer

from gptplan.app import COMMANDS, application
from planner.config.options import OPTION, flag
from planner.inputs.flags import Flags
from tests.gptplan.calling import Call

CONTRACT = frozenset(
    """
--params --model --hf-config --family --layers --hidden --heads --kv-heads --head-dim --ffn --vocab --seq --tokens
--steps --dataset-tokens --gpu --gpus --micro-batch --accumulation --global-batch-tokens --precision --recipe
--activation-checkpointing --optimizer --optimizer-implementation --state-dtype --schedule --peak-lr --min-lr
--warmup-steps --warmup-tokens --warmup-ratio --cooldown-steps --cooldown-tokens --cooldown-ratio --decay-power
--tflops --mfu --tokens-per-second --price-per-gpu-hour --write-bandwidth --seed --checkpoint-every --config --json
--position --rotary-dim --rope-base --norm --norm-eps --norm-placement --qk-norm --mlp --biases --tied --sliding-window
--pad-vocab --experts
--top-k --expert-ffn --shared-ffn --safetensors
--runtime --attention --document-masking --loss-kind --loss-chunks --dropout --activation-checkpointing-every
--allocator --keep-checkpoints --async-save --eval-every --eval-tokens --patience --on-spike --clip-norm --momentum
--norm-bias --clip-value --profile --software --fsdp --reshard --ddp-bucket-view
--init-std
--dp --hsdp --zero --tp --sp --pp --interleave --pp-schedule --cp --ep --nodes --gpus-per-node
--balancing --balancing-rate
""".split()  # noqa: SIM905 (65 names read better as text)
)


@cache
def flags_of(command: str) -> dict[str, Any]:
    commands = typer.main.get_command(application()).commands
    return {name: parameter for parameter in commands[command].params for name in parameter.opts}


@pytest.mark.parametrize("command", ["estimate", "plan"])
def test_every_flag_of_the_contract_exists(command: str) -> None:
    assert set(flags_of(command)) >= CONTRACT


def test_the_two_commands_share_their_flags() -> None:
    assert set(flags_of("plan")) - set(flags_of("estimate")) == {"-o", "--output", "--force"}


def test_the_table_of_flags_is_the_dataclass() -> None:
    assert set(OPTION) == {f.name for f in fields(Flags)}
    assert {flag(name) for name in OPTION} <= CONTRACT


@pytest.mark.parametrize("name", [n for n, f in flags_of("estimate").items() if n.startswith("--")])
def test_every_flag_has_a_sentence_and_a_placeholder(name: str) -> None:
    parameter = flags_of("estimate")[name]
    assert parameter.help
    assert parameter.metavar or parameter.is_flag, name


@pytest.mark.parametrize(
    "command",
    sorted(COMMANDS),
)
def test_help(call: Call, command: str) -> None:
    said, short = call(command, "--help"), call(command, "-h")
    assert (said.code, said.err, said.out) == (0, "", short.out)


def test_the_help_says_the_units(call: Call) -> None:
    said = re.sub(r"[\s│]+", " ", call("estimate", "--help").out)
    for words in ("such as 125M", "such as 10B", "TFLOP/s", "0.02 or 2%", "0.4 or 40%", "STEPS", "USD", "FRACTION"):
        assert words in said, words


def test_without_arguments_the_help_is_shown(call: Call) -> None:
    assert "Usage" in call().out + call().err
    assert call("--version").out.startswith("gptplan ")


def test_the_module_is_the_program() -> None:
    words = ["estimate", "--params", "125M", "--tokens", "10B", "--gpu", "nope"]
    said = subprocess.run([sys.executable, "-m", "gptplan", *words], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: unknown GPU 'nope'")
