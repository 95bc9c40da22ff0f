"""A step that is not good changes no bit, with every optimizer and recipe; the host waits only where documented."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from planner.config.run import IMPLEMENTATIONS, RunConfig
from reference_trainer.measure.measure import build_model
from reference_trainer.model.gpt import GPT
from reference_trainer.optim.updater import Updater, make_optimizer

MakeConfig = Callable[..., RunConfig]
Bits = dict[str, Tensor]
RECIPES = ("mixed-bf16", "fp32", "pure-bf16", "master-bf16", "master-bf16-grad16", "mixed-fp16")
WAYS = [(name, way, None) for name, ways in IMPLEMENTATIONS.items() for way in ways if name != "adamw8bit"]
OWN = [("adamw", "for-loop", "bf16"), ("adamw", "for-loop", "fp32"), ("lion", "for-loop", "bf16")]
LOST = ("pure-bf16", ("sgd", "fused", None))  # on a processor PyTorch loses this update, and the trainer refuses it
CASES = [case for case in itertools.product(RECIPES, [*WAYS, *OWN]) if case != LOST]
# these count their updates on the host, or read norms there
WAITING = {("adamw", "foreach"), ("adamw", "for-loop"), ("sgd", "foreach"), ("sgd", "for-loop"), ("muon", "foreach")}
WAITING |= {("muon", "for-loop"), ("adafactor", "foreach"), ("adafactor", "for-loop")}


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers that the host reads from a tensor: what item, tolist, float and bool of one all do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return func(*args, **(kwargs or {}))


def made(tiny: MakeConfig, recipe: str, case: tuple[str, str, str | None], **more: object) -> tuple[GPT, Updater]:
    name, implementation, state = case
    chosen = {"name": name, "implementation": implementation, "state_dtype": state}
    config = tiny(layers=1, recipe=recipe)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update=chosen | more)})
    torch.manual_seed(0)
    model = build_model(config)
    updater = make_optimizer(model, config)
    updater.set_lr(0.05)  # far above what bf16 rounds away
    return model, updater


def gradients(model: GPT, updater: Updater, factor: float = 1.0) -> Tensor:
    ids = torch.arange(64).reshape(2, 32)
    updater.backward(model(ids, ids.flip(1)) / ids.numel() * factor)
    return updater.clip(1.0)


def bits(updater: Updater) -> Bits:
    scale = {key: value for key, value in updater.state().items() if not key.startswith("loss_scale")}
    held = scale | {f"weights.{n}": w for n, w in updater.weights.items()} | updater.parameters
    return {name: t.detach().clone() for name, t in held.items()}


def same(one: Bits, other: Bits) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[n].view(torch.uint8), other[n].view(torch.uint8)) if one[n].dim() else
               torch.equal(one[n], other[n]) for n in one)  # fmt: skip


@pytest.mark.parametrize(("recipe", "case"), CASES, ids=str)
def test_fault_09_a_bad_step_changes_no_bit(tiny: MakeConfig, recipe: str, case: tuple[str, str, str | None]) -> None:
    """Bad first, good, bad again: after each bad one all is as before, and the good one is as if alone."""
    model, updater = made(tiny, recipe, case)
    other_model, alone = made(tiny, recipe, case)
    for expected_good in (False, True, False):
        before = bits(updater)
        norm = gradients(model, updater, 1.0 if expected_good else float("nan"))
        good = norm.isfinite()
        updater.step(good)
        updater.zero_grad()
        assert bool(good) is expected_good
        assert same(before, bits(updater)) is not expected_good
    gradients(other_model, alone)
    alone.step()
    if updater.scaler is not None:  # the first overflow has halved its scale
        assert updater.scale == alone.scale / 4
        for name, value in bits(alone).items():
            torch.testing.assert_close(bits(updater)[name], value, rtol=1e-3, atol=2e-2)
    else:
        assert same(bits(alone), bits(updater))


@pytest.mark.parametrize("case", [*WAYS, *OWN], ids=str)
@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16"])
def test_the_host_reads_nothing_but_where_it_is_said(
    tiny: MakeConfig, recipe: str, case: tuple[str, str, str | None]
) -> None:
    if recipe == "fp32" and case[2] == "fp32":
        pytest.skip("PyTorch's own: moments have the weights' type")
    own = case in OWN and (recipe != "mixed-fp16" or case[2] == "bf16")
    model, updater = made(tiny, recipe, case, clip_norm=1.0)
    reads = HostReads()
    for _ in range(2):
        with reads:
            norm = gradients(model, updater)
            good = norm.isfinite() & updater.scale_tensor.isfinite()
            updater.step(good)
            updater.zero_grad()
    waits = case[:2] in WAITING and not own
    assert updater.decides_on_host is waits
    assert (reads.count > 0) is waits


def test_fault_09_eight_bit_states_stay_too(tiny: MakeConfig) -> None:
    pytest.importorskip("bitsandbytes")
    config = tiny(layers=1, hidden=64, head_dim=32, ffn=128)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": "adamw8bit"})})
    model = build_model(config)
    updater = make_optimizer(model, config)
    updater.set_lr(0.05)
    for expected_good in (False, True, False, True):
        before = bits(updater)
        updater.step(gradients(model, updater, 1.0 if expected_good else float("nan")).isfinite())
        updater.zero_grad()
        assert same(before, bits(updater)) is not expected_good
    assert updater.decides_on_host


def test_a_scale_that_was_read_keeps_its_value(tiny: MakeConfig) -> None:
    """The loop collects it in rows, while the scaler changes its own in place."""
    model, updater = made(tiny, "mixed-fp16", WAYS[0])
    before = updater.scale_tensor
    updater.step(gradients(model, updater, float("inf")).isfinite())
    assert float(before) == 2 * updater.scale
