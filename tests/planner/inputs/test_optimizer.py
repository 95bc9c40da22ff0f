"""The optimizer of a draft: flags over the file over published values, and assumptions that say what was not typed."""

from __future__ import annotations

import pytest

from planner.config.run import RunConfig
from planner.errors import InputError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags


def drafted(base: RunConfig | None = None, **texts: str) -> RunConfig:
    given = texts if base else {"model": "gpt2", "tokens": "10B", "gpu": "a100-80gb", **texts}
    return draft(Flags(**given), as_of="2026-11-21", version="test", base=base)


def assumed(config: RunConfig) -> dict[str, str]:
    return {a.key: a.value for a in config.provenance.assumptions}


def test_clipping_is_assumed_until_it_is_typed() -> None:
    bare, typed = drafted(), drafted(clip_norm="0.5")
    assert bare.optimizer.clip_norm == 1.0 and assumed(bare)["clip_norm"] == "1.0"
    assert typed.optimizer.clip_norm == 0.5 and "clip_norm" not in assumed(typed)


@pytest.mark.parametrize("text", ["0", "0.0"])
def test_a_norm_of_zero_is_no_clipping(text: str) -> None:
    assert drafted(clip_norm=text).optimizer.clip_norm is None


def test_over_a_file_its_clipping_stands_unless_it_is_typed() -> None:
    base = drafted(clip_norm="0")
    assert drafted(base, gpus="2").optimizer.clip_norm is None
    assert drafted(base, optimizer="lion").optimizer.clip_norm is None
    over = drafted(drafted(), clip_norm="2")
    assert over.optimizer.clip_norm == 2 and "clip_norm" not in assumed(over)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "abc", ""])
def test_a_norm_that_is_none_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(InputError, match=r"--clip-norm.*optimizer\.clip_norm"):
        drafted(clip_norm=text)


def test_the_momentum_is_the_optimizer_s_own_key() -> None:
    sgd, muon = drafted(optimizer="sgd", momentum="0.8"), drafted(optimizer="muon", momentum="0.8")
    assert (sgd.optimizer.beta1, muon.optimizer.momentum, muon.optimizer.beta1) == (0.8, 0.8, 0.9)
    assert "momentum 0.9" in assumed(drafted(optimizer="sgd"))["optimizer"]
    assert "momentum 0" not in assumed(sgd)["optimizer"] and "decay 0.0001" in assumed(sgd)["optimizer"]


def test_a_momentum_over_a_file_ends_the_assumed_one_and_keeps_the_decay() -> None:
    over = drafted(drafted(optimizer="sgd"), momentum="0")
    assert over.optimizer.beta1 == 0.0
    assert assumed(over)["optimizer"] == "SGD with momentum, decay 0.0001"
    assert drafted(over, gpus="2").optimizer.beta1 == 0.0


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "lion", "adafactor"])
def test_an_optimizer_without_momentum_refuses_one(name: str) -> None:
    with pytest.raises(InputError, match=f"--momentum has no effect on {name}"):
        drafted(optimizer=name, momentum="0.9")


@pytest.mark.parametrize("text", ["1", "100%", "1.1", "-0.1", "nan"])
def test_a_momentum_is_below_one(text: str) -> None:
    with pytest.raises(InputError, match="--momentum"):
        drafted(optimizer="sgd", momentum=text)
