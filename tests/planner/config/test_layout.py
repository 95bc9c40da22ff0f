"""Layouts that a model, a batch or a number of GPUs does not allow are refused by name, with the nearest valid ones."""

from __future__ import annotations

import pytest

from planner.config.layout import divisors_near
from planner.config.run import RunConfig
from planner.errors import InputError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_text, load_config

BASE = {
    **{"family": "llama", "layers": "12", "hidden": "64", "heads": "8", "kv_heads": "4", "vocab": "320", "seq": "64"},
    **{"ffn": "256", "micro_batch": "1", "accumulation": "8", "steps": "10", "gpu": "h100-80gb"},
}


def drafted(**texts: str) -> RunConfig:
    return draft(Flags(**BASE | texts), as_of="2026-11-27", version="test")


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "gpus": ({"tp": "4", "gpus": "6"}, "nearest gpus: 4 or 8"),
    "heads": ({"tp": "3", "vocab": "321", "ffn": "255"}, "nearest tp: 2 or 4"),
    "ffn": ({"tp": "8", "ffn": "252"}, "ffn"),
    "vocab": ({"tp": "8", "vocab": "321"}, "or vocab 328"),
    "kv heads": ({"tp": "6", "heads": "12", "head_dim": "8", "ffn": "252", "vocab": "324"}, "neither divides"),
    "norm over heads": ({"tp": "2", "qk_norm": "full"}, 'qk_norm = "full"'),
    "sp alone": ({"sp": "sp"}, "sp = true with tp = 1"),
    "sp of a sequence": ({"tp": "8", "sp": "sp", "seq": "60"}, "nearest seq: 56 or 64"),
    "cp of a sequence": ({"cp": "4", "seq": "60"}, "nearest seq: 56 or 64"),
    "cp with stored scores": ({"cp": "2", "attention": "math"}, "attention_kernel"),
    "cp with a window": ({"cp": "2", "sliding_window": "16"}, "sliding_window with cp = 2"),
    "stages": ({"pp": "13"}, "nearest pp: 12"),
    "chunks": ({"pp": "4", "interleave": "4", "pp_schedule": "interleaved"}, "nearest pp: 3"),
    "chunks of 1f1b": ({"pp": "2", "interleave": "2"}, "interleave = 2"),
    "one chunk": ({"pp": "2", "pp_schedule": "interleaved"}, "that is 1f1b"),
    "no pipeline": ({"pp_schedule": "zero-bubble"}, "pp = 1"),
    "odd dualpipe": ({"pp": "3", "pp_schedule": "dualpipe"}, "pp is even"),
    "short dualpipe": ({"pp": "8", "pp_schedule": "dualpipe"}, "give --accumulation 16"),
    "uneven interleaving": ({"pp": "3", "interleave": "2", "pp_schedule": "interleaved"}, "give --accumulation 6 or 9"),
    "experts of a dense model": ({"ep": "2", "dp": "2"}, "dense"),
    "experts": ({"ep": "3", "dp": "3", "experts": "8", "top_k": "2"}, "nearest ep: 2 or 4"),
    "experts of replicas": ({"ep": "4", "dp": "6", "experts": "8", "top_k": "2"}, "nearest ep: 3 or 6"),
    "zero of one": ({"zero": "1"}, "1 replica"),
    "zero beside fsdp": ({"zero": "1", "fsdp": "fsdp", "gpus": "4"}, "zero = 1 beside fsdp"),
    "zero 2 in a pipeline": ({"zero": "2", "pp": "2", "dp": "2"}, "zero = 2 beside pp = 2"),
    "zero 4": ({"zero": "4", "dp": "2"}, "--zero"),
    "groups": ({"fsdp": "fsdp", "gpus": "8", "hsdp": "3"}, "nearest hsdp: 2 or 4"),
    "whole matrices": ({"optimizer": "muon", "tp": "2"}, "whole matrices"),
    "two counts": ({"dp": "2", "gpus": "4"}, "contradict"),
}


@pytest.mark.parametrize(("texts", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_divide_is_refused_by_name(texts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as error:
        drafted(**texts)
    assert message in str(error.value), str(error.value)


def test_the_remedy_names_the_keys_that_contradict_and_no_word_of_the_reason() -> None:
    with pytest.raises(InputError) as error:
        drafted(tp="4", gpus="6")  # "every replica has as many": evaluation.every is another key
    assert error.value.remedy == "change gpus (--gpus) or tp (--tp) or pp (--pp) or cp (--cp)"
    with pytest.raises(InputError) as error:
        drafted(fsdp="fsdp")
    assert error.value.remedy == "change fsdp (--fsdp) or gpus (--gpus)"


TYPED: tuple[tuple[dict[str, str], str], ...] = (
    ({"tp": "8", "vocab": "321"}, "give --pad-vocab 8 (128 is usual), or another tp (--tp)"),
    ({"tp": "3", "vocab": "321", "ffn": "255"}, "change tp (--tp) or heads (--heads)"),
    ({"optimizer": "muon", "zero": "1", "dp": "2"}, "leave out --zero: muon runs with replicas (DDP) and --pp"),
    ({"optimizer": "adafactor", "fsdp": "fsdp", "dp": "2"}, "leave out --fsdp: adafactor runs"),
    ({"optimizer": "adamw8bit", "tp": "2"}, "leave out --tp: adamw8bit runs"),
)


@pytest.mark.parametrize(("texts", "remedy"), TYPED)
def test_the_remedy_is_what_to_type(texts: dict[str, str], remedy: str) -> None:
    with pytest.raises(InputError) as error:
        drafted(**texts)
    assert error.value.remedy.startswith(remedy), error.value.remedy


def test_a_padded_vocabulary_is_accepted_and_so_are_the_other_remedies() -> None:
    assert drafted(tp="8", vocab="321", pad_vocab="8").model.vocab == 328
    for more in ({"pp": "2", "dp": "2"}, {"dp": "4"}):
        assert drafted(optimizer="muon", **more).optimizer.name == "muon"
    assert drafted(optimizer="adamw", zero="1", dp="2").parallel.zero == 1


def test_gpus_are_what_replicas_need_and_replicas_what_is_left() -> None:
    assert drafted(tp="2", pp="3").hardware.gpus == 6
    assert drafted(tp="2", pp="3", dp="4").hardware.gpus == 24
    assert drafted(tp="2", gpus="24").data_parallel == 12
    assert drafted(nodes="3").hardware.gpus == 24 and drafted(nodes="3", gpus_per_node="4").hardware.gpus == 12
    assert drafted(nodes="2", gpu="gb200").hardware.gpus == 144


def test_a_layout_is_written_and_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = drafted(tp="2", sp="sp", pp="2", dp="4", zero="1", gpus_per_node="4")
    path = tmp_path / "run.toml"
    path.write_text(config_text(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize("number", range(1, 40))
def test_nearest_divisors_are_divisors_with_none_between(number: int) -> None:
    for wanted in range(1, number + 3):
        found = [int(text) for text in divisors_near(number, wanted).split(" or ")]
        assert all(number % d == 0 for d in found)
        assert not any(number % d == 0 and min(found) < d < max(found) for d in range(1, number + 1))


DISAGREEING = (({"gpus": "32"}, "--dp 16, or --gpus 16"), ({"gpus": "9"}, "--gpus 16"), ({"nodes": "3"}, "--dp 12"))


def test_replicas_beside_gpus_that_agree_are_accepted_and_others_refused_with_what_agrees() -> None:
    words = {"tp": "2", "dp": "8"}
    assert drafted(**words, gpus="16").hardware.gpus == drafted(**words).hardware.gpus == 16
    assert drafted(**words, nodes="2").data_parallel == 8
    for more, remedy in DISAGREEING:
        with pytest.raises(InputError, match="contradict each other") as caught:
            drafted(**words, **more)
        assert remedy in caught.value.remedy
