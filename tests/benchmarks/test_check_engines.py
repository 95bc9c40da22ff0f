"""The committed result of `make check-engines` is of the files that are kept, and good."""

from __future__ import annotations

import json

import pytest

from benchmarks.check_engines import CHECKOUTS, PACKAGES, ROOT, digest, rate_difference
from planner.counts.run import rate_at, resolve, steps_of
from tests.planner.engines.configs import base_of

RESULT = json.loads((ROOT / "benchmarks/results/check_engines.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("engine", [*PACKAGES, *CHECKOUTS])
def test_the_kept_files_were_read_by_the_engine_itself(engine: str) -> None:
    (check,) = (one for one in RESULT["checks"] if one["engine"] == engine)
    assert check["problem"] == "" and check["files"] == digest(engine), "make check-engines"
    assert check["parameters_here"] == resolve(base_of(engine)).parameters.total
    assert check["parameters_there"] == (None if engine == "megatron-lm" else check["parameters_here"])
    assert check["updates"] == steps_of(base_of(engine))


def test_a_rate_that_differs_is_seen() -> None:
    config = base_of("hf-trainer")
    ours = [rate_at(config, step) for step in range(steps_of(config))]  # from the rate at 0, as LambdaLR counts
    assert rate_difference(config, ours, 1, 0) == 0.0
    assert rate_difference(config, ours, 0, 0) > 1e-4
    assert rate_difference(config, [*ours[:-1], ours[0]], 1, 0) > 1e-3
