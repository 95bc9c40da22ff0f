"""The runtime that a plan has if nobody chose one, and why: said among the defaults used."""

from __future__ import annotations

from typing import Any

import pytest

from planner.analysis.search.search import SearchResult, chosen_config, search
from planner.config.parallel import ParallelConfig
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import load_config, write_config
from planner.inputs.runtime import default_runtime, runtime_is_assumed
from planner.inputs.search import SearchSpace
from planner.memory.coverage import not_checked, not_covered
from planner.plan import estimate
from tests.machine_profile import quiet

SHAPE = {"layers": "12", "hidden": "768", "heads": "12", "vocab": "50304", "seq": "1024"}
WORDS = SHAPE | {"tokens": "1B", "gpu": "h100-80gb"}


def drafted(base: RunConfig | None = None, **flags: str) -> RunConfig:
    words = flags if base is not None else WORDS | flags
    return draft(Flags(**words), as_of="2026-11-28", version="test", base=base)


def layouts(result: SearchResult) -> list[tuple[RunConfig, ParallelConfig]]:
    return [(one.config, one.config.parallel) for one in result.best]


def said(config: RunConfig) -> list[tuple[str, str]]:
    return [(a.value, a.source) for a in config.provenance.assumptions if a.key == "runtime"]


@pytest.mark.parametrize(
    "flags", [{}, {"gpus": "8"}, {"optimizer": "muon"}, {"activation_checkpointing": "full"}, {"precision": "fp32"}]
)
def test_on_a_gpu_it_is_compiled_where_its_memory_was_compared(flags: dict[str, str]) -> None:
    config = drafted(**flags)
    assert config.training.runtime == "compiled"
    assert not_covered(resolve(config)) is None and not_checked(resolve(config)) is None
    ((value, why),) = said(config)
    assert value == "compiled" and "compared with PyTorch" in why


EAGER: dict[str, tuple[dict[str, str], str]] = {
    "an option": ({"dropout": "0.1"}, "dropout under torch.compile"),
    "experts": ({"experts": "8", "top_k": "2"}, "experts under torch.compile"),
    "a loss": ({"loss_kind": "fused"}, "a loss in chunks under torch.compile"),
    "a layout": ({"gpus": "8", "fsdp": "fsdp"}, "FSDP2 under torch.compile"),
    "a layout without a reference": ({"gpus": "2", "tp": "2"}, "tensor parallelism under torch.compile"),
    "a card without Triton": ({"gpu": "p100-16gb", "recipe": "mixed-fp16"}, "Triton has no kernels"),
    "a card without the type": ({"gpu": "v100-32gb", "precision": "bf16"}, "has no bf16"),
    "other software": ({"software": "megatron-2021"}, "kernels of its own"),
    "types that are planned only": ({"recipe": "fp8-te"}, "does not run fp8-te"),
}


@pytest.mark.parametrize("case", EAGER)
def test_it_is_eager_for_a_reason_that_is_said(case: str) -> None:
    flags, reason = EAGER[case]
    config = drafted(**flags)
    assert config.training.runtime == "eager"
    ((value, why),) = said(config)
    assert value == "eager" and why.startswith("not compiled: ") and reason in why


@pytest.mark.parametrize(
    ("flags", "runtime"),
    [({"gpu": "cpu"}, "eager"), ({"recipe": "autocast"}, "autocast"), ({"runtime": "eager"}, "eager")],
)
def test_a_processor_a_recipe_with_its_own_and_a_typed_one_are_as_they_were(
    flags: dict[str, str], runtime: str
) -> None:
    config = drafted(**flags)
    assert config.training.runtime == runtime and said(config) == []


def test_parts_that_are_not_simulated_keep_it_eager_and_measured_times_do_not() -> None:
    config = drafted()
    sinks = config.model_copy(update={"model": config.model.model_copy(update={"attention_sinks": True})})
    measured = config.model_copy(update={"profile": quiet()})
    assert default_runtime(config)[0] == "compiled"
    assert default_runtime(sinks) == ("eager", "not compiled: attention sinks was not compared with PyTorch")
    assert default_runtime(measured)[0] == "compiled"


def test_a_file_keeps_its_runtime_unless_that_was_a_default(tmp_path: Any) -> None:
    """A file of before, which says nothing, is eager; so is one where somebody chose it."""
    write_config(tmp_path / "run.toml", drafted())
    text = (tmp_path / "run.toml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("runtime = "))
    (tmp_path / "old.toml").write_text(text.replace(line, "").replace('key = "runtime"', 'key = "of_before"'))
    new, old = load_config(tmp_path / "run.toml"), load_config(tmp_path / "old.toml")
    assert (new.training.runtime, old.training.runtime) == ("compiled", "eager")
    longer = [drafted(base, seq="512").training.runtime for base in (new, old)]
    assert longer == ["compiled", "eager"]
    other = drafted(new, dropout="0.1")
    assert other.training.runtime == "eager" and "dropout" in said(other)[0][1]
    assert drafted(other, dropout="0").training.runtime == "compiled"
    chosen = drafted(new, runtime="compiled", dropout="0.1")
    assert chosen.training.runtime == "compiled" and said(chosen) == []


def test_a_search_takes_the_faster_runtime_of_each_layout_and_keeps_a_typed_one() -> None:
    shape = {"layers": "8", "hidden": "2048", "heads": "16", "vocab": "32768", "seq": "2048"}
    words = {"gpu": "h100-80gb", "gpus": "4", "global_batch_tokens": "256Ki"}
    config, short = (
        draft(Flags(**shape | words, steps=steps), as_of="2026-11-28", version="test") for steps in ("10000", "10")
    )
    result = search(config, SearchSpace(("h100-80gb",), (4,)))
    replicas = {(p.tp, p.pp, p.zero, p.fsdp) == (1, 1, 0, False): c.training.runtime for c, p in layouts(result)}
    assert replicas == {True: "compiled", False: "eager"}
    quick = search(short, SearchSpace(("h100-80gb",), (4,), frozenset({"zero", "fsdp", "tp"})))
    assert {one.config.training.runtime for one in quick.best} == {"eager"}, "compiling takes longer than ten steps"
    winner = chosen_config(result)
    assert [(a.value, "search" in a.source) for a in winner.provenance.assumptions if a.key == "runtime"] == [
        (winner.training.runtime, True)
    ]
    kept = search(config, SearchSpace(("h100-80gb",), (4,), frozenset({"runtime"})))
    assert {one.config.training.runtime for one in kept.best} == {"compiled"} and runtime_is_assumed(winner)
    assert all(estimate(one.config).memory.fits is not False for one in result.best)
