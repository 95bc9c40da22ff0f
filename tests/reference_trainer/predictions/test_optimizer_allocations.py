"""The planner's updates against PyTorch's: what every optimizer, implementation and recipe holds, and its peak.

Exact means 64 bytes: scalars that an update reads back (norms, rates) are not simulated. Of the peaks a part is in
`make test`, with each recipe and each update; `make soak` has the others.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.memory_reference import pytorch_track
from planner.config.run import IMPLEMENTATIONS, OptimizerConfig, RunConfig
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.ledger import Ledger
from planner.memory.optimizer_state import optimizer_memory
from planner.memory.optimizer_step import Update
from planner.memory.phases import Simulation, simulate_run
from reference_trainer.measure.measure import build_model
from reference_trainer.measure.replay import StorageTracker
from reference_trainer.optim.updater import make_optimizer
from tests.soak import one_in, some

RECIPES = ("mixed-bf16", "fp32", "pure-bf16", "master-bf16", "master-bf16-grad16", "mixed-fp16")
WAYS = [(name, way) for name, ways in IMPLEMENTATIONS.items() for way in ways if name != "adamw8bit"]
STATES = [(name, state) for name in ("adamw", "lion") for state in ("fp32", "bf16")]
SCALARS = 64  # bytes


def config_of(family: str, recipe: str, optimizer: dict[str, object], layers: int = 3, **more: str) -> RunConfig:
    """Three blocks: those between the first and the last are added at once, so one such block must be there."""
    flags = Flags(
        family=family,
        layers=str(layers),
        hidden="64",
        heads="4",
        kv_heads="2" if family == "llama" else None,
        vocab="256",
        seq="16",
        micro_batch="2",
        accumulation="2" if recipe == "master-bf16" else "1",
        steps="10",
        recipe=recipe,
        **more,
    )
    config = draft(flags, as_of="2026-11-21", version="test")
    values = config.optimizer.model_dump() | optimizer
    return config.model_copy(update={"optimizer": OptimizerConfig.model_validate(values)})


def peaks(simulated: Simulation) -> dict[str, int]:
    names = ("first_optimizer_step", "optimizer_step", "save")
    return {phase.phase: phase.peak_bytes for phase in simulated.phases if phase.phase in names}


def assert_matches_pytorch(config: RunConfig) -> None:
    seen = pytorch_track(config).by_phase()
    for simulated in (simulate_run(resolve(config)), simulate_run(resolve(config), events=[])):
        for phase, predicted in peaks(simulated).items():
            assert abs(predicted - seen[phase]) <= SCALARS, (phase, predicted, seen[phase])


@pytest.mark.parametrize(("recipe", "way"), one_in(5, itertools.product(RECIPES, WAYS)))
def test_peak_of_every_update(recipe: str, way: tuple[str, str]) -> None:
    assert_matches_pytorch(config_of("gpt2", recipe, {"name": way[0], "implementation": way[1]}))


GATED = ("mixed-bf16", "master-bf16-grad16")
IN_TURN = list(zip(itertools.cycle(GATED), WAYS))  # each way once, the recipes in turn


@pytest.mark.parametrize(("recipe", "way"), some(itertools.product(GATED, WAYS), IN_TURN.__contains__))
def test_peak_of_every_update_of_a_gated_untied_model(recipe: str, way: tuple[str, str]) -> None:
    assert_matches_pytorch(config_of("llama", recipe, {"name": way[0], "implementation": way[1]}, layers=5))


@pytest.mark.parametrize(("recipe", "state"), one_in(3, itertools.product(RECIPES, STATES)))
def test_peak_where_the_moments_have_their_own_type(recipe: str, state: tuple[str, str]) -> None:
    assert_matches_pytorch(
        config_of("gpt2", recipe, {"name": state[0], "implementation": "for-loop", "state_dtype": state[1]})
    )


@pytest.mark.parametrize("limits", [{"clip_norm": None}, {"clip_norm": None, "clip_value": 0.1}, {"clip_value": 0.1}])
@pytest.mark.parametrize("recipe", ["fp32", "master-bf16-grad16"])
def test_peak_where_gradients_are_clipped(recipe: str, limits: dict[str, object]) -> None:
    assert_matches_pytorch(config_of("gpt2", recipe, {"name": "sgd", "implementation": "fused"} | limits))


GROUPS = [
    {"match": "blocks.1.*"},
    {"match": "embedding.*", "weight_decay": 0.0},
    {"match": "*.bias", "weight_decay": 1},
]


IN_GROUPS = [
    ("adamw", "foreach"),
    ("adamw", "for-loop"),
    ("sgd", "foreach"),
    ("adafactor", "foreach"),
    ("muon", "foreach"),
]


@pytest.mark.parametrize("way", IN_GROUPS, ids="-".join)
def test_peak_of_updates_in_groups(way: tuple[str, str]) -> None:
    assert_matches_pytorch(config_of("gpt2", "fp32", {"name": way[0], "implementation": way[1], "groups": GROUPS}))


@pytest.mark.parametrize("way", ["for-loop", "foreach"])
def test_peak_of_sgd_without_decay(way: str) -> None:
    assert_matches_pytorch(config_of("gpt2", "fp32", {"name": "sgd", "implementation": way, "weight_decay": 0.0}))


@pytest.mark.parametrize(("recipe", "way"), list(itertools.product(RECIPES, WAYS)))
def test_state_bytes_after_one_update(recipe: str, way: tuple[str, str]) -> None:
    config = config_of("gpt2", recipe, {"name": way[0], "implementation": way[1]}, layers=1)
    updater = make_optimizer(build_model(config), config)
    scalars = 2 * 4 if updater.scaler is not None else 0
    before = {id(w): w.clone() for w in updater.parameters.values()}
    for p in updater.parameters.values():
        p.grad = torch.ones_like(p)
        if updater.has_master and updater.wide_gradients:
            updater.weights[next(n for n, q in updater.parameters.items() if q is p)].grad = p.grad.float()
    updater.set_lr(10.0)  # far above what bf16 rounds away
    if updater.scaler is not None:
        updater.scaler.scale(torch.ones(()))
    updater.clip(1.0)
    updater.step()
    held = sum(t.numel() * t.element_size() for t in updater.state().values())
    assert held - scalars == optimizer_memory(resolve(config)).state_bytes
    if (recipe, *way) != ("pure-bf16", "sgd", "fused"):  # there PyTorch loses it, and the trainer refuses it
        assert all(not torch.equal(before[id(w)], w) for w in updater.parameters.values())  # it was an update


def pytorch_updates(config: RunConfig) -> list[int]:
    """Bytes above what was there before, at the peak of two updates on real tensors."""
    updater = make_optimizer(build_model(config), config)
    tracker, peaks_seen = StorageTracker(), []
    tracker.add(updater.parameters, updater.weights)
    for phase in ("first", "steady"):
        for p in updater.parameters.values():
            p.grad = torch.ones_like(p)
        tracker.add([p.grad for p in updater.parameters.values()])
        tracker.phase(phase)
        before = tracker.track.live_bytes
        with tracker:
            updater.step()
            peaks_seen.append(tracker.track.phases[-1].peak_bytes - before)
            updater.zero_grad()
    return peaks_seen


def simulated_updates(config: RunConfig) -> list[int]:
    ledger = Ledger()
    update = Update(
        resolve(config), ledger, lambda part, size, times=1: ledger.allocate(part, size * times), every_block=False
    )
    found = []
    for phase in ("first", "steady"):
        ledger.phase(phase)
        before = ledger.total
        update.simulate(phase == "first")
        found.append(ledger.phases[-1].peak_bytes - before)
    return found


@pytest.mark.parametrize("recipe", ["fp32", "master-bf16-grad16"])
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_updates_of_a_model_with_experts_on_real_tensors(way: tuple[str, str], recipe: str) -> None:
    experts = {"experts": "4", "top_k": "2", "expert_ffn": "48"}
    config = config_of("llama", recipe, {"name": way[0], "implementation": way[1]}, **experts)
    for predicted, seen in zip(simulated_updates(config), pytorch_updates(config), strict=True):
        assert abs(predicted - seen) <= SCALARS


# every key of [optimizer] with other values than those of `config_of`: which of them change an update's bytes?
OTHER_VALUES: dict[str, tuple[object, ...]] = {
    "beta1": (0.0,), "beta2": (0.0,), "momentum": (0.0,), "eps": (1e-3,), "weight_decay": (0.0,),
    "clip_norm": (None,), "clip_value": (0.1,), "groups": ([{"match": "*.bias", "weight_decay": 1.0}],),
    "state_dtype": ("bf16",),
}  # fmt: skip
CHOSEN_BY_WAY = ("name", "implementation")
CHANGES_STATE = {("sgd", "beta1"), ("lion", "state_dtype"), ("adamw", "state_dtype")}


def test_every_key_of_the_optimizer_is_among_the_cases() -> None:
    assert {*OTHER_VALUES, *CHOSEN_BY_WAY} == set(OptimizerConfig.model_fields)


@pytest.mark.parametrize("key", OTHER_VALUES)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_what_each_key_does_to_the_bytes_of_an_update(way: tuple[str, str], key: str) -> None:
    """On real tensors; the state is changed by the keys of CHANGES_STATE, and by no other."""
    name, implementation = way
    if key == "state_dtype" and implementation != "for-loop":
        pytest.skip("only our own one-tensor-at-a-time updates have it")
    if key == "state_dtype" and name not in ("adamw", "lion"):
        pytest.skip("it has state in the weights' type only")
    plain = config_of("gpt2", "fp32", {"name": name, "implementation": implementation}, layers=1)
    for value in OTHER_VALUES[key]:
        changed = plain.optimizer.model_dump() | {key: value}
        config = plain.model_copy(update={"optimizer": OptimizerConfig.model_validate(changed)})
        for predicted, seen in zip(simulated_updates(config), pytorch_updates(config), strict=True):
            assert abs(predicted - seen) <= SCALARS
        other = optimizer_memory(resolve(config)).state_bytes != optimizer_memory(resolve(plain)).state_bytes
        assert other == ((name, key) in CHANGES_STATE)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("way", IMPLEMENTATIONS["sgd"])
def test_peak_of_sgd_without_momentum(recipe: str, way: str) -> None:
    config = config_of("gpt2", recipe, {"name": "sgd", "implementation": way, "beta1": 0.0})
    assert optimizer_memory(resolve(config)).state_bytes == 0
    assert_matches_pytorch(config)


def test_implementations_differ_and_so_do_their_simulations() -> None:
    """The comparison can fail: three implementations of AdamW have three peaks."""
    ways = IMPLEMENTATIONS["adamw"]
    runs = {way: resolve(config_of("gpt2", "fp32", {"name": "adamw", "implementation": way})) for way in ways}
    found = {way: peaks(simulate_run(run))["optimizer_step"] for way, run in runs.items()}
    assert found["fused"] < found["for-loop"] < found["foreach"]


def test_eight_bits_on_real_tensors() -> None:
    """bitsandbytes, where it is installed: its state has the predicted bytes."""
    pytest.importorskip("bitsandbytes")
    config = config_of("gpt2", "fp32", {"name": "adamw8bit"})
    updater = make_optimizer(build_model(config), config)
    for p in updater.parameters.values():
        p.grad = torch.ones_like(p)
    updater.step()
    counters = 4 * len(updater.parameters)  # plain numbers in the package, tensors in a checkpoint
    held = sum(t.numel() * t.element_size() for t in updater.state().values()) - counters
    tables = 2 * 256 * 4
    assert held + tables == optimizer_memory(resolve(config)).state_bytes
