"""The test files that can notice a fault in a source file, the most likely ones first."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

# they test the packaging or the documents, or run for minutes
LEFT_OUT = ("tests/test_wheel.py", "tests/test_pages.py", "tests/test_coverage.py", "tests/benchmarks/")


CLOSEST, WIDER = 8, 6  # files at most: a fault that is seen far away only is no better than one that is not


def closest_tests(root: Path, file: str) -> list[str]:
    """Test files that import the module, those of its own name and of its mirrored folder first."""
    module, tests = _module_of(file), _imports(root)
    importing = [test for test, names in tests.items() if module in names]
    return sorted(importing, key=lambda test: (-_likeness(file, test), len(tests[test]), test))[:CLOSEST]


def wider_tests(root: Path, file: str) -> list[str]:
    """What `closest_tests` leaves: the mirrored folder, importers of importers, and what calls the command."""
    module, tests, closest = _module_of(file), _imports(root), set(closest_tests(root, file))
    mirror = f"tests/{Path(file).parent.as_posix()}/"
    users = {name for name, names in _sources(root).items() if module in names}
    found = {
        test: (-_likeness(file, test), not names & users, len(names), test)
        for test, names in tests.items()
        if test not in closest and (test.startswith(mirror) or module in names or names & users)
    }
    commands = ["tests/stability/test_stability.py", "tests/gptplan/test_readme.py", "tests/planner/test_invariants.py"]
    return sorted(found, key=lambda test: found[test])[:WIDER] + [
        test for test in commands if (root / test).exists() and test not in closest | set(found)
    ]


def _likeness(file: str, test: str) -> int:
    """How much a test's path is that of the file: words of its name, and folders in common."""
    words = set(Path(file).stem.split("_")) | {Path(file).parent.name}
    named = len(words & set(Path(test).stem.removeprefix("test_").split("_")))
    return 2 * named + len(set(Path(file).parent.parts) & set(Path(test).parent.parts))


def _module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _imports(root: Path) -> dict[str, set[str]]:
    """Modules that each test file imports, or names in a text for monkeypatch; also by the test files it imports."""
    files = {p.relative_to(root).as_posix(): _names(p) for p in sorted((root / "tests").rglob("*.py"))}
    through = {_module_of(file): names for file, names in files.items()}
    found = {file: set(names) for file, names in files.items()}
    for file, names in files.items():
        for name in names & through.keys():
            if not Path(name.replace(".", "/")).name.startswith("test_"):
                found[file] |= through[name]
    return {f: n for f, n in found.items() if Path(f).name.startswith("test_") and not f.startswith(LEFT_OUT)}


@cache
def _sources(root: Path) -> dict[str, set[str]]:
    """Modules that each source module imports."""
    packages = ("planner", "reference_trainer", "gptplan", "tui")
    paths = [path for package in packages for path in (root / package).rglob("*.py")]
    return {_module_of(path.relative_to(root).as_posix()): _names(path) for path in paths}


def _names(path: Path) -> set[str]:
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 120:
            parts = node.value.split(".")
            if len(parts) > 2 and all(map(re.compile(r"\w+").fullmatch, parts)):
                found |= {".".join(parts[:n]) for n in range(2, len(parts) + 1)}
    return found
