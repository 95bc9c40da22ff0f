"""Times read from a profile: between sizes, beyond them, and added up to a step. All profiles here are made up."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.config.model import ModelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, Provenance, RunConfig, ScheduleConfig, TrainingConfig
from planner.counts.run import resolve
from planner.errors import ConfigError
from planner.step_time.kernel_tables import POWERS, Table
from planner.step_time.profile_rates import step_seconds_from_profile
from planner.step_time.step_seconds import StepSeconds

SECONDS_PER_WORK = 1e-10
CUBES = ("gemm_forward", "gemm_input_gradient", "gemm_weight_gradient", "attention_forward", "attention_backward")
SQUARES = ("layer_norm", "rms_norm", "loss", "embedding")
LINES = ("gelu", "swiglu", "rotary")
SINGLE = ("add", "accumulate", "copy", "join", "fill", "cast_down", "cast_up", "adamw", "clip", "fresh")
TINY = ("dispatch", "adamw_tensors", "clip_tensors", "launch")


def rows(name: str, dimensions: int, slower: float) -> list[list[float]]:
    """Times in proportion to the work, on a grid from 1 to 2^13 (lines: 2^30)."""
    powers = POWERS.get(name, (1,) * dimensions)
    axis = (1, 2**15, 2**30) if dimensions == 1 else (1, 2**7, 2**13)
    grid: list[tuple[int, ...]] = [()]
    for _ in range(dimensions):
        grid = [(*point, size) for point in grid for size in axis]
    work = [math.prod(size**power for size, power in zip(point, powers, strict=True)) for point in grid]
    return [[*point, SECONDS_PER_WORK * slower * amount] for point, amount in zip(grid, work, strict=True)]


def made_up(bf16_slower: float = 3.0, **changes: object) -> dict[str, Any]:
    """A profile of a machine whose every kernel takes a fixed time per unit of work."""
    names = {name: 3 for name in CUBES} | {name: 1 for name in (*SINGLE, *TINY)} | {"sum_rows": 2}
    for pairs, dimensions in ((SQUARES, 2), (LINES, 1)):
        names |= {f"{name}_{way}": dimensions for name in pairs for way in ("forward", "backward")}
    kernels = {
        name: {"fp32": rows(name, count, 1.0), "bf16": rows(name, count, bf16_slower)} for name, count in names.items()
    }
    return {"schema": 1, "relative_noise": 0.02, "kernels": kernels} | changes


def config(llama: bool = False, layers: int = 4, vocab: int = 256, gpu: str = "cpu", **training: Any) -> RunConfig:
    """A small run; keywords go into its training section."""
    shape: dict[str, Any] = {"layers": layers, "hidden": 64, "heads": 4, "head_dim": 16, "vocab": vocab, "context": 128}
    if llama:
        shape |= {"kv_heads": 2, "ffn": 176, "position": "rotary", "norm": "rmsnorm", "mlp": "swiglu"}
    else:
        shape |= {"kv_heads": 4, "ffn": 256, "position": "learned", "norm": "layernorm", "mlp": "gelu"}
    usual: dict[str, Any] = {"steps": 10, "seq": 64, "micro_batch": 4, "accumulation": 1, "recipe": "fp32"}
    usual |= {"activation_checkpointing": "none", "seed": 1} | training
    return RunConfig(
        model=ModelConfig(name="m", biases=not llama, tied_embeddings=not llama, source="a test", **shape),
        training=TrainingConfig(**usual),
        optimizer=OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(peak_lr=1e-3, min_lr=1e-4, warmup_steps=2),
        hardware=HardwareConfig(gpu=gpu, gpus=1),
        provenance=Provenance(as_of="2026-11-21", gptplan="0"),
    )


def step(*args: Any, **keywords: Any) -> StepSeconds:
    """The prediction for `config(…)` on the made-up machine."""
    return predicted(config(*args, **keywords), made_up())


def predicted(of: RunConfig, profile: dict[str, Any]) -> StepSeconds:
    """The prediction for a config from a profile."""
    found = step_seconds_from_profile(resolve(of), profile)
    assert isinstance(found, StepSeconds)
    return found


# --- tables -----------------------------------------------------------------------------------------------------------

GRID: dict[tuple[int, ...], float] = {(n, k): 1e-6 * (n * k) ** 0.7 for n in (8, 64, 512) for k in (16, 256)}


def test_a_size_that_was_measured_is_read_as_it_was_measured() -> None:
    for sizes, seconds in GRID.items():
        found = Table(dict(GRID), (1, 1)).read(sizes)
        assert found.seconds == pytest.approx(seconds, rel=1e-12)
        assert found.beyond == 1.0


@given(st.integers(8, 512), st.integers(16, 256))
def test_between_sizes_a_power_of_the_work_is_read_exactly(n: int, k: int) -> None:
    assert Table(dict(GRID), (1, 1)).read((n, k)).seconds == pytest.approx(1e-6 * (n * k) ** 0.7, rel=1e-9)


@given(st.integers(10, 1000), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
def test_between_two_sizes_the_time_lies_between_theirs(size: int, first: float, last: float) -> None:
    found = Table({(10,): first, (1000,): last}, (1,)).read((size,)).seconds
    assert min(first, last) * (1 - 1e-9) <= found <= max(first, last) * (1 + 1e-9)


def test_beyond_the_largest_size_the_rate_stays_and_below_the_smallest_the_time_does() -> None:
    table = Table({(10,): 1e-5, (100,): 2e-5}, (1,))
    assert table.read((1000,)).seconds == pytest.approx(2e-4)
    assert table.read((1000,)).beyond == pytest.approx(10)
    assert table.read((1,)).seconds == pytest.approx(1e-5)


def test_a_size_that_the_time_box_left_out_is_filled_from_its_neighbour() -> None:
    holed = {sizes: seconds for sizes, seconds in GRID.items() if sizes != (512, 256)}
    found = Table(holed, (1, 1)).read((512, 256)).seconds
    assert GRID[(64, 256)] < found < 8 * GRID[(64, 256)] * 1.01


# --- a step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("llama", [False, True])
@pytest.mark.parametrize("recipe", ["fp32", "mixed-bf16"])
def test_parts_are_named_add_up_and_lie_in_the_interval(llama: bool, recipe: str) -> None:
    found = step(llama, recipe=recipe)
    kernels = {"matrix products", "attention", "norms", "activations", "residual and copies", "embedding"}
    assert kernels | {"head and loss", "optimizer", "launch overhead"} <= set(found.parts)
    assert sum(found.parts.values()) == pytest.approx(found.seconds.value)
    assert all(seconds >= 0 for seconds in found.parts.values())
    assert found.seconds.low < found.seconds.value < found.seconds.high
    assert (found.parts.get("casts", 0) > 0) == (recipe != "fp32")


@pytest.mark.parametrize("llama", [False, True])
def test_twice_the_layers_take_more_than_once_and_less_than_twice_the_time(llama: bool) -> None:
    once, twice = step(llama, layers=4).seconds.value, step(llama, layers=8).seconds.value
    assert once < twice < 2 * once


def test_matrix_products_are_the_shapes_flops() -> None:
    """On a machine with a fixed time per multiply-add the sum is that of the linear layers, three times over."""
    found = step(layers=4).parts["matrix products"]
    block = 64 * 192 + 64 * 64 + 2 * 64 * 256
    products = 3 * 256 * 4 * block * SECONDS_PER_WORK
    new_memory = found - products  # beside the products, the fresh pages of what they make
    assert 0 <= new_memory < found / 2


def test_two_micro_batches_take_twice_the_time_of_one_and_the_update_once() -> None:
    one, two = step(accumulation=1), step(accumulation=2)
    for name in ("matrix products", "attention", "norms", "activations", "head and loss", "embedding"):
        assert two.parts[name] == pytest.approx(2 * one.parts[name])
    assert two.parts["optimizer"] == pytest.approx(one.parts["optimizer"])
    assert two.parts["residual and copies"] > 2 * one.parts["residual and copies"]  # gradients are added


@pytest.mark.parametrize("llama", [False, True])
def test_recomputation_takes_time(llama: bool) -> None:
    none, selective, full = (step(llama, activation_checkpointing=c) for c in ("none", "selective", "full"))
    assert none.seconds.value < selective.seconds.value < full.seconds.value
    assert none.parts["matrix products"] == selective.parts["matrix products"]
    assert full.parts["matrix products"] < 4 / 3 * none.parts["matrix products"]  # the last product is not made again


def test_noise_and_sizes_beyond_the_tables_widen_the_interval() -> None:
    def width(found: StepSeconds) -> float:
        return found.seconds.high / found.seconds.low

    quiet, noisy = predicted(config(), made_up(relative_noise=0.0)), predicted(config(), made_up(relative_noise=0.3))
    assert noisy.seconds.value == quiet.seconds.value
    assert width(noisy) > width(quiet)
    assert width(step(vocab=2**20)) > width(step(vocab=2**12))


# --- profiles that cannot be used -------------------------------------------------------------------------------------


def broken(kernel: str, kind: str, value: object) -> dict[str, Any]:
    """The made-up profile with other rows for one kernel."""
    profile = made_up()
    profile["kernels"][kernel] = profile["kernels"][kernel] | {kind: value}
    return profile


@pytest.mark.parametrize(
    "profile",
    [
        {},
        made_up(schema=3),
        made_up(kernels={}),
        made_up(kernels=[1, 2]),
        made_up(relative_noise="loud"),
        broken("gemm_forward", "fp32", []),
        broken("gemm_forward", "fp32", 7),
        broken("gemm_forward", "fp32", [[1, 1, 1, -1.0]]),
        broken("gemm_forward", "fp32", [[1, 1, 1, math.nan]]),
        broken("gemm_forward", "fp32", [[1, 1, 1, 1e-6], [1, 1, 1e-6]]),
        broken("gemm_forward", "fp32", [["a", 1, 1, 1e-6]]),
        broken("gemm_forward", "fp32", [""]),
        broken("gemm_forward", "fp32", [[]]),
        broken("gemm_forward", "fp32", [[math.inf, 1, 1, 1e-6]]),
    ],
)
def test_a_malformed_profile_is_the_users_to_mend(profile: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        step_seconds_from_profile(resolve(config()), profile)
    assert caught.value.remedy


def test_a_profile_without_a_kernel_that_the_model_needs_is_refused_by_name() -> None:
    profile = made_up()
    del profile["kernels"]["rms_norm_forward"]
    step_seconds_from_profile(resolve(config(llama=False)), profile)  # a GPT-2 has no RMSNorm
    with pytest.raises(ConfigError, match="rms_norm_forward"):
        step_seconds_from_profile(resolve(config(llama=True)), profile)


def test_a_gpus_launches_cost_only_what_its_kernels_do_not_hide() -> None:
    """The host runs ahead of a GPU: a step takes the longer of the two, and never the sum. A CPU's does not."""

    def overhead(launch: float, gpu: str) -> tuple[float, float]:
        """Seconds of the launches and of all that the device does in a micro-batch."""
        profile = made_up()
        profile["kernels"] |= {"launch": {"fp32": [[1, launch]]}, "dispatch": {"fp32": [[1, 1e-12]]}}
        found = predicted(config(gpu=gpu), profile).parts
        kept = found.pop("launch overhead")
        return kept, sum(seconds for part, seconds in found.items() if part != "optimizer")

    hidden, busy = overhead(1e-9, "h200")
    assert hidden < 1e-3 * busy
    waiting, device = overhead(1.0, "h200")  # a second for each kernel of the micro-batch
    launched = waiting + device
    assert launched == pytest.approx(round(launched)) and launched > 100
    assert device == pytest.approx(busy)
    assert overhead(1.0, "cpu")[0] < 1e-9


@pytest.mark.parametrize("rows", [[[1, 1, 1e-6]], [[1e-6]]], ids=["one size too many", "none"])
def test_a_kernel_with_another_number_of_sizes_is_refused_and_no_assertion(rows: list[list[float]]) -> None:
    profile = made_up()
    profile["kernels"]["add"] = {"fp32": rows}
    with pytest.raises(ConfigError, match="add") as caught:
        step_seconds_from_profile(resolve(config()), profile)
    assert caught.value.remedy


def test_a_prediction_imports_no_framework() -> None:
    code = (
        "import sys, planner.step_time.profile_rates; print(sorted({'torch', 'numpy', 'sympy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_each_limit_of_the_gradients_costs_its_passes() -> None:
    """A norm alone is half of a clip; cutting values is two scalings, and the norm is then taken once more."""
    base = config()

    def seconds(**limits: float | None) -> float:
        changed = base.model_copy(update={"optimizer": base.optimizer.model_copy(update=limits)})
        return predicted(changed, made_up()).parts["optimizer"]

    norm, both = seconds(clip_norm=None), seconds(clip_norm=1.0)
    half = both - norm
    found = [seconds(clip_norm=None, clip_value=1.0), seconds(clip_norm=1.0, clip_value=1.0)]
    assert half > 0 and found == pytest.approx([norm + 2 * half, norm + 4 * half])
