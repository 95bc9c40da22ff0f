"""The runtimes of a run: compiled if the machine can, fused never."""

from __future__ import annotations

import math

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from planner.config.model import MoeConfig
from planner.config.rope import RopeScalingConfig
from planner.errors import ConfigError, PlanError
from reference_trainer.step import precision
from reference_trainer.step.precision import refuse_unrunnable
from tests.reference_trainer.conftest import MakeConfig, Train, evaluated

CPU = torch.device("cpu")


def test_fused_kernels_are_refused_by_name(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match='does not run runtime = "fused"'):
        refuse_unrunnable(tiny(runtime="fused", recipe="master-bf16"), CPU)


def test_rotary_angles_that_the_trainer_lacks_are_refused_by_name(tiny: MakeConfig) -> None:
    yarn, longrope, layers = (RopeScalingConfig(kind=kind, factor=4.0) for kind in ("yarn", "longrope", "by-layer"))
    refuse_unrunnable(tiny(position="rotary", rope_scaling=yarn), CPU)
    for lacking, named in ((longrope, "without their short_factor and long_factor"), (layers, "by-layer rotary")):
        with pytest.raises(ConfigError, match=named):  # as files of the first versions have them
            refuse_unrunnable(tiny(position="rotary", rope_scaling=lacking), CPU)


def test_compiled_experts_are_refused_by_name(tiny: MakeConfig) -> None:
    experts = MoeConfig(experts=4, top_k=2, expert_ffn=24)
    refuse_unrunnable(tiny(moe=experts), CPU)
    with pytest.raises(ConfigError, match="does not run experts") as caught:
        refuse_unrunnable(tiny(moe=experts, runtime="compiled"), CPU)
    assert "compile the step again" in caught.value.why


def test_no_compiler_is_one_message(tiny: MakeConfig) -> None:
    from torch._inductor import config

    missing = config.patch({"cpp.cxx": ("/no/such/compiler",)})
    with missing, pytest.raises(PlanError, match='cannot run runtime = "compiled"') as raised:
        refuse_unrunnable(tiny(runtime="compiled"), CPU)
    assert "C++ compiler" in str(raised.value.why)


@pytest.mark.timeout(300)  # the C++ compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_run_learns_what_an_eager_one_learns(tiny: MakeConfig, train: Train) -> None:
    if not precision.can_compile(CPU):
        pytest.skip("no C++ compiler")
    eager, compiled = (
        train(tiny(runtime=way, layers=1, steps=2, checkpoint_every=None), way) for way in ("eager", "compiled")
    )
    assert compiled.steps_done == 2 and all(math.isfinite(loss) for loss in compiled.losses)
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-5)


@pytest.mark.parametrize("kernel", ["flash", "flash-only", "math"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_run_has_one_graph_for_training_and_one_for_evaluation(
    tiny: MakeConfig, train: Train, held_out: None, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """Counted over accumulation and two evaluations: no graph breaks, and nothing is compiled a second time."""
    counter, compile_in_place = CompileCounter(), torch.nn.Module.compile
    monkeypatch.setattr(precision, "can_compile", lambda device: True)  # the counter takes the place of the compiler
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile_in_place(self, backend=counter, **options)
    )
    torch._dynamo.reset()
    counters.clear()
    config = tiny(runtime="compiled", layers=2, steps=4, accumulation=2, checkpoint_every=None, attention_kernel=kernel)
    config = evaluated(config, every=2, tokens=128)
    done = train(config)
    assert done.steps_done == 4
    assert counter.frame_count == 2
    assert counters["graph_break"] == {} and counters["stats"]["unique_graphs"] == 2
