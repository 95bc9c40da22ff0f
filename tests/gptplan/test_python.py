"""`import gptplan`: the numbers of the command, from keywords; short reprs, escaped tables, nothing imported early."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptplan
from gptplan.keywords import Keywords
from planner.config.options import OPTION
from planner.finding import Finding
from planner.inputs.flags import Flags
from planner.plan import Plan as LibraryPlan
from planner.report.html import plan_html
from planner.runs.comparison import ComparisonRow
from planner.units import format_money
from tests.gptplan.calling import Call

AS_OF = "2026-11-21"
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gptplan", "planner", "tui", "reference_trainer")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU driver, no cached profile, an empty directory."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def modules_after(code: str) -> set[str]:
    report = "import sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_and_estimate_nothing_heavy() -> None:
    before = modules_after("import gptplan; dir(gptplan); gptplan.__version__")
    assert not {m for m in before if m.split(".")[0] in ("planner", "pydantic", "typer") or m.startswith("gptplan.")}
    after = {m.split(".")[0] for m in modules_after("import gptplan; gptplan.estimate(params='125M', tokens='10B')")}
    assert "planner" in after
    assert not after & {"torch", "numpy", "sympy", "textual", "tomlkit", "safetensors", "typer"}


def test_version_loads_no_more_than_the_command_needs() -> None:
    code = "import sys; sys.argv = ['gptplan', '--version']\nfrom gptplan.app import main\n"
    loaded = modules_after(code + "try:\n    main()\nexcept SystemExit:\n    pass")
    assert "gptplan.app" in loaded and not loaded & {"gptplan.functions", "gptplan.results", "planner.plan"}


def test_every_public_name_is_there() -> None:
    assert gptplan.__all__ == sorted(gptplan.__all__)
    assert set(gptplan.__all__) <= set(dir(gptplan))
    for name in gptplan.__all__:
        assert getattr(gptplan, name) is not None
        assert getattr(getattr(gptplan, name), "__doc__", None) or name == "__version__"
    with pytest.raises(AttributeError, match=r"has no attribute 'estimates'; it has: .*estimate"):
        gptplan.estimates  # type: ignore[attr-defined]  # noqa: B018


def test_keywords_are_the_flags() -> None:
    assert list(Keywords.__annotations__) == [field.name for field in fields(Flags)]
    assert set(Keywords.__annotations__) == set(OPTION)


WORDS: list[tuple[dict[str, Any], str]] = [
    ({"model": "gpt2", "tokens": "10B", "micro_batch": 8}, "--model gpt2 --tokens 10B --micro-batch 8"),
    (
        {"params": 125_000_000, "tokens": 1e10, "gpu": "h100-80gb", "gpus": 8, "mfu": 0.4, "async_save": True},
        "--params 125M --tokens 10B --gpu h100-80gb --gpus 8 --mfu 40% --async-save yes",
    ),
    (
        {"layers": np.int64(2), "hidden": 256, "tied": False, "steps": 100, "peak_lr": np.float64(3e-4), "gpu": "cpu"},
        "--layers 2 --hidden 256 --untied --steps 100 --peak-lr 3e-4 --gpu cpu",
    ),
]


@pytest.mark.parametrize(("keywords", "words"), WORDS)
def test_equals_the_command(call: Call, keywords: dict[str, Any], words: str) -> None:
    typed = (*words.split(), "--as-of", AS_OF)
    plan = gptplan.estimate(as_of=AS_OF, **keywords)
    assert plan.to_dict() == json.loads(call("estimate", *typed, "--json").out)
    assert f"{plan}\n" == call("estimate", *typed).out
    assert gptplan.findings(plan) == tuple(Finding(**found) for found in plan.to_dict()["findings"])
    assert gptplan.plan(as_of=AS_OF, **keywords) == plan.config


def test_from_a_file_and_over_one(call: Call, tmp_path: Path) -> None:
    config = gptplan.plan(model="gpt2", tokens="10B", gpu="h100-80gb", as_of=AS_OF)
    gptplan.save_config(config, "run.toml")
    assert gptplan.load_config("run.toml") == gptplan.load_config(tmp_path / "run.toml") == config
    printed = json.loads(call("estimate", "--config", "run.toml", "--json").out)
    plan = gptplan.estimate("run.toml")
    assert plan.to_dict() == printed
    assert gptplan.estimate(Path("run.toml")) == plan == gptplan.estimate(config)
    over = json.loads(call("estimate", "--config", "run.toml", "--gpus", "4", "--as-of", AS_OF, "--json").out)
    assert gptplan.estimate(config, gpus=4, as_of=AS_OF).to_dict() == over
    assert tomllib.loads(Path("run.toml").read_text())["training"]["tokens"] == 10**10
    with pytest.raises(gptplan.PlanError, match="exists"):
        gptplan.save_config(config, "run.toml")
    gptplan.save_config(gptplan.plan(config, gpus=4), "run.toml", overwrite=True)
    assert gptplan.load_config("run.toml").hardware.gpus == 4


def test_without_replay_bytes_follow_rules() -> None:
    simulated = gptplan.estimate(model="gpt2", tokens="10B")
    ruled = gptplan.estimate(model="gpt2", tokens="10B", replay=False)
    assert simulated.memory.fits_by != ruled.memory.fits_by
    assert simulated.memory.peak_requested_bytes == ruled.memory.peak_requested_bytes


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tokns": "10B"}, "unknown keyword 'tokns'(.|\n)*did you mean tokens"),
    ({"model": "gpt-2", "tokens": 1e9}, "unknown model 'gpt-2'(.|\n)*did you mean gpt2"),
    ({"model": "gpt2", "tokens": "10X"}, "--tokens: '10X' is not a count(.|\n)*fix: known: k, M, B"),
    ({"model": "gpt2", "tokens": 1.5}, "a count is a whole number"),
    ({"model": "gpt2", "tokens": float("nan")}, "not a finite number"),
    ({"model": "gpt2", "seq": -(10**5000)}, "a whole number of 16610 bits"),
    ({"model": "gpt2", "tokens": True}, "tokens: True is not a value of --tokens"),
    ({"model": "gpt2", "tokens": [1, 2]}, "is a list"),
    ({"model": "gpt2", "params": "1B", "tokens": "1B"}, "contradict each other"),
    ({"model": "gpt2", "tokens": "1B", "as_of": "yesterday"}, "not a date"),
    ({"config": "gpt2", "tokens": "1B"}, "'gpt2' is a model, not a file(.|\n)*model=\"gpt2\""),
    ({"model": "gpt2"}, "the length of the run is missing"),
]


@pytest.mark.parametrize(("keywords", "message"), REFUSED)
def test_mistakes_are_errors_with_a_remedy(keywords: dict[str, Any], message: str) -> None:
    for function in (gptplan.estimate, gptplan.plan):
        with pytest.raises(gptplan.InputError, match=message) as error:
            function(**keywords)
        assert "\n  fix: " in str(error.value)


def test_a_missing_file_is_an_error_of_files() -> None:
    with pytest.raises(gptplan.PlanError, match=r"run\.toml does not exist"):
        gptplan.estimate("run.toml")
    with pytest.raises(gptplan.PlanError, match="is not a run directory"):
        gptplan.compare("nowhere")


def test_repr_of_a_plan() -> None:
    """Each part is a number of the plan; unknown is written as unknown."""
    known = gptplan.estimate(model="gpt2", tokens="10B", tflops=100, price_per_gpu_hour=2, gpus=8, gpu="h100-80gb")
    hours = known.time.gpu_hours.value
    assert hours is not None and known.cost.usd.value == 2 * hours
    assert repr(known).startswith("<Plan gpt2 · 10B tokens · 8 × h100-80gb · fits · ")
    assert repr(known).endswith(f" min · {format_money(2 * hours)}>")
    assert "1 × a100-80gb (assumed)" in repr(gptplan.estimate(model="gpt2", tokens="10B"))
    unknown = gptplan.estimate(model="gpt2", tokens="10B", gpu="cpu")
    assert repr(unknown) == "<Plan gpt2 · 10B tokens · 1 × cpu · unknown whether it fits · time unknown · cost unknown>"
    assert "· does not fit ·" in repr(gptplan.estimate(params="70B", tokens="10B"))


def test_a_plan_is_the_library_s_plan() -> None:
    plan = gptplan.estimate(model="gpt2", tokens="10B")
    assert isinstance(plan, LibraryPlan) and not hasattr(plan, "__dict__")
    assert replace(plan) == plan and type(replace(plan)) is gptplan.Plan
    with pytest.raises(AttributeError):
        plan.tokens = plan.tokens  # type: ignore[misc]


class Cells(HTMLParser):
    """The texts of the table cells, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th", "caption"):
            self.cells[-1] += data


def test_html_of_a_plan_is_escaped() -> None:
    config = gptplan.plan(params="125M", tokens="10B", as_of=AS_OF)
    model = config.model.model_copy(update={"name": "<script>alert(1)</script>"})
    plan = gptplan.estimate(config.model_copy(update={"model": model}))
    page = Cells(plan._repr_html_())
    assert "script" not in page.tags and "<script>" in page.cells[0]
    assert "✓ fits" in page.cells
    for assumption in config.provenance.assumptions:
        assert assumption.source in page.cells
    for finding in gptplan.findings(plan):
        assert finding.message in page.cells
    assert "Findings" not in Cells(plan_html(plan, ())).cells


ROWS = (
    ComparisonRow("parameters", "1", 1000, 1000, 1.0, 0.0, "within"),
    ComparisonRow("saved.<mm>", "byte", 4, 8, 2.0, 0.0, "outside"),
    ComparisonRow("step_seconds", "s", None, 0.5, None, 0.1, "unknown", timing=True),
)


def _write_comparison(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = {
        "schema_version": 1,
        "device_name": "a <b>CPU</b>",
        "torch": "2.12",
        "basis": "profile",
        "rows": [asdict(row) for row in ROWS],
    }
    directory.mkdir(parents=True)
    (directory / "comparison.json").write_text(json.dumps(values))
    return values


def test_compare(call: Call, tmp_path: Path) -> None:
    values = _write_comparison(tmp_path / "run")
    found = gptplan.compare("run")
    assert found.to_dict() == values == json.loads(call("compare", "run", "--json").out)
    assert f"{found}\n" == call("compare", "run").out
    assert found.rows == ROWS and [row.key for row in found.outside(timing=False)] == ["saved.<mm>"]
    assert repr(found) == "<Comparison a <b>CPU</b> · 1 within · 1 outside · 1 unknown>"
    page = Cells(found._repr_html_())
    assert "b" not in page.tags and "mm" not in page.tags
    assert "saved.<mm>" in page.cells and "a <b>CPU</b>" in page.cells[0] and "✗ OUTSIDE" in page.cells


USER = """\
from pathlib import Path
import gptplan

plan: gptplan.Plan = gptplan.estimate(model="gpt2", tokens=10_000_000_000, tied=None)
seconds: float | None = plan.time.seconds.value
config: gptplan.RunConfig = gptplan.plan(Path("run.toml"), gpus=8)
keys: list[str] = [row.key for row in gptplan.compare("run").rows]
codes: list[str] = [finding.code for finding in gptplan.findings(plan)]
"""
MISTAKES = """\
gptplan.estimate(tokns="10B")
gptplan.nonsense
plan.time.second
"""


def test_users_see_types(tmp_path: Path) -> None:
    """mypy --strict accepts a user's script, and finds a wrong keyword, name and attribute."""
    (tmp_path / "user.py").write_text(USER + MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=540)
    found = [line.partition(" error: ")[2] for line in done.stdout.splitlines() if " error: " in line]
    assert [message.rpartition("[")[2] for message in found] == ["call-arg]", "attr-defined]", "attr-defined]"], done
    assert "tokns" in found[0] and "nonsense" in found[1] and "second" in found[2]
    assert len(done.stdout.splitlines()) <= 4, done.stdout  # a note may follow


def test_every_package_is_typed() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").read_bytes() == b""


def test_the_page_can_be_typed(tmp_path: Path) -> None:
    """docs/how-to/python.md: every session gives what is shown, and the script is one of names that there are."""
    page = (ROOT / "docs/how-to/python.md").read_text(encoding="utf-8")
    sessions = re.findall(r"```pycon\n(.*?)```", page, re.S)
    assert len(sessions) > 5
    runner = doctest.DocTestRunner(verbose=False)
    test = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, "python.md", "python.md", 0)
    report: list[str] = []
    assert runner.run(test, out=report.append).failed == 0, "".join(report)
    (script,) = re.findall(r"```python\n(.*?)```", page, re.S)
    _write_comparison(tmp_path / "runs/gpt2")
    names: dict[str, Any] = {"gptplan": gptplan}
    exec(compile(script, "python.md", "exec"), names)
    assert names["outside"] == ["saved.<mm>"]


def test_findings_say_what_makes_the_plan_fit() -> None:
    plan = gptplan.estimate(model="gemma-2-2b", tokens="1B", gpu="a100-80gb", micro_batch=1, seq=8192, as_of=AS_OF)
    first = gptplan.findings(plan)[0]
    assert (first.code, plan.memory.fits) == ("does_not_fit", False)
    assert first.remedy.startswith("--loss-kind fused --allocator expandable needs ")
