"""One name, one meaning: a public module-level name is defined in one file of the four packages."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gptplan", "planner", "reference_trainer", "tui")
# the function's name is the subcommand's; the functions and results of `import gptplan` are the library's own, wrapped
SAME_MEANING = ("gptplan/commands/", "gptplan/functions.py", "gptplan/results.py")
# the layers that are simulated, and those that are run, have the same names on purpose
MIRRORED = ("planner/memory/eager/", "reference_trainer/model/")
# for a config, what the formula of that name is for numbers
OF_A_CONFIG = {"sequences_per_step", "tokens_per_step"}


def public_names(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def definitions() -> dict[str, set[str]]:
    """The files that define each public name."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            file = path.relative_to(ROOT).as_posix()
            if not file.startswith(SAME_MEANING):
                for name in public_names(path):
                    found[name].add(file)
    return found


def is_mirrored(files: set[str]) -> bool:
    return len(files) == 2 and all(any(file.startswith(folder) for file in files) for folder in MIRRORED)


def test_a_public_name_is_defined_once() -> None:
    found = definitions()
    assert found["estimate"] == {"planner/plan.py"} and len(found) > 500
    shared = {name: sorted(files) for name, files in found.items() if len(files) > 1 and not is_mirrored(files)}
    for name in OF_A_CONFIG:
        assert shared.pop(name) == ["planner/counts/run.py", "planner/formulas/batch.py"]
    assert not shared, f"rename one of each, or begin it with _ where only its file uses it: {shared}"
