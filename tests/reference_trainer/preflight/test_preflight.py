"""The preflight says ok of a good run, and each check fails of what it is there for."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.model import MoeConfig
from planner.config.run import HardwareConfig, RunConfig
from planner.counts.run import rate_at
from planner.errors import FileError, PlanError
from planner.plan import estimate
from planner.report.preflight import preflight_text
from planner.runs.preflight import Check, Preflight
from reference_trainer.data.samples import MicroBatch, batch, open_data
from reference_trainer.loop.startup import build
from reference_trainer.model.gpt import GPT
from reference_trainer.preflight import checkpoints as preflight_checkpoints
from reference_trainer.preflight import model as preflight_model
from reference_trainer.preflight import preflight as module
from reference_trainer.preflight import shown_samples
from reference_trainer.preflight import system as preflight_system
from reference_trainer.preflight.checkpoints import check_disk, checkpoints_kept, round_trip, scratch
from reference_trainer.preflight.model import (
    check_causality,
    check_decay_groups,
    check_first_loss,
    check_gradients,
    check_overfitting,
    expected_first_loss,
    one_sequence,
)
from reference_trainer.preflight.preflight import PreflightOptions, preflight
from reference_trainer.preflight.steps import steps_on
from reference_trainer.preflight.system import check_memory, estimate_whole_run
from reference_trainer.step.step import StepContext

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
NAMES = [
    "data", "targets", "learning rate", "memory", "first loss", "first gradient", "all are trained", "decay groups",
    "causality", "step time", "save and load", "checkpoint size", "peak of a step", "one sequence over-fitted", "disk",
    "whole run",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is not measured: its profile is absent, so that no speed is predicted."""
    monkeypatch.setattr(module, "adapt_to_device", lambda config, device, log: config)
    monkeypatch.setattr(preflight_model, "OVERFIT_STEPS", 40)


@pytest.fixture
def fly(tmp_path: Path, text: Path) -> Iterator[Callable[..., Preflight]]:
    def call(config: RunConfig, **asked: Any) -> Preflight:
        chosen: dict[str, Any] = {"device": "cpu", "data": text, "out": tmp_path / "runs/first"} | asked
        return preflight(config, PreflightOptions(**chosen), lambda line: None)

    yield call
    assert not list(tmp_path.glob(".gptplan*")), "nothing is left behind"
    assert not (tmp_path / "runs").exists()


def verdicts(report: Preflight) -> dict[str, str]:
    return {check.name: check.verdict for check in report.checks}


def the(report: Preflight, name: str) -> Check:
    (found,) = (check for check in report.checks if check.name == name)
    return found


def built(config: RunConfig, text: Path) -> tuple[StepContext, MicroBatch]:
    data = open_data(text, config.model.vocab, config.training.seq)
    return build(config, CPU, data), batch(data, config, 0, config.training.micro_batch)


def test_a_good_run_passes_every_check(tiny: MakeConfig, fly: Callable[..., Preflight]) -> None:
    config = tiny(steps=40, peak_lr=1e-2)
    report = fly(config)
    assert [check.name for check in report.checks] == NAMES
    found = verdicts(report)
    assert found.pop("step time") == "skipped"  # nothing is predicted without a profile; it was measured all the same
    # 29 samples for 40 steps of four, and a peak rate above the usual ones, are said
    assert found.pop("data") == found.pop("learning rate") == "warning"
    assert found.pop("whole run") in ("ok", "warning")  # steps of milliseconds: saves may well take longer
    assert set(found.values()) == {"ok"}, found
    assert the(report, "step time").values["step_seconds"] > 0
    assert the(report, "data").values["epochs"] == pytest.approx(40 * 4 / 29)
    assert report.rates == tuple((k, rate_at(config, k)) for k in (1, 2, 20, 40))
    assert len(report.samples) == 2 and all(s.target[:-1] == s.input[1:] for s in report.samples)
    shown = preflight_text(report)
    assert "! warning: data\n" in shown and " warning, 1 skipped, in " in shown
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["checks"][0]["name"] == "data"


def test_the_page_names_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "preflight.md").read_text(encoding="utf-8")
    assert [row.split(" | ")[0][2:] for row in page.splitlines() if row.startswith("| ")][1:] == NAMES


def test_what_does_not_fit_is_skipped_and_never_guessed(
    tiny: MakeConfig, fly: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda device: 3 * 2**20)
    monkeypatch.setattr(module, "build", lambda *_: pytest.fail("nothing is built"))
    report = fly(tiny(micro_batch=32, accumulation=1))
    assert the(report, "memory").verdict == "failed" and "--micro-batch" in the(report, "memory").remedy
    skipped = [check for check in report.checks if check.verdict == "skipped"]
    assert {c.name for c in skipped} == set(NAMES) - {"data", "targets", "learning rate", "memory", "disk"}
    assert all(not c.measured and not c.values and c.why for c in skipped)


def test_a_short_time_limit_skips_the_long_checks(tiny: MakeConfig, fly: Callable[..., Preflight]) -> None:
    report = fly(tiny(accumulation=10**6), time_limit=5.0)
    found = verdicts(report)
    assert found["first loss"] == found["causality"] == "ok"
    assert found["step time"] == found["one sequence over-fitted"] == found["whole run"] == "skipped"
    assert "1000000 micro-batches" in the(report, "step time").why


def test_data_that_cannot_be_used_is_a_failed_check(
    tiny: MakeConfig, fly: Callable[..., Preflight], tmp_path: Path
) -> None:
    (tmp_path / "wide.bin").write_bytes(b"\xff\x7f" * 200)
    report = fly(tiny(), data=tmp_path / "wide.bin")
    assert the(report, "data").verdict == "failed" and "does not fit a vocabulary" in the(report, "data").why
    assert verdicts(report)["first loss"] == "skipped" and verdicts(report)["disk"] == "ok"


def test_memory_that_runs_out_is_a_failed_check(
    tiny: MakeConfig, fly: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "check_causality", refuse)
    report = fly(tiny())
    failed = the(report, "causality")
    assert failed.verdict == "failed" and "ran out of memory in the preflight" in failed.why
    assert "predicted: " in failed.why and verdicts(report)["save and load"] == "skipped"


def test_targets_that_are_not_the_next_token_are_seen(
    tiny: MakeConfig, fly: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_samples, "batch", lambda *a: (made := batch(*a))._replace(targets=made.ids))
    assert verdicts(fly(tiny()))["targets"] == "failed"


CAUSAL = [
    {},
    {"position": "rotary", "sliding_window": 8, "kv_heads": 1},
    {"position": "alibi", "attention_kernel": "math"},
    {"recipe": "mixed-bf16", "norm": "rmsnorm"},
    {"runtime": "autocast", "recipe": "mixed-bf16"},
    {"moe": MoeConfig(experts=4, top_k=2, expert_ffn=16)},
]


@pytest.mark.parametrize("changes", CAUSAL, ids=str)
def test_causality_holds_and_a_leak_is_seen(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    context, given = built(tiny(**changes), text)
    assert check_causality(context.model, given).verdict == "ok"
    whole = GPT.hidden_states
    # each position sees its mirror image a little; among experts, whose rounding is allowed for, a little more
    leak = 0.2 if "moe" in changes else 1e-2
    monkeypatch.setattr(GPT, "hidden_states", lambda self, x, d: (h := whole(self, x, d)) + leak * h.flip(1))
    assert check_causality(context.model, given).verdict == "failed"
    monkeypatch.setattr(GPT, "hidden_states", lambda self, x, d: whole(self, x * 0, d))
    assert "has any effect" in check_causality(context.model, given).why


@pytest.mark.parametrize("hidden", [32, 256])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab", [256, 5000])
def test_the_first_loss_is_within_its_tolerance(
    tiny: MakeConfig, text: Path, hidden: int, tied: bool, vocab: int
) -> None:
    config = tiny(hidden=hidden, head_dim=hidden // 2, ffn=2 * hidden, tied_embeddings=tied, vocab=vocab)
    context, given = built(config, text)
    found = check_first_loss(context.model, config, given)
    assert found.verdict == "ok", found
    e = expected_first_loss(config.model, 10, 0.0)
    assert abs(e.middle - math.log(vocab)) < 0.06 and e.tolerance < 0.6
    with torch.no_grad():
        context.model.head.weight.mul_(30)  # an initialisation that is far too large
    assert check_first_loss(context.model, config, given).verdict in (("warning", "failed") if tied else ("failed",))


def test_a_first_loss_that_is_too_low_or_no_number_fails(tiny: MakeConfig, text: Path) -> None:
    config = tiny()
    context, given = built(config, text)
    for value in (1e-3, math.nan):
        context.model.forward = lambda *_, v=value: torch.tensor(v)  # type: ignore[method-assign]
        assert check_first_loss(context.model, config, given).verdict == "failed"


def test_a_tensor_without_a_gradient_is_named(tiny: MakeConfig, text: Path) -> None:
    for recipe in ("fp32", "master-bf16", "pure-bf16", "mixed-fp16"):
        context, given = built(tiny(recipe=recipe), text)
        norm, every = check_gradients(context, given)
        assert norm.verdict == every.verdict == "ok" and norm.values["grad_norm"] > 0
        assert all(w.grad is None for w in (*context.model.parameters(), *context.optimizer.weights.values()))
    context, given = built(tiny(), text)
    context.model.blocks[1].mlp.down.weight.requires_grad_(False)
    _, every = check_gradients(context, given)
    assert every.verdict == "failed" and "blocks.1.mlp.down.weight" in every.why
    context.model.blocks[1].mlp.down.weight.requires_grad_(True).register_hook(torch.zeros_like)
    _, every = check_gradients(context, given)
    assert every.verdict == "warning" and "blocks.1.mlp.down.weight" in every.why
    next(context.model.parameters()).register_hook(lambda g: g * math.nan)
    norm, _ = check_gradients(context, given)
    assert norm.verdict == "failed" and norm.values["grad_norm"] is None


def test_decay_groups_are_those_of_the_real_optimizer(tiny: MakeConfig, text: Path) -> None:
    for name in ("muon", "adamw"):
        config = tiny()
        named_so = config.optimizer.model_copy(update={"name": name})
        context, _ = built(config.model_copy(update={"optimizer": named_so}), text)
        found = check_decay_groups(context)
        assert found.verdict == "ok"
        assert found.values["decayed_parameters"] == sum(
            w.numel() for w in context.optimizer.weights.values() if w.dim() >= 2
        )
    moved = context.optimizer.param_groups[1]["params"].pop()
    assert "in no group" in check_decay_groups(context).why
    context.optimizer.param_groups[0]["params"].append(moved)
    assert "in the wrong one" in check_decay_groups(context).why and check_decay_groups(context).verdict == "failed"


def test_one_sequence_is_learnt_by_heart_or_it_is_said(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    data = open_data(text, 256, 32)
    one = one_sequence(data, config)
    for index in (0, 1, 5):
        assert all(
            torch.equal(a, b)
            for a, b in zip(batch(one, config, index, 1)[:2], batch(data, config, 0, 1)[:2], strict=True)
        )
    assert check_overfitting(config, data, CPU, 60.0).verdict == "ok"
    assert check_overfitting(config, data, CPU, 0.0).verdict == "skipped"  # one step is no answer
    monkeypatch.setattr(preflight_model, "OVERFIT_STEPS", 30)
    assert check_overfitting(tiny(peak_lr=1e-9, min_lr=0.0), data, CPU, 60.0).verdict == "failed"
    assert check_overfitting(tiny(peak_lr=2e-4, min_lr=0.0), data, CPU, 60.0).verdict == "warning"


def test_the_round_trip_sees_a_single_bit(tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: Any) -> None:
    context, _ = built(tiny(), text)
    steps_on(context, 1, 2)
    assert round_trip(context, tmp_path / "a").different == ()
    load = preflight_checkpoints.load

    def spoiled(*args: Any) -> Any:
        found = load(*args)
        next(iter(context.optimizer.weights.values())).data.view(torch.int32)[0] ^= 1
        return found

    monkeypatch.setattr(preflight_checkpoints, "load", spoiled)
    assert round_trip(context, tmp_path / "b").different[0].endswith("embedding.weight")


def test_peaks_that_were_not_predicted_are_a_warning(tiny: MakeConfig, text: Path) -> None:
    config = tiny()
    plan = estimate(config, replay=True)
    seen = module.probe(config, open_data(text, 256, 32), CPU, lambda line: None).track
    assert preflight_system.check_phase_peaks(plan, seen).verdict == "ok"
    seen.phases[0].peak_bytes *= 2
    worse = preflight_system.check_phase_peaks(plan, seen)
    assert worse.verdict == "warning" and seen.phases[0].phase in worse.why
    assert preflight_system.check_device_peak(plan, 5, 5).verdict == "skipped"


def test_memory_that_fits_only_with_retries_is_a_warning(tiny: MakeConfig) -> None:
    config = tiny(micro_batch=64, accumulation=1, vocab=8192, seq=256, context=256)
    plan = estimate(config.model_copy(update={"hardware": HardwareConfig(gpu="a100-80gb", gpus=1)}), replay=True)
    allocated, reserved = plan.memory.peak_allocated_bytes.value, plan.memory.peak_reserved_bytes.value
    assert allocated is not None and reserved is not None and allocated < reserved
    verdicts = [check_memory(plan, free).verdict for free in (reserved, reserved - 1, allocated, allocated - 1)]
    assert verdicts == ["ok", "warning", "warning", "failed"]
    assert preflight_system.check_device_peak(plan, allocated, reserved).verdict == "ok"
    assert preflight_system.check_device_peak(plan, 2 * allocated, reserved).verdict == "warning"


def test_time_money_and_disk(tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(steps=8, checkpoint_every=2)
    plan = estimate(config)
    plan = replace(plan, cost=replace(plan.cost, usd_per_gpu_hour=3600.0))
    run = estimate_whole_run(plan, 2.0, 0.0)
    assert (run.verdict, run.values["seconds"], run.values["usd"]) == ("ok", 16.0, 16.0)
    slow = estimate_whole_run(plan, 2.0, 1.0)
    assert slow.verdict == "warning" and slow.values["seconds"] == 20.0
    assert checkpoints_kept(config) == (4, 4)
    keeps = config.checkpoints.model_copy(update={"keep": 1, "keep_every": 4})
    assert checkpoints_kept(config.model_copy(update={"checkpoints": keeps})) == (4, 3)
    assert checkpoints_kept(tiny(checkpoint_every=None)) == (1, 1)
    free = shutil.disk_usage(tmp_path).free
    assert check_disk(config, tmp_path, free // 8).verdict == "ok"
    assert check_disk(config, tmp_path, free).verdict == "failed"
    assert check_memory(plan, None).verdict == "skipped"


def test_the_scratch_folder_is_gone_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch(tmp_path) as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileError, match="cannot be written"), scratch(tmp_path / "nowhere"):
        pass


def test_the_scratch_folder_is_gone_after_sigterm(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, scratch(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert ended.value.code == 143 and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_no_run_could_begin_with_is_refused(tiny: MakeConfig, fly: Callable[..., Preflight]) -> None:
    with pytest.raises(PlanError, match="unknown device"):
        fly(tiny(), device="tpu")
    with pytest.raises(PlanError, match="does not run the recipe"):
        fly(tiny(recipe="fp8-te"))


def test_a_model_that_repeats_its_input_is_a_warning(tiny: MakeConfig, text: Path) -> None:
    """A wide tied head explains a high loss; an untied one does not."""
    context, given = built(tiny(), text)
    context.model.forward = lambda *_: torch.tensor(9.0 * given.valid)  # type: ignore[method-assign]
    wide = {"hidden": 4096, "position": "rotary"}
    found = check_first_loss(context.model, tiny(**wide), given)
    assert found.verdict == "warning" and "repeating its input" in found.why
    assert check_first_loss(context.model, tiny(**wide, tied_embeddings=False), given).verdict == "failed"
