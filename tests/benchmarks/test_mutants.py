"""`make mutants`: faults are put where they are said to be, are noticed by tests or not, and the result counts them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.header import ROOT
from benchmarks.mutant_tests import closest_tests, wider_tests
from benchmarks.mutants import EXPLAINED, PACKAGES, WANTED, earlier_rows, key_of, summed_up
from benchmarks.mutations import mutations, sample

SOURCE = '''"""Doc."""

def f(é: int = 3, *, on: bool = True) -> float:
    """Doc 1."""
    assert é > 1
    if é < 2 and not on:
        raise ValueError(f"{é + 1}")
    for n in range(é):
        if n == é:
            continue
        é += 1
    print("ä", é - n)
    return min(é, 2.5) if on else é / n
'''

CHANGED = {
    ("constant", "3", "(4)"), ("constant", "3", "(2)"), ("constant", "True", "(False)"),
    ("comparison", "é < 2", "(é <= 2)"), ("and, or", "é < 2 and not on", "(é < 2 or not on)"),
    ("one condition less", "é < 2 and not on", "(é < 2)"), ("constant", "2", "(3)"), ("constant", "2", "(1)"),
    ("negation dropped", "not on", "(on)"), ("dropped statement", 'raise ValueError(f"{é + 1}")', "pass"),
    ("comparison", "n == é", "(n != é)"), ("leaves the loop", "continue", "break"),
    ("dropped statement", "é += 1", "pass"),
    ("constant", "1", "(2)"), ("constant", "1", "(0)"), ("dropped statement", 'print("ä", é - n)', "pass"),
    ("arithmetic", "é - n", "(é + n)"), ("operands swapped", "é - n", "(n - é)"),
    ("returns nothing", "return min(é, 2.5) if on else é / n", "return None"),
    ("other branch", "min(é, 2.5) if on else é / n", "(é / n if on else min(é, 2.5))"),
    ("min, max", "min(é, 2.5)", "(max(é, 2.5))"), ("constant", "2.5", "(5.0)"), ("arithmetic", "é / n", "(é * n)"),
    ("operands swapped", "é / n", "(n / é)"),
}  # fmt: skip


def test_each_kind_of_fault_and_nothing_in_assertions_messages_and_annotations() -> None:
    found = mutations(SOURCE, "f.py")
    assert {(m.operator, m.before, m.after) for m in found} == CHANGED and len(found) == len(CHANGED)
    for mutation in found:
        changed = mutation.applied(SOURCE)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))
        assert mutation.function == "f" and mutation.before.splitlines()[0] in SOURCE.splitlines()[mutation.line - 1]


def test_the_sample_is_spread_and_the_same_for_a_seed() -> None:
    drawn = sample(ROOT, PACKAGES, 20, 3)
    assert drawn == sample(ROOT, PACKAGES, 20, 3) != sample(ROOT, PACKAGES, 20, 4)
    assert len({m.file for m in drawn}) == 20
    assert [sum(m.file.startswith(package) for m in drawn) for package in PACKAGES] == [10, 10]


def test_the_tests_of_a_file_are_those_that_import_it_and_then_those_around() -> None:
    closest = closest_tests(ROOT, "reference_trainer/step/spike_guard.py")
    assert closest[0] == "tests/reference_trainer/step/test_spike_guard.py"
    assert "tests/reference_trainer/step/test_step.py" in closest
    wider = wider_tests(ROOT, "reference_trainer/step/spike_guard.py")
    assert wider and not set(wider) & set(closest) and all((ROOT / test).exists() for test in (*closest, *wider))


@pytest.mark.parametrize("noticed", [True, False])
def test_a_fault_is_noticed_by_a_test_that_passes_without_it(tmp_path: Path, noticed: bool) -> None:
    """In a repository of its own, with a test that always fails: it proves nothing."""
    (tmp_path / "planner").mkdir()
    (tmp_path / "planner/half.py").write_text("def half(x: float) -> float:\n    return x / 2.0\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_always.py").write_text("import planner.half\n\ndef test_no():\n    assert False\n")
    right = "4.0" if noticed else "0.0"
    (tmp_path / "tests/test_half.py").write_text(
        f"from planner.half import half\n\ndef test_half():\n    assert half({right}) == {right} / 2\n"
    )
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    code = (
        "import sys; from pathlib import Path; from benchmarks.mutants import Laboratory\n"
        "from benchmarks.mutations import mutations\n"
        f"copy = Path({str(tmp_path)!r}); laboratory = Laboratory(copy)\n"
        "source = (copy / 'planner/half.py').read_text()\n"
        "drawn = [m for m in mutations(source, 'planner/half.py') if m.operator == 'constant']\n"
        "tests = ['tests/test_always.py', 'tests/test_half.py']\n"
        "print(laboratory.noticed_by(drawn[0], tests, 60)[0], (copy / 'planner/half.py').read_text() == source)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["tests/test_half.py::test_half" if noticed else "None", "True"], done.stderr


def test_rows_are_counted_and_survivors_need_an_explanation(tmp_path: Path) -> None:
    def row(n: int, test: str | None) -> dict[str, object]:
        keys = {"file": f"{n}.py", "function": "f", "operator": "constant", "before": "1", "after": "(2)"}
        return keys | {"noticed_by": test, "test_files": 1, "seconds": 1.0}

    rows = [row(1, "a"), row(2, None), row(3, None), row(4, "b")]
    result = summed_up(5, rows, {key_of(rows[1]): "no caller can see it"})
    assert (result["mutants"], result["noticed"], result["fraction_noticed"]) == (4, 2, 0.5)
    assert result["unexplained"] == [key_of(rows[2])] and rows[1]["explanation"] == "no caller can see it"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    assert len(earlier_rows(path, 5, again=False)) == 4 and len(earlier_rows(path, 5, again=True)) == 2
    assert earlier_rows(path, 6, again=False) == {}


def test_the_last_result_notices_95_of_100_and_explains_every_survivor() -> None:
    result = json.loads((ROOT / "benchmarks/results/mutants.json").read_text(encoding="utf-8"))
    rows, explained = result["rows"], json.loads(EXPLAINED.read_text(encoding="utf-8"))
    again = summed_up(result["seed"], rows, explained)
    assert again == {key: value for key, value in result.items() if key != "header"}
    assert len({key_of(row) for row in rows}) == len(rows) >= 60
    assert result["fraction_noticed"] >= WANTED and result["unexplained"] == []
