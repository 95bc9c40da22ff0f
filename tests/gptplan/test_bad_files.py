"""Every mistake in a file, and every place that cannot be written, is one message; nothing is left half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.gptplan.calling import BASE, Call

# (pattern, replacement) in a good run.toml, and what the message says
EDITS = {
    "unknown key": (r"\nhidden =", "\nhiden =", ("unknown key model.hiden", "hidden")),
    "a flag as key": (r"attention_kernel =", "attention =", ("mean attention_kernel? The flag --attention sets",)),
    "a flag of another section": (r"\nhidden =", "\npeak_lr = 1.0\nhidden =", ("peak_lr under [schedule]?",)),
    "a flag without a key": (
        r"warmup_steps =",
        "warmup_ratio =",
        ("--warmup-ratio is", "schedule.warmup_steps"),
    ),
    "a flag that shapes the model": (r"\nhidden =", "\nparams = 5\nhidden =", ("--params is a flag", "[model]")),
    "a flag as text": (r"micro_batch =", "--micro-batch =", ("did you mean micro_batch?",)),
    "a key outside its section": (r"\[model\]", "tokens = 5\n[model]", ("tokens under [training]?",)),
    "a flag's near name": (r"attention_kernel =", "attenton =", ("attention_kernel",)),
    "unknown section": (r"\[model\]", "[extra]\na = 1\n[model]", ("unknown key extra", "hardware, model")),
    "missing key": (r"\nhidden = \d+.*", "", ("model.hidden (--hidden) is missing",)),
    "missing section": (r"(?s)\[schedule\].*?\n\n", "", ("schedule is missing",)),
    "text for a number": (r"layers = \d+", 'layers = "twelve"', ("model.layers", "'twelve'")),
    "fraction of a layer": (r"layers = \d+", "layers = 12.5", ("model.layers", "12.5")),
    "number for text": (r'gpu = ".*?"', "gpu = 7", ("hardware.gpu", "7")),
    "yes for true": (r"tied_embeddings = true", 'tied_embeddings = "yes"', ("model.tied_embeddings",)),
    "date for text": (r'as_of = ".*?"', "as_of = 2026-01-01", ("provenance.as_of",)),
    "negative": (r"seq = \d+", "seq = -4", ("training.seq", "-4")),
    "nan": (r"peak_lr = \S+", "peak_lr = nan", ("schedule.peak_lr", "nan")),
    "infinite": (r"\neps = \S+", "\neps = inf", ("optimizer.eps",)),
    "too large": (r"vocab = \d+", "vocab = 10_000_000_000_000_000_000", ("model.vocab",)),
    "5,000 digits": (r"vocab = \d+", "vocab = " + "9" * 5000, ("not TOML",)),
    "5,000 digits in hex": (r"vocab = \d+", "vocab = 0x" + "f" * 5000, ("not TOML", "20000 bits")),
    "5,000 digits in a list": (r"vocab = \d+", "vocab = [{a = 0b1" + "0" * 20_000 + "}]", ("not TOML", "20001 bits")),
    "version 2": (r"schema_version = 1", "schema_version = 2", ("schema_version is 2", "reads 1")),
    "version true": (r"schema_version = 1", "schema_version = true", ("schema_version is True",)),
    "no version": (r"schema_version = 1", "", ("schema_version is missing",)),
    "two horizons": (r"(\ntokens = .*)", r"\1\nsteps = 5", ("exactly one of tokens and steps",)),
    "no horizon": (r"\ntokens = .*", "", ("exactly one of tokens and steps",)),
    "two speeds": (r"(\ngpus = .*)", r"\1\nmfu = 0.4\ntflops = 1e14", ("tflops or mfu",)),
    "unknown GPU": (r'gpu = ".*?"', 'gpu = "a100-80g"', ("unknown GPU", "a100-80gb", "hardware.gpu (--gpu)")),
    "unknown recipe": (r'recipe = ".*?"', 'recipe = "fp31"', ("unknown recipe", "fp32", "training.recipe (--recipe)")),
    "unknown decay": (r'kind = "cosine"', 'kind = "cosin"', ("schedule.kind (--schedule)", "cosine")),
    "cooldown of a cosine": (r"cooldown_steps = \d+", "cooldown_steps = 5", ("cooldown_steps (5)", "wsd")),
    "no power": (r"decay_power = \S+", "decay_power = 0.0", ("schedule.decay_power",)),
    "long cooldown": (
        r'(?s)kind = "cosine"(.*)cooldown_steps = \d+',
        r'kind = "wsd"\1cooldown_steps = 18693',
        ("(--warmup-steps) = 381", "(--cooldown-steps) = 18,693", "19,073"),
    ),
    "min above peak": (r"min_lr = \S+", "min_lr = 3.0", ("min_lr (3) is above peak_lr",)),
    "kv heads": (
        r"kv_heads = \d+",
        "kv_heads = 5",
        ("heads (12)", "heads (--heads) or kv_heads (--kv-heads)"),
    ),
    "long sequence": (r"seq = \d+", "seq = 2048", ("seq (2048)", "1024 learned positions")),
    "long warm-up": (
        r"warmup_steps = \d+",
        "warmup_steps = 20_000",
        ("warmup_steps (--warmup-steps) = 20,000", "19,073"),
    ),
    "less than a step": (r"\ntokens = \d+", "\ntokens = 5", ("less than one step", "524,288")),
    "syntax": (r"\[model\]", "[model", ("not TOML", "line")),
    "key twice": (r"(\nheads = .*)", r"\1\1", ("not TOML",)),
    "deep": (r"\[model\]", "x = " + "[" * 3000 + "]" * 3000 + "\n[model]", ("not TOML",)),
    "escape sequence": (r'gpu = ".*?"', 'gpu = "\x1b[31m"', ("not TOML",)),
    "damaged profile": (
        r'(?s)runtime = "compiled"(.*)gpu = "a100-80gb"(.*)$',
        r'runtime = "eager"\1gpu = "cpu"\2[profile]\na = 1\n',
        ("profile",),
    ),
}


@pytest.mark.parametrize("mistake", EDITS)
@pytest.mark.parametrize("more", [(), ("--mfu", "40%")], ids=["alone", "with a flag"])
def test_config_with(call: Call, run_toml: Path, mistake: str, more: tuple[str, ...]) -> None:
    pattern, replacement, words = EDITS[mistake]
    good = run_toml.read_text(encoding="utf-8")
    bad, edits = re.subn(pattern, replacement, good, count=1)
    assert edits == 1
    run_toml.write_text(bad, encoding="utf-8")
    if more and mistake == "damaged profile":
        pytest.skip("--mfu says the speed: the profile is not looked at")
    call("estimate", "--config", "run.toml", *more).refused(*words)


def test_files_that_are_no_config(call: Call, run_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text(" \n")
    (tmp_path / "utf16.toml").write_bytes(run_toml.read_text(encoding="utf-8").encode("utf-16"))
    call("estimate", "--config", "empty.toml").refused("empty.toml is empty", "gptplan plan")
    call("estimate", "--config", "utf16.toml").refused("not UTF-8")
    call("estimate", "--config", ".").refused("directory")
    call("estimate", "--config", "").refused("directory")
    call("estimate", "--config", "runn.toml").refused("runn.toml does not exist", "run.toml")
    call("estimate", "--config", "run.toml/x").refused("cannot be read")
    if os.geteuid():  # root may read anything
        run_toml.chmod(0)
        call("estimate", "--config", "run.toml").refused("Permission denied")


def test_a_byte_order_mark_is_no_mistake(call: Call, run_toml: Path) -> None:
    run_toml.write_bytes(b"\xef\xbb\xbf" + run_toml.read_bytes())
    assert call("estimate", "--config", "run.toml").code == 0


GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50257, "n_positions": 1024}
LLAMA = {"model_type": "llama", "hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 2, "vocab_size": 100}
LLAMA |= {"intermediate_size": 1376, "max_position_embeddings": 2048}
HF = {
    "another type": ({"model_type": "gpt9"}, ("model_type 'gpt9'", "in all)")),
    "an encoder": ({"model_type": "bert"}, ("model_type bert is not counted", "encoder")),
    "a list for the type": (GPT2 | {"model_type": ["gpt2"]}, ("model_type",)),
    "a list": ([1], ("not a Hugging Face model config",)),
    "no type": ({}, ("no model_type",)),
    "no width": (GPT2 | {"n_embd": None}, ("has no n_embd",)),
    "text for the width": (GPT2 | {"n_embd": "768"}, ("n_embd = '768'",)),
    "text for the width of llama": (LLAMA | {"hidden_size": "512"}, ("hidden_size = '512'",)),
    "text for the vocabulary": (GPT2 | {"vocab_size": "50257"}, ("vocab_size = '50257'",)),
    "text for the head": (LLAMA | {"head_dim": "64"}, ("head_dim",)),
    "null": (GPT2 | {"n_layer": None}, ("has no n_layer",)),
    "no heads": (GPT2 | {"n_head": 0}, ("n_head = 0",)),
    "true heads": (GPT2 | {"n_head": True}, ("n_head = True",)),
    "heads that do not divide": (GPT2 | {"n_head": 7}, ("n_embd = 768", "n_head = 7")),
    "kv heads that do not divide": (LLAMA | {"num_key_value_heads": 3}, ("kv_heads (3)",)),
    "half a layer": (GPT2 | {"n_layer": 12.5}, ("n_layer = 12.5",)),
    "nan": (GPT2 | {"n_layer": float("nan")}, ("n_layer = nan",)),
    "negative": (GPT2 | {"vocab_size": -1}, ("vocab",)),
    "another activation": (GPT2 | {"activation_function": "tanh"}, ("activation_function = 'tanh'",)),
    "short context": (GPT2 | {"n_positions": 0}, ("n_positions = 0",)),
}


@pytest.mark.parametrize("mistake", HF)
def test_hf_config_with(call: Call, tmp_path: Path, mistake: str) -> None:
    values, words = HF[mistake]
    (tmp_path / "config.json").write_text(json.dumps(values))
    said = call("estimate", "--hf-config", "config.json", "--tokens", "1B", "--gpu", "a100-80gb")
    said.refused(*words)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"n_embd": ' + "9" * 5000 + "}"])
def test_hf_config_that_is_not_json(call: Call, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    call("estimate", "--hf-config", "config.json", "--tokens", "1B").refused("config.json is not JSON")
    call("estimate", "--hf-config", "conf.json", "--tokens", "1B").refused("does not exist", "config.json")


def test_what_exists_stays(call: Call, run_toml: Path, tmp_path: Path) -> None:
    run_toml.write_text("mine")
    call("plan", *BASE, "-o", "run.toml").refused("exists already", "--force")
    (tmp_path / "link.toml").symlink_to(tmp_path / "nowhere")
    call("plan", *BASE, "-o", "link.toml").refused("exists already")
    assert run_toml.read_text() == "mine" and (tmp_path / "link.toml").is_symlink()
    assert call("plan", *BASE, "-o", "run.toml", "--force").code == 0
    assert "schema_version" in run_toml.read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["missing/run.toml", ".", "", "file/run.toml", "/proc/run.toml", "n" * 300])
def test_nothing_is_written_where_it_cannot_be(call: Call, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    call("plan", *BASE, "-o", place).refused()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not os.geteuid(), reason="root may write anywhere")
def test_an_unwritable_directory(call: Call, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    call("plan", *BASE, "-o", "closed/run.toml").refused("Permission denied")


RUNS = {
    "": ("the config is missing", "gptplan plan"),
    "run.toml": ("--out is missing", "--out"),
    "nope.toml --out x": ("nope.toml does not exist",),
    "run.toml --out x --steps 0": ("--steps", "zero"),
    "run.toml --out x --steps 1.5": ("--steps", "whole number"),
    "--resume .": ("not a run directory",),
    "--resume nowhere": ("not a run directory",),
    "run.toml --resume .": ("--resume stands alone",),
    "--out x --resume .": ("--resume stands alone",),
}
TRAINED = {
    "run.toml --out x --data nowhere": ("nowhere",),
    "run.toml --out x --device tpu": ("tpu", "cpu"),
    "run.toml --out taken": ("taken is not empty", "another --out"),
    "run.toml --out run.toml": ("run.toml",),
}


@pytest.mark.parametrize("line", [*RUNS, *TRAINED])
def test_run(call: Call, run_toml: Path, tmp_path: Path, line: str) -> None:
    if line in TRAINED:
        pytest.importorskip("torch")
        pytest.importorskip("safetensors")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/config.toml").write_bytes(run_toml.read_bytes())
    call("run", *line.split()).refused(*(RUNS | TRAINED)[line])


def test_run_without_a_gpu(call: Call, run_toml: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    call("run", "run.toml", "--out", "x", "--device", "cuda").refused("cuda", "--device cpu")


@pytest.mark.parametrize("error", [OSError("libcudart.so.13: cannot open\nmore"), MemoryError(), SystemError("no")])
def test_a_pytorch_that_cannot_be_loaded(
    call: Call, run_toml: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A broken installation, or a limit of memory, in every command that trains, measures or draws."""
    monkeypatch.setattr("gptplan.extras.import_module", Mock(side_effect=error))
    for words in ("trace run.toml", "preflight run.toml", "lr-find run.toml", "run run.toml --out x", "sample x"):
        call(*words.split()).refused("'torch' is installed, but cannot be loaded", type(error).__name__)
    for words in ("export x -o y", "calibrate", "demo --out x"):
        said = call(*words.split())
        said.refused("cannot be loaded")
        assert "more" not in said.err


def test_other_commands(call: Call) -> None:
    call("compare", "nowhere").refused("nowhere")
    call("compare", ".").refused("comparison.json")
    call("schema", "confg").refused("unknown schema", "config")


def test_a_reader_that_leaves_and_a_full_disk() -> None:
    """`head` closes the pipe: no traceback, and not the exit code of a failed check."""
    command = [sys.executable, "-m", "gptplan", "schema"]
    read, write = os.pipe()
    os.close(read)
    left = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (left.returncode, left.stderr) == (0, "")
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert said.returncode == 2 and said.stderr.startswith("error: ") and "Traceback" not in said.stderr


def test_a_terminal_without_utf8() -> None:
    command = [sys.executable, "-m", "gptplan", "estimate", *BASE]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=ascii_only)
    assert (said.returncode, said.stderr) == (0, "") and said.stdout.isascii()
