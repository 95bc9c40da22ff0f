"""Every mistake in a flag is one message with its fix; numbers are read as people write them."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest

from tests.gptplan.calling import BASE, Call

COUNTS = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "seq", "micro_batch", "accumulation")
COUNTS += ("global_batch_tokens", "dataset_tokens", "gpus", "checkpoint_every", "tokens", "steps", "params")
NUMBERS = ("peak_lr", "tflops", "mfu", "decay_power")
FROM_ZERO = ("seed", "warmup_steps", "warmup_tokens", "warmup_ratio", "min_lr", "price_per_gpu_hour")
FROM_ZERO += ("cooldown_steps", "cooldown_tokens", "cooldown_ratio")

UNREADABLE = ("inf", "1e400", " ", "12Q", "125 M B", "١٢٥", "1,00", "0x10", "--", "1" * 101, "5\x00")


def words_for(name: str, value: str) -> list[str]:
    """A command whose only mistake is this value; --params, --tokens leave where the flag would contradict them."""
    flag = "--" + name.replace("_", "-")
    if name in ("params", "tokens"):
        kept = [*BASE, flag]
        kept[kept.index(flag) + 1] = value
        return kept[:-1]
    words = list(BASE)
    if name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn"):
        words[:2] = ["--model", "gpt2"]
    if name == "steps":
        del words[2:4]
    words += ["--schedule", "wsd"] if name.startswith("cooldown") else []
    words += ["--schedule", "polynomial"] if name == "decay_power" else []
    return [*words, f"{flag}={value}"]


ONE_OF_A_KIND = ("params", "mfu", "seed", "price_per_gpu_hour")
CASES = [(name, value) for name in [*COUNTS, *NUMBERS, *FROM_ZERO] for value in ("-5", "nan", "")]
CASES += [(name, value) for name in ONE_OF_A_KIND for value in UNREADABLE]


@pytest.mark.parametrize("name, value", CASES)
def test_unreadable(call: Call, name: str, value: str) -> None:
    said = call("estimate", *words_for(name, value))
    said.refused("--" + name.replace("_", "-"))


@pytest.mark.parametrize("name", [*COUNTS, *NUMBERS])
def test_zero(call: Call, name: str) -> None:
    call("estimate", *words_for(name, "0")).refused("--" + name.replace("_", "-"), "zero")


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_whole_and_no_larger_than_a_config_holds(call: Call, name: str) -> None:
    call("estimate", *words_for(name, "1.5")).refused("whole number")
    call("estimate", *words_for(name, "1e19")).refused("10^18")


@pytest.mark.parametrize("name", FROM_ZERO)
def test_zero_is_a_value(call: Call, name: str) -> None:
    assert call("estimate", *words_for(name, "0")).code == 0


PARAMETERS = ("125M", "125m", "0.125B", "125e6", "1.25e8", "125_000_000", "125,000,000", " 125 M ", "125000000")


@pytest.mark.parametrize("text", PARAMETERS)
def test_one_number_written_in_many_ways(call: Call, text: str) -> None:
    said = call("estimate", "--params", text, *BASE[2:], "--json")
    assert json.loads(said.out)["model"]["parameters"]["nominal"] == 125_000_000


@pytest.mark.parametrize(
    "text, value", [("15T", 15 * 10**12), ("4Gi", 4 * 2**30), ("1e9", 10**9), ("1.3B", 1300 * 10**6)]
)
def test_tokens_as_people_write_them(call: Call, text: str, value: int) -> None:
    assert json.loads(call("estimate", *BASE[:3], text, *BASE[4:], "--json").out)["tokens"]["requested"] == value


@pytest.mark.parametrize("text", ["$2.50", "2.5", "2.50 USD", "US$2.5"])
def test_prices_as_people_write_them(call: Call, text: str) -> None:
    said = call("estimate", *BASE, "--price-per-gpu-hour", text, "--json")
    assert json.loads(said.out)["cost"]["usd_per_gpu_hour"] == 2.5


GPT2 = "--model gpt2 --tokens 1B --gpu a100-80gb"
SHAPE = "--tokens 1B --gpu a100-80gb --layers 2 --hidden 128"
RUN = "--params 125M --tokens 10B --gpu a100-80gb"
MISTAKES = {
    # names
    "--params 125M --tokens 1B --gpu h100-80g": ("unknown GPU", "h100-80gb"),
    "--params 125M --tokens 1B --gpu A100-80GB": ("unknown GPU", "a100-80gb"),
    "--model gpt-2 --tokens 1B": ("unknown model", "gpt2"),
    "--model ../gpus/t4 --tokens 1B": ("unknown model",),
    f"{RUN} --recipe mixed-bf61": ("unknown recipe", "mixed-bf16"),
    f"{RUN} --precision fp16": ("unknown --precision", "bf16"),
    f"{SHAPE} --family gtp2": ("unknown --family", "gpt2"),
    f"{RUN} --activation-checkpointing ful": ("unknown --activation-checkpointing", "full"),
    f"{RUN} --optimizer adam": ("unknown --optimizer", "adamw", "in run.toml: optimizer.name"),
    f"{RUN} --attention flsh": ("unknown --attention", "flash", "in run.toml: training.attention_kernel"),
    f"{RUN} --schedule cosin": ("unknown schedule", "cosine", "inverse_sqrt"),
    # keys of run.toml as flags
    f"{RUN} --attention-kernel flash": (
        "no flag --attention-kernel",
        "write --attention flash|flash-only|efficient|cudnn|math|flex",
    ),
    f"{RUN} --usd-per-gpu-hour=2": ("no flag --usd-per-gpu-hour", "write --price-per-gpu-hour USD"),
    f"{RUN} --training.micro_batch 4": ("write --micro-batch N for training.micro_batch",),
    f"{RUN} --spike-window 50": ("no flag --spike-window", "guard.spike_window can be set in run.toml only"),
    # gaps
    "--tokens 1B": ("the model is missing", "--params"),
    "--params 125M": ("length of the run is missing", "--tokens"),
    "--layers 2 --tokens 1B": ("--hidden is missing",),
    "--hidden 128 --tokens 1B": ("--layers is missing",),
    "--family llama --tokens 1B": ("--layers is missing",),
    # parts that do not fit together
    f"{SHAPE} --heads 3": ("--hidden 128", "--heads 3", "2 and 4"),
    f"{SHAPE} --heads 4 --kv-heads 3": ("heads (4)", "kv_heads (3)"),
    f"{GPT2} --kv-heads 24": ("kv_heads (24)",),
    f"{SHAPE} --family llama --head-dim 33": ("odd",),
    f"{GPT2} --seq 2048": ("--seq", "2,048", "1,024 learned positions", "--seq 1024"),
    "--params 1 --tokens 1B": ("no shape", "--vocab"),
    f"{RUN} --vocab 1e17": ("no shape", "--vocab"),
    # batch and length
    f"{RUN} --global-batch-tokens 1000": ("--global-batch-tokens", "batch is 1,024"),
    f"{RUN} --global-batch-tokens 5000 --gpus 2": ("4,096 or 6,144", "2 GPUs"),
    f"{RUN} --global-batch-tokens 4096 --micro-batch 3": ("3,072 or 6,144",),
    "--params 125M --tokens 1k": ("less than one step", "524,288"),
    f"{GPT2} --gpus 1e18": ("less than one step",),
    # the rate
    f"{RUN} --warmup-steps 19_074": ("--warmup-steps", "19,073", "--tokens"),
    f"{RUN} --warmup-tokens 20B": ("--warmup-tokens", "longer than the run"),
    f"{RUN} --warmup-ratio 1.01": ("--warmup-ratio", "above 1"),
    f"{RUN} --warmup-ratio 150%": ("--warmup-ratio", "above 1"),
    "--params 125M --steps 100 --warmup-steps 101": ("100 steps", "more --steps"),
    f"{RUN} --schedule wsd --cooldown-steps 18_693": ("--cooldown-steps", "18,693", "at most 18,692 steps"),
    f"{RUN} --schedule wsd --cooldown-tokens 10B": ("--cooldown-tokens", "warm-up of 381", "longer than the run"),
    f"{RUN} --schedule wsd --cooldown-ratio 2": ("--cooldown-ratio", "above 1"),
    f"{RUN} --cooldown-steps 5": ("--cooldown-steps has no effect on a cosine schedule", "--schedule wsd"),
    f"{RUN} --schedule wsd --decay-power 2": ("--decay-power has no effect on a wsd", "--schedule polynomial"),
    f"{RUN} --schedule constant --min-lr 1e-5": ("--min-lr has no effect on a constant", "has no minimum"),
    f"{RUN} --min-lr 101%": ("min_lr", "is above peak_lr"),
    f"{RUN} --min-lr 1": ("min_lr (1) is above peak_lr",),
    f"{RUN} --peak-lr 1e-5 --min-lr 1e-4": ("min_lr (0.0001) is above peak_lr (1e-05)",),
    # the rest
    f"{RUN} --mfu 2": ("--mfu", "above 1"),
    f"{RUN} --mfu 101%": ("--mfu", "above 1"),
    f"{RUN} --tflops 15000": (
        "hardware.tflops (--tflops): 15 PFLOP/s per GPU is above the dense peak of a100-80gb in bf16",
        "312 TFLOP/s",
    ),
    f"{RUN} --tflops 20 --precision fp32": ("dense peak of a100-80gb in fp32, 19.5 TFLOP/s",),
    "--model llama-2-7b --tokens 10B --gpu a100-80gb --seq 131072 --tflops 200": ("with attention", "below 88"),
    "--model mixtral-8x7b --tokens 10B --gpu t4 --precision fp32 --tflops 8.2": ("t4 in fp32",),
    f"{RUN} --seed 1e19": ("seed",),
    f"{RUN} --price-per-gpu-hour 5EUR": ("--price-per-gpu-hour", "US dollars"),
    f"{RUN} --layers 4": ("--params and --layers contradict",),
    f"{RUN} --heads 4": ("--params and --heads contradict",),
    f"{RUN} --family llama": ("--params and --family contradict",),
    f"{GPT2} --family gpt2": ("--model and --family contradict",),
}


@pytest.mark.parametrize("line", MISTAKES)
@pytest.mark.parametrize("command", ["estimate", "plan"])
def test_mistake(call: Call, command: str, line: str) -> None:
    call(command, *line.split()).refused(*MISTAKES[line])


CONTRADICTIONS = [
    {"--params": "1M", "--model": "gpt2", "--hf-config": "x.json"},
    {"--params": "1M", "--layers": "2"},
    {"--params": "1M", "--hidden": "64"},
    {"--params": "1M", "--kv-heads": "2"},
    {"--params": "1M", "--head-dim": "64"},
    {"--params": "1M", "--ffn": "64"},
    {"--hf-config": "x.json", "--family": "gpt2"},
    {"--tokens": "1B", "--steps": "10"},
    {"--accumulation": "2", "--global-batch-tokens": "4096"},
    {"--precision": "bf16", "--recipe": "fp32"},
    {"--warmup-steps": "1", "--warmup-tokens": "1M", "--warmup-ratio": "0.1"},
    {"--cooldown-steps": "1", "--cooldown-tokens": "1M", "--cooldown-ratio": "0.1"},
    {"--tflops": "100", "--mfu": "0.4"},
]
PAIRS = [pair for group in CONTRADICTIONS for pair in combinations(group.items(), 2)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0][0]} {pair[1][0]}")
def test_contradiction(call: Call, pair: tuple[tuple[str, str], tuple[str, str]]) -> None:
    call("estimate", *pair[0], *pair[1]).refused(pair[0][0], pair[1][0], "contradict each other")


GIGANTIC = [
    "--layers 1e18 --hidden 64 --tokens 1B",
    "--layers 2 --hidden 1e17 --tokens 1B",
    "--layers 2 --hidden 1e18 --tokens 1B",
    "--layers 1e18 --hidden 1e17 --vocab 1e18 --tokens 1e18 --seq 1e12",
    "--layers 2 --hidden 64 --vocab 1e17 --tokens 1B",
    "--params 1e18 --tokens 1e18",
    "--model gpt2 --steps 1e18 --gpus 1e18 --micro-batch 1e18 --accumulation 1e18",
    "--model llama-2-7b --steps 10 --seq 1e18",
    "--model gpt2 --steps 10 --global-batch-tokens 1023999999999998976",
    f"{RUN} --tflops 1e-199 --price-per-gpu-hour 1e30",
    f"{RUN} --tflops 1e199",
    f"{RUN} --mfu 1e-199",
    f"{RUN} --peak-lr 1e199 --min-lr 1e-199",
    f"{RUN} --schedule polynomial --decay-power 1e199",
    "--model gpt2 --steps 1e18 --schedule wsd",
    f"{RUN} --dataset-tokens 1e18 --checkpoint-every 1e18",
    "--model gpt2 --tokens 1e18 --micro-batch 1e12",
    "--model gpt2 --tokens 1e17 --gpus 1e9",
    "--model llama-2-7b --tokens 1e18 --seq 1e12",
    "--layers 4 --hidden 1e6 --tokens 1e18",
    f"{RUN} --price-per-gpu-hour 1e30",
    f"{RUN} --mfu 1e-30",
]
MANY_DIGITS = re.compile(r"\d{16}|\d{1,3}(?:,\d{3}){5}")


@pytest.mark.timeout(60)  # a loop over a gigantic number would never end
@pytest.mark.parametrize("line", GIGANTIC)
def test_gigantic_numbers_end_quickly(call: Call, line: str) -> None:
    said = call("estimate", *line.split(), "--json")
    if said.code == 0:
        json.loads(said.out, parse_constant=lambda text: pytest.fail(f"{text} in the JSON"))
        shown = call("estimate", *line.split())
        assert shown.code == 0 and MANY_DIGITS.findall(shown.out + shown.err) == []
    else:
        said.refused()
        assert MANY_DIGITS.findall(re.sub("'.*?'", "", said.err)) == []  # but for the text that was typed


@pytest.mark.parametrize(
    "line, nearest",
    [("esimate", "estimate"), ("estimate --parms 1M", "--params"), ("plan --ouput x", "--output")],
)
def test_unknown_commands_and_flags(call: Call, line: str, nearest: str) -> None:
    said = call(*line.split())
    assert (said.code, said.out) == (2, "")
    assert nearest in said.err and "Traceback" not in said.err


def test_a_flag_without_its_value(call: Call) -> None:
    assert call("estimate", "--params").code == 2
    assert call("estimate", "surplus").code == 2


@pytest.mark.parametrize("words", [("estimate", *BASE, "x\u202ey"), ("x\u202ey",), ("flops", "--x\u202ey")], ids=len)
def test_what_typer_quotes_of_a_command_line_is_fit_for_a_terminal(call: Call, words: tuple[str, ...]) -> None:
    said = call(*words)
    assert said.code == 2 and "\u202e" not in said.err and "y" in said.err
