"""The planner against PyTorch: parameters, FLOPs and saved bytes exact, peaks and their phase by replay.

No constant is fitted anywhere: a number that disagrees is a wrong line of the planner, or a changed PyTorch.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory_reference import SCALAR, Recorder, difference_of, pytorch_track, saved_bytes
from planner import presets
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.counts.shape import shape_of
from planner.formulas.flops import flash_recompute_flops_per_token
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import simulation_context
from planner.memory.micro_batch import simulate_micro_batch
from planner.memory.phases import simulate_run
from planner.plan import estimate
from reference_trainer.data.samples import open_data
from reference_trainer.measure.measure import build_model, model_flops_per_step
from reference_trainer.measure.probe import probe
from reference_trainer.measure.replay import StorageTracker, Track, replay, track_steps
from tests.soak import one_in, some

FAMILIES = ("gpt2", "llama")
CHECKPOINTING = ("none", "selective", "full")
PRECISIONS = ("bf16", "fp32")
# layers, sequence, micro-batch, vocabulary, accumulation
SIZES = ((2, 64, 3, 256, 1), (3, 128, 1, 50257, 2), (5, 32, 8, 256, 2))
GRID = list(itertools.product(FAMILIES, CHECKPOINTING, PRECISIONS, SIZES))
# each family and checkpointing in one precision and one size, which go round
SOME = [
    (family, mode, PRECISIONS[(i + j) % 2], SIZES[(i + j) % 3])
    for (i, family), (j, mode) in itertools.product(enumerate(FAMILIES), enumerate(CHECKPOINTING))
]


def config_of(family: str, checkpointing: str, precision: str, size: tuple[int, int, int, int, int]) -> RunConfig:
    layers, seq, micro, vocab, accumulation = map(str, size)
    flags = Flags(
        family=family,
        layers=layers,
        hidden="128",
        heads="4",
        kv_heads="2" if family == "llama" else None,
        vocab=vocab,
        seq=seq,
        micro_batch=micro,
        accumulation=accumulation,
        steps="10",
        precision=precision,
        activation_checkpointing=checkpointing,
        runtime="eager",
    )
    return draft(flags, as_of="2026-11-21", version="test")


def assert_peaks_agree(config: RunConfig, track: Track) -> None:
    """Every phase's peak, and which is the highest."""
    share = 0.001 if config.training.activation_checkpointing == "none" else 0.01
    seen, simulated = track.by_phase(), simulate_run(resolve(config)).phases
    for phase in simulated:
        assert phase.peak_bytes == pytest.approx(seen[phase.phase], rel=share), phase.phase
    assert max(simulated, key=lambda p: p.peak_bytes).phase == track.peak.phase


@pytest.mark.parametrize(("family", "checkpointing", "precision", "size"), some(GRID, SOME.__contains__))
def test_peaks_of_every_phase(
    family: str, checkpointing: str, precision: str, size: tuple[int, int, int, int, int]
) -> None:
    config = config_of(family, checkpointing, precision, size)
    assert_peaks_agree(config, pytorch_track(config))


ORDERS = list(itertools.product(FAMILIES, CHECKPOINTING, PRECISIONS, (1, 2)))


# each family and checkpointing in one precision, half of them with one accumulation: the others in `make soak`
@pytest.mark.parametrize(("family", "checkpointing", "precision", "accumulation"), one_in(3, ORDERS))
def test_every_allocation_of_a_micro_batch_in_order(
    family: str, checkpointing: str, precision: str, accumulation: int
) -> None:
    """Forward and backward, allocation by allocation: the size of each, and what is alive after it."""
    config = config_of(family, checkpointing, precision, (2, 48, 3, 300, accumulation))
    tracker = StorageTracker()
    tracker.events = events = []
    track_steps(config, tracker)
    names = [name for name, _, _ in events]
    begin = len(names) - 1 - names[::-1].index("phase forward_end")
    end = len(names) - 1 - names[::-1].index("phase optimizer_step")
    before = events[begin][2]
    # the loss divided by the step's tokens, and its gradient, are the trainer's and not the model's: 4 bytes each
    seen = [(size, live - before) for _, size, live in events[begin:end] if size > SCALAR]

    recorder = Recorder()
    autograd = Autograd(recorder)
    autograd.gradients_exist = accumulation > 1
    # two blocks: both are walked; that those between are added rightly is shown by the peaks of five, above
    simulate_micro_batch(simulation_context(resolve(config)), autograd)
    assert difference_of(seen, [made for made in recorder.made if made[0] > SCALAR]) == ""


@pytest.mark.parametrize(("family", "checkpointing", "precision", "size"), some(GRID, SOME.__contains__))
def test_saved_bytes_of_every_operator(
    family: str, checkpointing: str, precision: str, size: tuple[int, int, int, int, int]
) -> None:
    config = config_of(family, checkpointing, precision, size)
    assert saved_bytes(config) == simulate_run(resolve(config)).saved_by_operator


@pytest.mark.parametrize(("family", "size"), list(itertools.product(FAMILIES, SIZES)))
def test_model_flops(family: str, size: tuple[int, int, int, int, int]) -> None:
    config = config_of(family, "full", "bf16", size)
    assert model_flops_per_step(config) == estimate(config).flops.per_step_model


@pytest.mark.parametrize("family", FAMILIES)
def test_hardware_flops_of_full_checkpointing(family: str) -> None:
    """What a checkpointed step computes on the meta device, where attention is no flash kernel and repeats nothing."""
    config = config_of(family, "full", "bf16", (3, 64, 2, 256, 1))
    with torch.device("meta"):
        model = build_model(config)
        ids = torch.zeros((2, 64), dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(ids, ids.clone()).backward()
    shape = shape_of(config.model)
    flash = flash_recompute_flops_per_token(shape.query_width, shape.layers * 64)
    assert counter.get_total_flops() == 2 * 64 * (estimate(config).flops.per_token_hardware - flash)


@pytest.mark.parametrize("name", one_in(4, presets.model_ids()))
def test_parameters_of_every_preset(name: str) -> None:
    config = draft(Flags(model=name, tokens="1T", gpu="h200"), as_of="2026-11-21", version="test")
    with torch.device("meta"):
        model = build_model(config)
    plan = estimate(config)
    assert plan.parameters.total == sum(p.numel() for p in model.parameters())
    assert plan.parameters.tensors == len(list(model.parameters()))
    embedding = model.embedding.weight.numel() + (0 if config.model.tied_embeddings else model.head.weight.numel())
    embedding += model.position.weight.numel() if model.position is not None else 0
    assert plan.parameters.embedding == embedding


@pytest.mark.parametrize("family", FAMILIES)
def test_peaks_of_a_large_model_by_replay(family: str) -> None:
    """A size that no test machine could hold: the replay has no contents."""
    model = "gpt2" if family == "gpt2" else "tinyllama-1.1b"
    flags = Flags(
        model=model,
        seq="1024",
        micro_batch="4",
        accumulation="1",
        steps="10",
        layers="3",
        precision="bf16",
        runtime="eager",
    )
    config = draft(flags, as_of="2026-11-21", version="test")
    assert_peaks_agree(config, replay(config))


@pytest.mark.parametrize("loss", ["plain", "chunked", "fused"])
def test_capped_logits_are_kept_where_somebody_names_them(loss: str) -> None:
    """The plain loss is handed logits whose caller keeps them in evaluation; a chunk's logits have no name."""
    config = config_of("llama", "none", "bf16", (2, 64, 2, 8192, 2))
    model = config.model.model_copy(update={"logit_softcap": 30.0})
    loss_kind = config.training.model_copy(update={"loss": loss, "loss_chunks": 2})
    config = config.model_copy(update={"model": model, "training": loss_kind})
    seen = replay(config).by_phase()
    for phase in simulate_run(resolve(config)).phases:
        assert abs(phase.peak_bytes - seen[phase.phase]) <= 8, phase.phase


def test_peaks_of_real_steps_on_real_data() -> None:
    """The tracker over real tensors sees what the replay sees, and what the planner says."""
    config = config_of("llama", "none", "bf16", (2, 64, 2, 512, 2))
    data = open_data(None, config.model.vocab, config.training.seq)
    seen = probe(config, data, torch.device("cpu"), lambda line: None)
    assert_peaks_agree(config, seen.track)
    assert seen.saved == simulate_run(resolve(config)).saved_by_operator


def test_the_comparison_sees_a_change() -> None:
    """The comparison can fail: one more sequence is seen by replay, saved bytes and FLOPs alike."""
    small, large = (config_of("gpt2", "none", "bf16", (2, 64, b, 256, 1)) for b in (2, 3))
    assert replay(large).peak.peak_bytes > 1.05 * estimate(small).memory.peak_requested_bytes
    assert saved_bytes(large) != estimate(small).memory.saved_by_operator
    assert model_flops_per_step(large) != estimate(small).flops.per_step_model
