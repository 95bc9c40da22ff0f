"""A run.toml is a complete plan: it reads back unchanged, and flags change their keys and what depends on them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.analysis.findings import findings
from planner.config.run import RunConfig
from planner.counts.schedule import KINDS
from planner.document import document
from planner.errors import PlanError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_from, config_text, load_config
from planner.plan import estimate
from planner.report.schemas import schemas
from tests.examples import examples
from tests.gptplan.calling import BASE, Call

COUNT = st.sampled_from(["1", "2", "8", "1_000", "64Ki", "1M"])
SMALL = st.sampled_from(["1", "2", "3", "8"])
RATE = st.floats(1e-12, 1e3, allow_nan=False).map(repr)
MODELS: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.fixed_dictionaries({"params": st.integers(10**7, 10**13).map(str)}, optional={"vocab": st.just("256")}),
    st.fixed_dictionaries(
        {"model": st.sampled_from(["gpt2", "llama-3-8b", "mistral-7b-v0.1", "mpt-7b-bench", "gpt-3-175b"])},
        optional={"layers": SMALL, "vocab": COUNT, "ffn": COUNT},
    ),
    st.fixed_dictionaries(
        {"layers": SMALL, "hidden": st.sampled_from(["64", "96", "100", "1_024"])},
        optional={"family": st.sampled_from(["gpt2", "llama"]), "heads": SMALL, "kv_heads": SMALL, "ffn": COUNT},
    ),
)
REST = st.fixed_dictionaries(
    {"gpu": st.sampled_from(["a100-80gb", "h100-80gb", "t4", "rtx-4090", "cpu"])},
    optional={
        "seq": st.sampled_from(["128", "512", "1_024"]),
        "gpus": SMALL,
        "micro_batch": SMALL,
        "dataset_tokens": COUNT,
        "activation_checkpointing": st.sampled_from(["none", "selective", "full"]),
        "peak_lr": RATE,
        "warmup_ratio": st.floats(0, 1).map(lambda x: f"{x:.6f}"),
        "price_per_gpu_hour": st.floats(0, 1e6).map("{:.9f}".format),
        "seed": st.integers(0, 2**63 - 1).map(str),
        "checkpoint_every": COUNT,
        "keep_checkpoints": SMALL,
        "async_save": st.sampled_from(["yes", "no"]),
        "eval_every": COUNT,
        "eval_tokens": COUNT,
        "on_spike": st.sampled_from(["warn", "skip", "rollback"]),
        "optimizer": st.just("adamw"),
        "schedule": st.sampled_from(KINDS),
        "min_lr": st.sampled_from(["0", "1e-12", "0%", "10%", "100%"]),
    },
)
LENGTH = st.sampled_from([{"tokens": "10B"}, {"tokens": "123_456_789"}, {"steps": "1"}, {"steps": "77"}])
BATCH = st.sampled_from([{}, {"accumulation": "3"}, {"global_batch_tokens": "3Mi"}])
SPEED = st.one_of(st.just({}), RATE.map(lambda x: {"tflops": x}), st.just({"mfu": "33.3%"}))
TYPE = st.sampled_from([{}, {"precision": "fp32"}, {"recipe": "mixed-bf16"}])
COOLDOWN = st.sampled_from([{}, {}, {"cooldown_ratio": "0.1"}, {"cooldown_steps": "3"}, {"cooldown_tokens": "10M"}])
TYPED = st.tuples(MODELS, REST, LENGTH, BATCH, SPEED, TYPE, COOLDOWN).map(
    lambda parts: {k: v for d in parts for k, v in d.items()}
)
SCHEMA = jsonschema.Draft202012Validator(schemas()["config"])


def drafted(base: RunConfig | None = None, **flags: str) -> RunConfig:
    return draft(Flags(**flags), as_of="2026-11-21", version="test", base=base)


def reread(config: RunConfig) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.toml"
        path.write_text(config_text(config), encoding="utf-8")
        return load_config(path)


def told(config: RunConfig) -> str:
    plan = estimate(config)
    return json.dumps(document(plan, findings(plan)), allow_nan=False)


@examples(60)
@given(flags=TYPED)
def test_round_trip(flags: dict[str, str]) -> None:
    try:
        config = drafted(**flags)
    except PlanError:
        return  # parts that do not fit together: their messages are tested elsewhere
    again = reread(config)
    assert again == config
    assert told(again) == told(config)
    SCHEMA.validate(again.model_dump(mode="json"))


@examples(60)
@given(flags=TYPED, over=TYPED, names=st.sets(st.sampled_from(sorted(Flags.__dataclass_fields__)), min_size=8))
def test_no_override_crashes_or_leaves_a_typed_value_assumed(
    flags: dict[str, str], over: dict[str, str], names: set[str]
) -> None:
    try:
        base = drafted(**flags)
        over = {name: text for name, text in over.items() if name in names}
        config = drafted(base, **over)
    except PlanError:
        return
    assert reread(config) == config
    told(config)
    assert not assumed(config).keys() & (over.keys() - {"optimizer"})  # its betas stay assumed
    for key, section in {"micro_batch": "training", "accumulation": "training", "seq": "training"}.items():
        if key in assumed(config):
            assert assumed(config)[key] == str(getattr(getattr(config, section), key))


def test_the_file_without_flags_is_the_plan(call: Call) -> None:
    first = call("plan", *BASE, "--price-per-gpu-hour", "2.5", "-o", "run.toml", "--json")
    assert call("estimate", "--config", "run.toml", "--json").out == first.out
    printed = call("plan", "--config", "run.toml").out
    assert printed == Path("run.toml").read_text(encoding="utf-8")


def test_the_printed_file_fits_the_printed_schema(call: Call) -> None:
    schema = json.loads(call("schema", "config").out)
    document = json.loads(call("estimate", *BASE, "--json").out)
    jsonschema.validate(document["config"], schema)
    assert config_from(document["config"], "printed").model.nominal_parameters == 125_000_000


def assumed(config: RunConfig) -> dict[str, str]:
    return {a.key: a.value for a in config.provenance.assumptions}


FILE = {"params": "125M", "tokens": "10B", "gpu": "a100-80gb"}
DEFAULT_BATCH = 524_288


def batch(config: RunConfig) -> tuple[int, int, int]:
    return config.training.micro_batch, config.training.accumulation, estimate(config).batch.tokens_per_step


def test_gpus_share_a_batch_that_was_assumed() -> None:
    file = reread(drafted(**FILE))
    assert batch(drafted(file, gpus="8"))[2] == batch(drafted(file, micro_batch="4"))[2] == DEFAULT_BATCH
    assert batch(drafted(file, gpus="8")) == batch(drafted(**FILE, gpus="8"))
    assert assumed(drafted(file, gpus="8"))["global_batch_tokens"] == str(DEFAULT_BATCH)


def test_gpus_share_a_batch_that_was_typed_exactly_or_not_at_all() -> None:
    file = reread(drafted(**FILE, global_batch_tokens="1Mi"))
    assert batch(drafted(file, gpus="4"))[2] == 2**20
    assert "global_batch_tokens" not in assumed(drafted(file, gpus="4"))
    with pytest.raises(PlanError, match=r"the file's batch of 1,048,576 tokens(?s:.)*1,047,552 or 1,050,624"):
        drafted(file, gpus="3")


def test_a_typed_accumulation_stands() -> None:
    file = reread(drafted(**FILE, accumulation="4", micro_batch="2"))
    assert batch(drafted(file, gpus="3")) == (2, 4, 3 * 2 * 4 * 1024)
    by_hand = drafted(**FILE)
    by_hand = by_hand.model_copy(update={"training": by_hand.training.model_copy(update={"accumulation": 5})})
    assert drafted(by_hand, gpus="2").training.accumulation == 5
    over = drafted(drafted(**FILE), accumulation="1")
    assert over.training.micro_batch == drafted(**FILE).training.micro_batch
    assert not {"accumulation", "global_batch_tokens"} & assumed(over).keys()


ENDED = {
    "precision": ("fp32", {"recipe"}),
    "warmup_steps": ("100", {"warmup_steps"}),
    "warmup_ratio": ("3%", {"warmup_steps"}),
    "warmup_tokens": ("1B", {"warmup_steps"}),
    "model": ("gpt2", {"shape", "vocab"}),
    "layers": ("24", {"shape"}),
    "vocab": ("256", {"shape", "vocab"}),
    "global_batch_tokens": ("1Mi", {"global_batch_tokens"}),
    "seed": ("5", {"seed"}),
    "peak_lr": ("1e-3", {"peak_lr"}),
    "gpus": ("1", {"gpus"}),
    "tokens": ("20B", set()),
    "optimizer": ("adamw", set()),
}


@pytest.mark.parametrize("name", ENDED)
def test_what_is_typed_is_no_longer_assumed(name: str) -> None:
    text, ended = ENDED[name]
    file = reread(drafted(**FILE))
    assert assumed(file).keys() - assumed(drafted(file, **{name: text})).keys() == ended


def test_the_rest_stands() -> None:
    file = reread(drafted(**FILE, peak_lr="1e-3", min_lr="2e-5", mfu="0.4", price_per_gpu_hour="2", seed="7"))
    over: Any = drafted(file, steps="5000")
    assert (over.training.tokens, over.training.steps, over.training.seed) == (None, 5000, 7)
    assert (over.schedule, over.hardware, over.model) == (file.schedule, file.hardware, file.model)
    assert drafted(file, peak_lr="2e-3").schedule.min_lr == 2e-5
    assert drafted(drafted(**FILE), peak_lr="2e-3").schedule.min_lr == 2e-4


def test_speed_and_price_belong_to_their_card() -> None:
    file = drafted(**FILE, tflops="150", price_per_gpu_hour="2")
    assert drafted(file, gpu="a100-80gb").hardware == file.hardware
    other = drafted(file, gpu="h100-80gb")
    assert (other.hardware.tflops, other.hardware.usd_per_gpu_hour) == (None, None)
    assert {"speed", "price_per_gpu_hour"} <= assumed(other).keys()


def test_a_width_over_a_shape_by_rule_brings_its_heads() -> None:
    over = drafted(drafted(**FILE), hidden="1024").model
    assert (over.heads, over.kv_heads, over.head_dim, over.ffn) == (16, 16, 64, 4096)
    with pytest.raises(PlanError, match="--hidden 1000 is not divisible by --heads 12"):
        drafted(drafted(model="gpt2", tokens="10B", gpu="t4"), hidden="1000")


@pytest.mark.parametrize("over", [("--tokens", "100M"), ("--steps", "100")])
def test_a_warm_up_longer_than_the_shortened_run(call: Call, run_toml: Path, over: tuple[str, str]) -> None:
    call("estimate", "--config", "run.toml", *over).refused(
        "warm-up of 381 steps in the file", "--warmup-ratio", over[0]
    )
    assert call("estimate", "--config", "run.toml", *over, "--warmup-ratio", "2%").code == 0


def test_a_sequence_longer_than_the_file_model(call: Call, run_toml: Path) -> None:
    call("estimate", "--config", "run.toml", "--seq", "2048").refused("1,024 learned positions", "--params N")
    assert call("estimate", "--config", "run.toml", "--seq", "2048", "--params", "125M").code == 0
