"""The rules for changing a config before a run is resumed."""

from __future__ import annotations

from typing import Any

import pytest

from planner.config.resume import COMPARED, RULE_OF, changes, keys_of_a_config, needs_request, settings_of
from planner.config.run import GroupConfig, RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags

CONFIG = draft(Flags(params="125M", tokens="10B", gpu="a100-80gb"), as_of="2026-11-21", version="test")
SETTINGS = settings_of(CONFIG)
CONSTANTS = ("model.rope_base", "model.norm_eps", "model.rope_scaling")


def judged(**now: Any) -> dict[str, str]:
    """The verdict on each change; a name is `section__key`."""
    changed = {name.replace("__", "."): value for name, value in now.items()}
    return {change.key: change.verdict for change in changes(SETTINGS, SETTINGS | changed)}


def test_every_key_of_a_config_has_one_rule() -> None:
    keys = list(keys_of_a_config())
    assert len(keys) == len(set(keys)) > 80
    assert sorted(keys) == sorted(RULE_OF)
    assert all(rule.reason for rule in RULE_OF.values())


def test_every_section_but_the_provenance_is_compared() -> None:
    assert {*COMPARED, "schema_version", "provenance", "profile"} == set(RunConfig.model_fields)
    compared = {key for key in RULE_OF if key.partition(".")[0] in COMPARED}
    assert set(SETTINGS) == compared


def test_the_same_config_changes_nothing() -> None:
    assert changes(SETTINGS, settings_of(CONFIG)) == ()


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_every_change_is_judged_by_its_rule(key: str) -> None:
    wanted = {"on request": "refused", "same batch": "refused"}.get(RULE_OF[key].verdict, RULE_OF[key].verdict)
    other = 7 if RULE_OF[key].verdict == "same batch" else "something else"
    (change,) = changes(SETTINGS, SETTINGS | {key: other})
    assert (change.key, change.verdict, change.now) == (key, wanted, other)
    assert change.text() == f"{key} was {SETTINGS[key]}, is now {other}" and change.reason


def test_the_same_batch_cut_otherwise_is_warned_of() -> None:
    sequences = SETTINGS["training.micro_batch"] * SETTINGS["training.accumulation"]
    assert judged(training__micro_batch=1, training__accumulation=sequences) == {
        "training.micro_batch": "warned",
        "training.accumulation": "warned",
    }


def test_the_same_batch_on_other_ranks_is_warned_of() -> None:
    batch = {"hardware.gpus": 2, "training.accumulation": SETTINGS["training.accumulation"]}
    stored = SETTINGS | batch | {"training.accumulation": 3 * batch["training.accumulation"]}
    now = stored | {"hardware.gpus": 6, "training.accumulation": batch["training.accumulation"]}
    assert {change.verdict for change in changes(stored, now)} == {"warned"}
    assert changes(stored, now | {"hardware.gpus": 4})[0].verdict == "refused"


def test_a_new_schedule_on_request() -> None:
    now = SETTINGS | {"schedule.peak_lr": 1.0, "training.tokens": 1}
    found = changes(SETTINGS, now)
    assert [change.verdict for change in found] == ["refused", "refused"] and needs_request(found)
    asked = changes(SETTINGS, now, new_schedule=True)
    assert [change.verdict for change in asked] == ["warned", "warned"] and not needs_request(asked)
    more = changes(SETTINGS, now | {"training.seed": 1}, new_schedule=True)
    assert [change.verdict for change in more] == ["refused", "warned", "warned"] and not needs_request(more)


def test_a_key_that_an_older_checkpoint_lacks_counts_as_the_default() -> None:
    older = {
        key: value for key, value in SETTINGS.items() if not key.startswith(("guard.", "evaluation.", "hardware."))
    }
    assert changes(older, SETTINGS) == ()
    (change,) = changes(older, SETTINGS | {"guard.on_spike": "skip"})
    assert (change.before, change.now, change.verdict) == ("warn", "skip", "warned")
    without = {key: value for key, value in SETTINGS.items() if key != "training.seed"}  # it has no default
    assert [change.verdict for change in changes(without, SETTINGS)] == ["refused"]


def test_a_checkpoint_from_before_the_models_constants_has_those_that_it_was_trained_with() -> None:
    older = {key: value for key, value in SETTINGS.items() if key not in CONSTANTS}
    assert len(older) == len(SETTINGS) - len(CONSTANTS)
    assert changes(older, SETTINGS) == ()
    (change,) = changes(older, SETTINGS | {"model.rope_base": 500_000.0})
    assert (change.before, change.verdict) == (10_000.0, "refused")
    undrawn = {key: value for key, value in SETTINGS.items() if not key.startswith("model.init_")}
    assert changes(undrawn, SETTINGS | {"model.init_std": 0.006}) == ()  # drawn once, long ago
    (change,) = changes(SETTINGS, SETTINGS | {"model.init_std": 0.006})
    assert (change.before, change.verdict) == (0.02, "allowed")
    (change,) = changes(older, SETTINGS | {"model.norm_eps": 1e-6})
    assert (change.before, change.verdict) == (1e-5, "refused")


EXPERTS = settings_of(
    # a run of the first version balanced nothing
    draft(
        Flags(model="deepseek-v2-lite", tokens="10B", gpu="a100-80gb", balancing="none"),
        as_of="2026-11-21",
        version="test",
    )
)


def test_a_checkpoint_from_before_a_key_of_a_nested_section_counts_it_as_the_default() -> None:
    required = {"experts": 64, "top_k": 6, "expert_ffn": 1408}  # a [model.moe] of the first version
    older = EXPERTS | {"model.moe": required | {"shared_ffn": 2816, "first_dense_layers": 1}}
    assert EXPERTS["model.moe"].keys() > older["model.moe"].keys()
    assert changes(older, EXPERTS) == ()
    (change,) = changes(older, EXPERTS | {"model.moe": EXPERTS["model.moe"] | {"router_bias": True}})
    assert (change.key, change.verdict) == ("model.moe", "refused")
    (change,) = changes(EXPERTS | {"model.moe": required}, EXPERTS)  # without what it does have it is another model
    assert (change.before["shared_ffn"], change.verdict) == (0, "refused")  # type: ignore[index]


def test_sections_within_a_list_and_within_a_dense_model_are_completed_too() -> None:
    now = EXPERTS | {"optimizer.groups": [GroupConfig(match="head.*", weight_decay=0.0).model_dump(mode="json")]}
    older = EXPERTS | {"optimizer.groups": [{"match": "head.*", "weight_decay": 0.0}]}  # without its rate, 1
    assert changes(older, now) == ()
    latent = {key: value for key, value in EXPERTS["model.mla"].items() if value is not None}
    assert latent != EXPERTS["model.mla"]
    assert changes(EXPERTS | {"model.mla": latent}, EXPERTS) == ()
    (change,) = changes(EXPERTS | {"model.mla": latent | {"of_a_later_version": 1}}, EXPERTS)
    assert change.verdict == "refused"


def test_a_key_without_a_rule_is_refused() -> None:
    (change,) = changes(SETTINGS | {"training.later": 1}, SETTINGS)
    assert (change.verdict, change.reason) == ("refused", "this version has no rule for it")
