"""Every option there is changes the time of a step, is free for a stated reason, or makes it unknown and says why."""

from __future__ import annotations

import pytest

from planner.config.options import OPTIONS, Option
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.step_time.throughput import Throughput
from tests.planner.step_time.test_every_option import BASE, planned

Texts = dict[str, str]
NO_MODEL = {name: text for name, text in BASE.items() if name not in ("model", "vocab")}
EXPERTS = {"experts": "8", "top_k": "2"}
EIGHT, MANY = {"gpus": "8"}, {"gpus": "64", "fsdp": "fsdp", "micro_batch": "1"}
LLAMA = {"model": "llama-3-8b", "vocab": "128256", "gpus": "8", "micro_batch": "1", "accumulation": "16"}
ROTARY, MUON, SGD = {"position": "rotary"}, {"optimizer": "muon"}, {"optimizer": "sgd"}
GROUPS = {"heads": "12", "head_dim": "64"}
SAME = "no kernel of a step depends on it"
STEP = "a step's seconds are the same; it changes the number of steps, or what runs between them"

# option → what it is set beside, and its value: the step takes another time
PRICED: dict[str, tuple[Texts, str]] = {
    "layers": ({}, "13"), "hidden": ({}, "960"), "heads": ({"head_dim": "64"}, "16"), "kv_heads": (GROUPS, "4"),
    "head_dim": ({}, "96"), "ffn": ({}, "4096"), "vocab": ({}, "65536"), "pad_vocab": ({"vocab": "50257"}, "128"),
    "position": ({}, "rotary"), "rotary_dim": (ROTARY, "32"), "norm": ({}, "rmsnorm"),
    "norm_bias": ({}, "no-norm-bias"), "norm_placement": ({}, "both"), "qk_norm": ({}, "head"), "mlp": ({}, "swiglu"),
    "biases": ({}, "none"), "tied": ({}, "untied"), "sliding_window": ({}, "128"), "experts": (EXPERTS, "16"),
    "top_k": (EXPERTS, "4"), "expert_ffn": (EXPERTS, "1024"), "shared_ffn": (EXPERTS, "1024"),
    "balancing": (EXPERTS, "loss-mean"), "seq": ({}, "512"), "micro_batch": ({}, "8"), "accumulation": ({}, "2"),
    "recipe": ({}, "fp32"), "activation_checkpointing": ({}, "full"),
    "activation_checkpointing_every": ({"activation_checkpointing": "full"}, "2"), "runtime": ({}, "compiled"),
    "attention": ({}, "math"), "document_masking": ({}, "yes"), "loss_kind": ({}, "chunked"), "dropout": ({}, "0.1"),
    "optimizer": ({}, "muon"), "optimizer_implementation": ({}, "foreach"), "state_dtype": ({}, "bf16"),
    "clip_norm": ({}, "0"), "clip_value": ({}, "1"), "gpu": ({}, "h100-80gb"), "gpus": ({}, "64"),
    "gpus_per_node": (MANY, "2"), "software": ({}, "pytorch-2026"), "tflops": ({}, "100"), "mfu": ({}, "0.4"),
    "tokens_per_second": ({}, "100k"), "fsdp": (EIGHT, "fsdp"), "reshard": (MANY, "no"), "hsdp": (MANY, "8"),
    "zero": ({"gpus": "64"}, "2"), "ddp_bucket_view": (EIGHT, "yes"), "tp": (LLAMA, "4"),
    "sp": (LLAMA | {"tp": "4"}, "sp"), "pp": (LLAMA, "4"), "pp_schedule": (LLAMA | {"pp": "4"}, "zero-bubble"),
    "cp": (LLAMA, "4"), "ep": (EIGHT | EXPERTS | {"software": "pytorch-2024"}, "4"), "dp": ({}, "64"),
    "nodes": ({"gpus_per_node": "8"}, "8"),
}  # fmt: skip

# option → what it is set beside, its value, and why the step takes as long
FREE: dict[str, tuple[Texts, str, str]] = {
    "rope_base": (ROTARY, "500000", SAME), "norm_eps": ({}, "1e-6", SAME), "init_std": ({}, "0.01", SAME),
    "balancing_rate": (EXPERTS | {"balancing": "loss-mean"}, "0.1", "a factor of a number"),
    "seed": ({}, "7", SAME), "momentum": (SGD, "0.8", SAME), "schedule": ({}, "linear", SAME),
    "peak_lr": ({}, "1e-4", SAME), "min_lr": ({}, "1e-5", SAME),
    "decay_power": ({"schedule": "polynomial"}, "2", SAME), "warmup_steps": ({}, "3", SAME),
    "warmup_tokens": ({}, "50k", SAME), "warmup_ratio": ({}, "0.3", SAME),
    "cooldown_steps": ({"schedule": "wsd"}, "3", SAME), "cooldown_tokens": ({"schedule": "wsd"}, "50k", SAME),
    "cooldown_ratio": ({"schedule": "wsd"}, "0.5", SAME), "steps": ({}, "20", STEP),
    "dataset_tokens": ({}, "1M", STEP), "checkpoint_every": ({}, "5", STEP), "keep_checkpoints": ({}, "2", STEP),
    "async_save": ({}, "no", STEP), "eval_every": ({}, "5", STEP), "eval_tokens": ({"eval_every": "5"}, "32768", STEP),
    "patience": ({"eval_every": "5"}, "2", STEP), "on_spike": ({}, "skip", STEP),
    "price_per_gpu_hour": ({}, "2", "money per hour"), "write_bandwidth": ({}, "2G", STEP),
    "allocator": ({}, "expandable", "segments are mapped in the first steps, then kept"),
    "loss_chunks": ({"loss_kind": "chunked"}, "16", "as many products and bytes; launches hide behind them"),
    "interleave": (LLAMA | {"tp": "8"}, "1", "one chunk is the default; more need pp_schedule interleaved, see below"),
}  # fmt: skip

# options that choose the model, the batch or the numbers: tried below, the files in tests of their readers
FILES = {"hf_config", "profile"}
ELSEWHERE = {"params", "model", "family", "tokens", "global_batch_tokens", "precision"} | FILES


def speed(**texts: str) -> Throughput:
    return planned(**texts).throughput


def test_every_option_has_a_place() -> None:
    places = [set(PRICED), set(FREE), ELSEWHERE]
    assert set().union(*places) == {option.name for option in OPTIONS}
    assert sum(map(len, places)) == len(OPTIONS), "an option stands in one place"


@pytest.mark.parametrize("name", PRICED)
def test_an_option_with_a_price_changes_the_step(name: str) -> None:
    beside, value = PRICED[name]
    before, after = speed(**beside).step_seconds.value, speed(**beside | {name: value}).step_seconds.value
    assert before and after and before != after


@pytest.mark.parametrize("name", FREE)
def test_a_free_option_leaves_the_step_as_it_is(name: str) -> None:
    beside, value, why = FREE[name]
    assert why and speed(**beside).parts == speed(**beside | {name: value}).parts


def test_what_chooses_model_batch_or_numbers_changes_the_step() -> None:
    def seconds(**texts: str) -> float | None:
        either = {"global_batch_tokens": "accumulation", "precision": "recipe", "tokens": "steps"}
        words = {name: text for name, text in NO_MODEL.items() if name not in [either.get(given) for given in texts]}
        config = draft(Flags(**words | texts), as_of="2026-11-27", version="test")
        return estimate(config).throughput.step_seconds.value

    shape = {"layers": "12", "hidden": "768", "heads": "12"}
    assert seconds(params="125M") != seconds(params="350M") and seconds(model="gpt2") != seconds(model="gpt2-xl")
    assert seconds(**shape, family="gpt2") != seconds(**shape, family="llama")
    assert seconds(model="gpt2", global_batch_tokens="16384") != seconds(model="gpt2", global_batch_tokens="32768")
    assert seconds(model="gpt2", precision="bf16") != seconds(model="gpt2", precision="fp32")
    assert seconds(model="gpt2", tokens="1M") == seconds(model="gpt2", tokens="2M")  # more steps, not longer ones


# option → choices that take as long as another one, and why
ALIKE: dict[str, dict[str, tuple[str, ...]]] = {
    "norm_placement": {"as many norms": ("pre", "post")},
    "mlp": {"one element-wise kernel": ("gelu", "relu"), "one gate": ("swiglu", "geglu")},
    "balancing": {"the same probabilities are read": ("loss-pooled", "loss-mean", "loss-sum")},
    "runtime": {"as many casts, made by hand or by autocast": ("eager", "autocast")},
    "attention": {"one kernel": ("flash", "flash-only")},
}


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.kind.choices and o.name in PRICED], ids=lambda o: o.name)
def test_every_choice_has_its_price_or_its_like(option: Option) -> None:
    name, choices = option.name, option.kind.choices
    beside, seen = PRICED[name][0], dict[float, str]()
    for choice in choices:
        more = {"interleave": "2"} if choice == "interleaved" else {}
        more |= {"runtime": "compiled", "document_masking": "yes"} if choice == "flex" else {}
        found = speed(**beside | more | {name: choice})
        if found.step_seconds.value is None:
            assert choice in found.why_unknown, (name, choice, found.why_unknown)
            continue
        twin = seen.setdefault(round(found.step_seconds.value, 9), choice)
        alike = [names for names in ALIKE.get(name, {}).values() if twin in names and choice in names]
        assert twin == choice or alike, f"{name}: {twin} and {choice} take as long, and nobody says why"
