"""Keys and flags name each other: every one of the table is found from the other's side."""

from __future__ import annotations

import pytest

from planner.config.options import BY_KEY, OPTION, OPTIONS, Option
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags
from planner.inputs.key_names import SECTION_KEYS, flags_named, meant_by_flag, meant_by_key, with_flag


def spelled(option: Option) -> str:
    return option.flag


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.key], ids=lambda o: o.name)
def test_each_option_is_found_under_its_flags_name_in_its_section_and_outside(option: Option) -> None:
    section, _, key = option.key.rpartition(".")
    assert with_flag(option.key) == f"{option.key} ({option.flag})"
    here = meant_by_key(option.name, section, [])
    assert here.startswith(f"did you mean {key}?") and option.flag in here
    assert f"{key} under [{section}]" in meant_by_key(option.flag, "", [])


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.key], ids=lambda o: o.name)
def test_an_option_without_a_key_says_so_and_what_it_sets(option: Option) -> None:
    said = meant_by_key(option.name, "training", ["seq"])
    assert f"{option.flag} is a flag and no key: it sets" in said
    named = [key for key in SECTION_KEYS if "." in key and key in said]
    assert named or said.endswith("[model]")


@pytest.mark.parametrize("key", [key for key in SECTION_KEYS if "." in key])
def test_each_key_typed_as_a_flag_leads_to_its_flag_or_to_the_file(key: str) -> None:
    said = meant_by_flag(f"--{key}", spelled, "edit the file")
    if key in BY_KEY:
        assert f"write {BY_KEY[key].flag} for {key}" in said
    elif key.replace(".", "_") not in OPTION:
        assert f"{key} can be set in run.toml only: edit the file" in said


def test_a_flag_is_no_key_typed_as_a_flag() -> None:
    assert [name for name in OPTION if meant_by_flag(name, spelled, "")] == []
    assert meant_by_flag("--nothing-like-it", spelled, "") == ""


def test_a_known_key_with_other_dashes_and_a_near_one() -> None:
    assert meant_by_key("Micro-Batch", "training", ["micro_batch"]) == "did you mean micro_batch?"
    assert "micro_batch" in meant_by_key("micro_bach", "training", ["micro_batch", "seq"])
    assert meant_by_key("zzz", "training", ["seq"]) == ""


def test_the_keys_in_a_sentence_are_named_with_their_flags() -> None:
    said = flags_named("heads (12) is not divisible by kv_heads (5)", "model")
    assert said == ["heads (--heads)", "kv_heads (--kv-heads)"]
    assert flags_named("give tflops or mfu, not both", "hardware") == ["tflops (--tflops)", "mfu (--mfu)"]
    assert flags_named("norm_parameters", "model") == []
    assert flags_named("seq (4000) is longer", "") == ["seq (--seq)"]


@pytest.mark.parametrize("name, text", [("seq", "12x"), ("attention", "flsh"), ("min_lr", "-1"), ("mfu", "1.5")])
def test_a_wrong_value_of_a_flag_names_its_key(name: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        Flags(**{name: text}).value(name)
    error = caught.value
    assert error.what.endswith(f"(in run.toml: {OPTION[name].key})") and OPTION[name].flag in error.what
    assert str(error) == error.message()


def test_a_keyword_that_is_a_key_of_the_file_is_an_error_with_the_right_keyword() -> None:
    from gptplan.keywords import flags_of

    with pytest.raises(UnknownNameError, match=r"write attention=… for training\.attention_kernel"):
        flags_of({"attention_kernel": "flash"})
    with pytest.raises(UnknownNameError, match=r"optimizer\.eps can be set in run\.toml only: give its path"):
        flags_of({"eps": 1e-8})
