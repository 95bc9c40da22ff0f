"""The fit of the time's constants: what is held out is not seen, priors hold, physics bounds, and files stay whole."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fit_constants, fit_intervals, fit_time
from benchmarks.fit_constants import Constant, fitted_constants, logarithms, rounded, values_set, write_values
from benchmarks.fit_intervals import CLASSES, SITUATIONS, held_out_coverage, quantile, widths_of
from benchmarks.fit_map import Problem, Vector, most_probable, slopes
from benchmarks.speed_rows import read_speed_rows
from planner.rules import rules
from tests.benchmarks.test_accuracy_speed import SPEED, written


def made_problem(sigma: float = 0.5, top: float = math.inf) -> Problem:
    """Two sources: nine rows that are 0.3 too fast at the literature value, one row that is right there."""
    offsets = np.array([0.3] * 9 + [0.0])

    def errors(at: Vector) -> Vector:
        return offsets - at[0]

    return Problem(errors, ["many"] * 9 + ["one"], np.array([sigma]), np.array([top]))


def test_a_weak_prior_gives_way_and_a_strong_one_holds() -> None:
    rows = [True] * 10
    assert most_probable(made_problem(), rows)[0] == pytest.approx(0.3, abs=0.02)
    assert most_probable(made_problem(sigma=0.002), rows)[0] == pytest.approx(0.0, abs=0.02)


def test_a_fit_sees_only_the_rows_it_may_use() -> None:
    problem = made_problem()
    assert most_probable(problem, [False] * 9 + [True])[0] == pytest.approx(0.0, abs=1e-6)
    first = problem.errors(np.zeros(1)), slopes(problem, np.zeros(1))
    assert most_probable(problem, [False] * 9 + [True], first)[0] == pytest.approx(0.0, abs=1e-6)


def test_no_constant_leaves_what_physics_allows() -> None:
    assert most_probable(made_problem(top=0.1), [True] * 10)[0] == pytest.approx(0.1)


def test_every_constant_has_a_place_a_width_and_a_source() -> None:
    constants = fitted_constants()
    assert len({one.path for one in constants}) == len(constants) > 30
    moved = logarithms(constants)
    for one, move in zip(constants, moved, strict=True):
        assert 0 < one.sigma <= 0.5 and len(one.source) > 10, one.path
        assert abs(move) <= 2.5 * one.sigma + 0.01, f"{one.path} is further from the literature than a fit may move it"
        assert one.most is None or one.value(rules("time")) <= one.most <= 0.95, one.path
    with pytest.raises(KeyError):
        Constant("family.none.gemm.all", 1.0, 0.1, "nowhere").value(rules("time"))


def test_values_hold_within_and_come_back() -> None:
    one = next(c for c in fitted_constants() if c.path == "family.ampere.gemm.all")
    before = one.value(rules("time"))
    with values_set([one], np.array([-0.5])):
        assert one.value(rules("time")) == pytest.approx(one.literature * math.exp(-0.5))
    assert one.value(rules("time")) == before


def test_written_values_change_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = fit_constants.FILE.read_text(encoding="utf-8")
    path = tmp_path / "time.toml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(fit_constants, "FILE", path)
    one = next(c for c in fitted_constants() if c.path == "family.ampere.gemm.all")
    write_values([one], np.array([-0.7]))
    after = path.read_text(encoding="utf-8").splitlines()
    changed = [new for old, new in zip(text.splitlines(), after, strict=True) if old != new]
    assert len(changed) == 1 and str(rounded(one, -0.7)) in changed[0]


def test_a_quantile_weighs_a_source_by_the_root_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, groups = np.array([0.1] * 16 + [-0.5]), ["large"] * 16 + ["small"]
    monkeypatch.setattr(fit_intervals, "LEVEL", 0.52)  # of two sources: 0.78 of the weight
    assert quantile(errors, groups) == pytest.approx(0.1)  # 4 of 5
    assert quantile(errors[7:], groups[7:]) == pytest.approx(0.5)  # 3 of 4


def test_a_class_of_few_sources_borrows_and_less_knowledge_is_no_narrower() -> None:
    classes = ["many-eager"] * 3 + ["one-eager"]
    groups, small = ["a", "b", "c", "d"], np.array([0.1, 0.1, 0.1, 0.4])
    errors = dict.fromkeys(SITUATIONS, small) | {"software": small / 2}
    widths = widths_of(classes, groups, errors)
    assert set(widths) == set(SITUATIONS) and all(set(found) == set(CLASSES) for found in widths.values())
    assert widths["known"]["many-eager"] == pytest.approx(math.exp(0.1))
    assert widths["known"]["one-eager"] == pytest.approx(math.exp(0.4))  # one source is too few: all rows
    assert widths["software"]["many-eager"] >= widths["known"]["many-eager"]


def test_held_out_coverage_takes_widths_from_the_other_sources() -> None:
    errors, groups = np.array([0.1, 0.1, 0.1, 0.4]), ["a", "b", "c", "d"]
    covered = held_out_coverage(["many-eager"] * 4, groups, errors)
    assert covered["all"]["coverage"] == 0.75  # the fourth is outside what three others make
    assert covered["one GPU"]["rows"] == 0


def test_intervals_of_all_situations_are_in_use() -> None:
    table = rules("time")["interval"]
    for name in CLASSES:
        assert 1 < table["known"][name] <= min(table["software"][name], table["card"][name]) <= table["neither"][name]


def test_the_command_fits_a_file_and_refuses_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tuple(c for c in fitted_constants() if c.path in ("family.ampere.gemm.all", "runtime.compiled.traffic"))
    monkeypatch.setattr(fit_time, "fitted_constants", lambda: few)
    rows = [SPEED | {"id": str(i), "source_group": group} for i, group in enumerate("aabcd")]
    path = written(tmp_path, *rows)
    found, at, widths = fit_time.fit(read_speed_rows(path))
    assert found["rows_used"] == 5 and len(at) == 2 and set(widths) == set(SITUATIONS)
    assert [row["group"] for row in found["rows"]] == list("aabcd")
    assert fit_time.main([str(path)]) == 0 and "other programs" in capsys.readouterr().out
    assert fit_time.main([str(tmp_path / "none.csv")]) == 2 and "none.csv" in capsys.readouterr().err


def test_a_card_unknown_to_the_table_has_the_rates_of_any() -> None:
    with fit_intervals.cards_unknown("card"):
        assert not any(family["gpus"] for family in rules("time")["family"])
    assert any("a100-80gb" in family["gpus"] for family in rules("time")["family"])
