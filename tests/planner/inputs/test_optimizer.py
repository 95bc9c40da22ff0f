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
