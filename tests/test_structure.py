"""The structure of the code: who imports whom, and what a command may load."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "numpy", "sympy", "textual", "tomlkit", "safetensors")


def modules_after(code: str, cwd: Path) -> set[str]:
    """Top-level packages loaded by a fresh interpreter that ran `code`."""
    report = "import sys; sys.stderr.write('\\n'.join(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=cwd, capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stderr.split())


def run_command(*arguments: str) -> str:
    return (
        f"import sys; sys.argv = ['gptplan', *{list(arguments)!r}]\n"
        "from gptplan.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_estimate_loads_nothing_heavy(extra: tuple[str, ...], tmp_path: Path) -> None:
    code = run_command("estimate", "--params", "125M", "--tokens", "10B", "--gpu", "a100-80gb", *extra)
    loaded = modules_after(code, tmp_path)
    assert "planner" in loaded and not loaded & set(HEAVY), loaded & set(HEAVY)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = modules_after(run_command("--help"), tmp_path)
    assert not loaded & set(HEAVY)


def test_reading_the_library_loads_no_framework(tmp_path: Path) -> None:
    paths = sorted((ROOT / "planner").rglob("*.py"))
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in paths]
    loaded = modules_after("\n".join(f"import {name}" for name in names), tmp_path)
    assert not loaded & {"torch", "typer", "rich", "textual", "gptplan", "reference_trainer", "tui"}


def test_import_contracts() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_wing_is_in_the_contract() -> None:
    """A new wing or root module of planner/ must be given its place; inside a wing modules import freely."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    corridor = next(c for c in contracts if c["name"].startswith("The corridor"))
    listed = {wing.strip() for layer in corridor["layers"] for wing in layer.split("|")}
    found = {
        f"planner.{p.stem}" for p in (ROOT / "planner").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert listed == found - {"planner.__init__"}


def test_each_version_is_the_same() -> None:
    import gptplan

    assert re.search(rf"^## {re.escape(gptplan.__version__)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


def test_flops_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = modules_after(run_command("flops", "--model", "llama-3-8b", "--gpu", "h100-80gb", "--json"), tmp_path)
    assert "planner" in loaded and not loaded & set(HEAVY), loaded & set(HEAVY)
