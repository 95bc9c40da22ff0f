"""The preflight passes a good run, fails what cannot run, and skips what it cannot measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.counts.run import rate_at
from planner.errors import PlanError
from planner.report.preflight import preflight_text
from planner.runs.preflight import Preflight
from reference_trainer.data.samples import batch
from reference_trainer.preflight import model as preflight_model
from reference_trainer.preflight import preflight as module
from reference_trainer.preflight import shown_samples
from reference_trainer.preflight.preflight import PreflightOptions, preflight
from tests.reference_trainer.preflight.checks import NAMES, MakeConfig, the, verdicts


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


def test_what_no_run_could_begin_with_is_refused(tiny: MakeConfig, fly: Callable[..., Preflight]) -> None:
    with pytest.raises(PlanError, match="unknown device"):
        fly(tiny(), device="tpu")
    with pytest.raises(PlanError, match="does not run the recipe"):
        fly(tiny(recipe="fp8-te"))
