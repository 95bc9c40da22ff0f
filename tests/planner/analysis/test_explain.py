"""Every number of `estimate --json` is explained, and its explanation gives the same value within 1e-12."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import sympy

from planner.analysis.explain.explain import Explainer, explanations
from planner.analysis.explain.explanation import Explanation
from planner.analysis.explain.provenance import KEY_RULES
from planner.analysis.explain.symbolic import as_json, evaluated
from planner.analysis.findings import findings
from planner.document import document
from planner.errors import InputError, UnknownNameError
from planner.formulas.formula import FORMULAS
from planner.formulas.quantities import QUANTITIES
from planner.formulas.recording import made_by, real, recorded, whole
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.report.explain import explanation_text
from tests.planner.step_time.test_profile import made_up
from tests.soak import some

PLANS: dict[str, dict[str, str]] = {
    "data sheet": {"params": "125M", "tokens": "10B", "gpu": "a100-80gb", "gpus": "8", "dataset_tokens": "9B"},
    "nodes, full checkpointing": {
        "model": "llama-2-7b", "steps": "1000", "gpu": "h100-80gb", "gpus": "64", "activation_checkpointing": "full",
    },
    "selective": {
        "model": "gpt2", "steps": "500", "micro_batch": "2", "accumulation": "1",
        "activation_checkpointing": "selective",
    },
    "given mfu": {"params": "350M", "tokens": "7B", "mfu": "0.4"},
    "given tflops and price": {"params": "125M", "tokens": "10B", "tflops": "150", "price_per_gpu_hour": "2.5"},
    "unknown speed": {"params": "125M", "tokens": "10B", "gpu": "v100-32gb"},
    "polynomial": {"params": "125M", "tokens": "10B", "schedule": "polynomial"},
    "inverse root": {"params": "125M", "steps": "300", "schedule": "inverse_sqrt", "warmup_steps": "0"},
    "cooldown": {"params": "125M", "tokens": "10B", "schedule": "wsd"},
    "constant": {"params": "125M", "tokens": "10B", "schedule": "constant"},
    "processor": {"params": "125M", "tokens": "1B", "gpu": "cpu", "precision": "fp32", "warmup_steps": "0"},
    "profile": {"model": "gpt2", "steps": "20", "gpu": "cpu", "micro_batch": "2", "warmup_steps": "20"},
}  # fmt: skip
# where a number may be itself: what somebody chose or measured, and what the tape or a preset says
READ_OFF = {"chosen", "assumed", "default", "preset", "constant", "measured", "account"}
READ_IN = (
    *("config.", "memory.", "schedule.points.", "throughput.parts.", "time.times.", "time.parts"),
    *("schema_version", "cost.usd_per_gpu_hour"),
)


def explainer(name: str) -> Explainer:
    profile = made_up() if "profile" in name else None
    return Explainer(draft(Flags(**PLANS[name]), as_of="2026-11-21", version="test", profile=profile))


def all_numbers(value: Any, path: str = "") -> dict[str, float]:
    """Every number of a JSON value, found without the code under test; lists by position."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in all_numbers(inner, f"{path}.{name}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in all_numbers(inner, f"{path}.{i}").items()}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {path.removeprefix("."): value} if number else {}


WHOLE = ("data sheet", "given tflops and price", "profile")


@pytest.mark.parametrize("name", some(PLANS, WHOLE.__contains__))
def test_every_number_is_explained_and_made_again(name: str) -> None:
    explains = explainer(name)
    plan = estimate(explains.config, replay=True)
    printed = json.loads(json.dumps(document(plan, findings(plan)), allow_nan=False))
    printed["config"]["profile"] = None  # thousands of measured times, each only itself
    found = all_numbers(printed)
    assert len(found) > 120
    for key, value in found.items():
        shown = json.loads(json.dumps(as_json(explains.explain(key)), allow_nan=False))
        assert shown["value"] == value, key
        values = {symbol: entry["value"] for symbol, entry in shown["symbols"].items()}
        assert math.isclose(evaluated(shown["expression"], values), value, rel_tol=1e-12), key
        assert math.isclose(shown["evaluated"], value, rel_tol=1e-12), key
        assert shown["meaning"] and shown["source"] and shown["checked_against"], key
        read = shown["origin"] in READ_OFF
        assert not read or key.startswith(READ_IN), (key, shown["origin"])
        assert read or shown["origin"] == "same" or (shown["pretty"] and shown["latex"]), key


@pytest.mark.parametrize("name", PLANS)
def test_every_text_is_complete(name: str) -> None:
    explains = explainer(name)
    for key in ("memory.peak_requested_bytes", "flops.training_6nd", "schedule.points.1.lr", "batch.tokens_per_step"):
        text = explanation_text(explains.explain(key))
        for label in ("formula", "LaTeX", "numbers", "where", "source", "checked by"):
            assert f"\n  {label}" in text, (key, label)


def test_units_are_those_of_the_keys() -> None:
    explains = explainer("data sheet")
    for key in explains.all_keys():
        unit, name = explains.explain(key).unit, key.rpartition(".")[2]
        for ending, expected in (("_bytes", "byte"), ("_kwh", "kWh"), ("_kg", "kg"), ("seconds", "s")):
            assert not name.endswith(ending) or unit == expected, (key, unit)
    assert explains.explain("cost.usd").unit == "USD" and explains.explain("time.gpu_hours").unit == "hour"


def test_an_expression_is_the_formula_of_its_name() -> None:
    """The text that is printed is the registered function called with symbols, not a sentence about it."""
    explains = explainer("data sheet")
    shown = as_json(explains.explain("flops.training_6nd"))
    assert shown["formula"] == "training_flops_6nd" and shown["expression"] == "6*parameters*tokens"
    assert shown["latex"] == r"C_{t} = 6 D N" and shown["symbols"]["parameters"]["symbol"] == "N"
    assert shown["substituted"] == "6*125000000*10000000000"
    assert [a["key"] for a in shown["assumptions"]] == ["shape"]


def test_numbers_of_a_formula_are_followed_to_what_was_typed() -> None:
    def names(found: Explanation) -> set[str]:
        return {found.key}.union(*(names(part) for part in found.parts))

    cost = explainer("data sheet").explain("cost.usd")
    assert {"gpu_hours", "seconds", "tokens_per_second", "tokens_per_step", "sequences_per_step"} <= names(cost)
    assert {"seq", "micro_batch", "accumulation", "global_batch_tokens", "recipe"} <= {a.key for a in cost.assumptions}


def test_equal_numbers_of_different_quantities_are_told_apart() -> None:
    """With one sequence per step, 8192 is the context, the micro-batch and the step: each has its own lineage."""
    flags = Flags(params="125M", steps="100", seq="8192", micro_batch="1", accumulation="1", gpus="1", gpu="h100-80gb")
    explains = Explainer(draft(flags, as_of="2026-11-21", version="test"))

    def followed(found: Explanation) -> set[tuple[str, str, str]]:
        own = {(found.formula, part.key, part.formula) for part in found.parts}
        return own.union(*(followed(part) for part in found.parts))

    everything = {one for key in explains.all_keys() for one in followed(explains.explain(key))}
    by_tokens = {(user, argument) for user, argument, maker in everything if maker == "tokens_per_step"}
    assert {argument for _, argument in by_tokens} == {"tokens_per_step", "tokens"}  # never seq, never the micro-batch
    assert {user for user, argument in by_tokens if argument == "tokens"} == {"total_flops"}  # of one step
    assert not [one for one in everything if one[1] == "seq"]  # the context is chosen: no formula made it
    step = explains.explain("batch.tokens_per_step")
    assert step.arguments == {"sequences_per_step": 1, "seq": 8192}
    assert [(part.key, part.formula) for part in step.parts] == [("sequences_per_step", "sequences_per_step")]
    points = range(len(explains.document["schedule"]["points"]))
    for i in points:
        rate = explains.explain(f"schedule.points.{i}.lr")
        step_number = explains.explain(f"schedule.points.{i}.step").value
        assert rate.arguments.get("step", step_number) == step_number


TINY = {"layers": "1", "hidden": "2", "heads": "1", "vocab": "3", "ffn": "2", "seq": "8", "micro_batch": "1"}


def test_equal_numbers_and_equal_arguments_go_to_the_calls_that_made_them() -> None:
    """The step, the tokens typed and those trained are all 8, one object in the interpreter."""
    flags = Flags(**TINY, tokens="8", accumulation="1", gpus="1", gpu="h100-80gb", mfu="0.4", warmup_steps="0")
    explains = Explainer(draft(flags, as_of="2026-11-21", version="test"))
    values = explains.values
    assert values["tokens.requested"] == values["tokens.trained"] == values["batch.tokens_per_step"] == 8
    makers = {
        "tokens.trained": "trained_tokens",
        "batch.tokens_per_step": "tokens_per_step",
        "batch.steps": "whole_steps",
    }
    for key, maker in makers.items():
        assert explains.explain(key).formula == maker
    twins = (
        ("model.parameters.total", "model.parameters.active"),
        ("throughput.mfu", "throughput.mfu_low"),
        ("throughput.tokens_per_second", "throughput.tokens_per_second_low"),
        ("time.seconds", "time.seconds_high"),
    )
    for one, other in twins:
        calls = [made_by(explains.calls, values[key]) for key in (one, other)]
        assert (
            values[one] == values[other] and calls[0] is not None and calls[1] is not None and calls[0] is not calls[1]
        )
    # two calls of one formula with an equal argument of one name: once typed, once a result
    step, run = explains.explain("flops.per_step_model"), explains.explain("flops.training_model")
    assert step.arguments == run.arguments and step.formula == run.formula == "total_flops"
    assert [(part.key, part.formula) for part in step.parts if part.key == "tokens"] == [("tokens", "tokens_per_step")]
    assert [part for part in run.parts if part.key == "tokens"] == []
    trained = explains.explain("tokens.trained")
    assert [(part.key, part.formula) for part in trained.parts] == [
        ("steps", "whole_steps"), ("tokens_per_step", "tokens_per_step"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flags", [{"model": "llama-3-8b", "tokens": "838767334607"}, {"recipe": "master-bf16"}, {"recipe": "fp8-te"}, TINY]
)
def test_no_plan_has_a_number_without_a_rule(flags: dict[str, str]) -> None:
    """Beyond 2^53 a product is rounded when it becomes a float; master weights are no weights of the update."""
    words = ({} if "model" in flags or "hidden" in flags else {"params": "125M"}) | {"tokens": "10B"} | flags
    explains = Explainer(draft(Flags(**words, gpu="h100-80gb"), as_of="2026-11-21", version="test"))
    for key in explains.all_keys():
        assert explains.explain(key).value == explains.values[key]
    six_nd = explains.explain("flops.training_6nd")
    assert six_nd.formula == "training_flops_6nd" and [part.key for part in six_nd.parts] in ([], ["parameters"])


def test_parameters_beside_the_blocks_are_in_the_call_that_gives_the_total() -> None:
    config = draft(Flags(params="125M", tokens="10B", gpu="h100-80gb"), as_of="2026-11-21", version="test")
    changed = config.model.model_copy(update={"head_bias": True, "attention_sinks": True})
    explains = Explainer(config.model_copy(update={"model": changed}))
    before, more = Explainer(config).values["model.parameters.total"], changed.vocab + changed.layers * changed.heads
    assert explains.explain("model.parameters.total").formula == "total_parameters"
    assert explains.values["model.parameters.total"] == explains.values["model.parameters.active"] == before + more


def test_recorded_numbers_have_objects_of_their_own() -> None:
    total = FORMULAS["total_flops"].function
    (one, other, raw), calls = recorded(lambda: (whole(total(2, 3)), whole(total(3, 2)), total(1, 6)))
    assert one == other == raw == 6
    assert [made_by(calls, number) for number in (one, other)] == list(calls[:2])
    assert made_by(calls, raw) is None and made_by(calls, 6) is None  # one object for all that are equal
    assert type(whole(total(2, 3))) is int and type(real(total(2, 3))) is float


def test_config_numbers_say_who_chose_them() -> None:
    explains = explainer("data sheet")
    origins = {key: explains.explain(f"config.{key}") for key in (
        "training.seq", "training.tokens", "optimizer.beta2", "model.layers", "hardware.gpus", "training.loss_chunks"
    )}  # fmt: skip
    assert [o.origin for o in origins.values()] == ["assumed", "chosen", "assumed", "assumed", "chosen", "default"]
    assert "GPT-2's context" in origins["training.seq"].source
    assert "arXiv 2005.14165" in origins["optimizer.beta2"].source
    assert explainer("given tflops and price").explain("config.hardware.tflops").unit == "FLOP/s"
    llama = explainer("nodes, full checkpointing")
    published = llama.explain("config.model.layers")
    assert (published.origin, published.source) == ("preset", llama.config.model.source)


def test_phases_go_by_name_and_by_position() -> None:
    explains = explainer("data sheet")
    phases = [phase["phase"] for phase in explains.document["memory"]["phases"]]
    for i, phase in enumerate(phases):
        by_name = explains.explain(f"memory.phases.{phase}.peak_bytes")
        assert by_name == explains.explain(f"memory.phases.{i}.peak_bytes")
        assert sum(by_name.arguments.values()) == by_name.value and len(by_name.arguments) > 4
        assert "fake tensors" in by_name.checked_against
    spaced = explains.explain("throughput.parts.matrix products")
    assert spaced == explains.explain("throughput.parts.matrix_products")


def test_what_has_no_number_is_refused() -> None:
    explains = explainer("unknown speed")
    with pytest.raises(UnknownNameError, match=r"cost\.usd"):
        explains.explain("cost.us")
    with pytest.raises(InputError, match="unknown in this plan"):
        explains.explain("cost.usd")
    with pytest.raises(InputError, match="is no number"):
        explains.explain("schedule.kind")
    with pytest.raises(InputError, match="is no number"):
        explains.explain("memory.fits")
    for key in ("", ".", "memory.phases.99.peak_bytes", "memory", "schedule.points.-1.lr", "memory.phases"):
        with pytest.raises(UnknownNameError):
            explains.explain(key)


def test_several_keys_of_one_plan() -> None:
    plan = estimate(explainer("given mfu").config, replay=True)
    found = explanations(plan, ["throughput.mfu", "time.seconds"])
    assert [one.value for one in found] == [plan.throughput.mfu.value, plan.time.seconds.value]


def test_recording_sees_the_calls_and_leaves_nothing_behind() -> None:
    import sys

    before = sys.getprofile()
    total = FORMULAS["total_flops"].function
    result, calls = recorded(lambda: total(3, tokens=4) + total(1, 1))
    assert result == 13 and [(c.formula.name, c.arguments, c.result) for c in calls] == [
        ("total_flops", {"flops_per_token": 3, "tokens": 4}, 12),
        ("total_flops", {"flops_per_token": 1, "tokens": 1}, 1),
    ]
    with pytest.raises(TypeError):
        recorded(lambda: total(None, None))
    with pytest.raises(ZeroDivisionError):
        recorded(lambda: FORMULAS["run_seconds"].function(1, 0))
    assert sys.getprofile() is before


def test_rules_name_formulas_that_exist() -> None:
    for pattern, rules in KEY_RULES.items():
        assert rules, pattern
        for rule in rules:
            names = [n for n in getattr(rule, "names", ()) if n != "{0}"]
            names += [rule.name] if hasattr(rule, "name") else []
            assert all(name in FORMULAS for name in names), (pattern, names)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_every_formula_is_checked_against_something_and_has_its_own_symbols(name: str) -> None:
    formula = FORMULAS[name]
    assert formula.checked_against
    symbols = [QUANTITIES[argument].symbol for argument in formula.arguments]
    assert len(set(symbols)) == len(symbols), symbols
    assert sympy.latex(sympy.Symbol(QUANTITIES[formula.gives].symbol))
