"""`make fuzz`: what its report says of each property."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from benchmarks import fuzz
from benchmarks.header import ROOT

REPORT = """<testsuites><testsuite>
<testcase classname="tests.b" name="holds" time="1.26"/>
<testcase classname="tests.a" name="breaks" time="0.5"><failure message="x"/><system-out/></testcase>
<testcase classname="tests.a" name="hangs" time="3"><error message="x"/></testcase>
<testcase classname="tests.c" name="left[1]" time="0"><skipped message="x"/></testcase>
</testsuite></testsuites>"""


def test_each_property_has_its_outcome() -> None:
    found = fuzz.outcomes(REPORT)
    assert found["properties"] == 4 and found["failed"] == ["tests.a.breaks", "tests.a.hangs"]
    assert [row["outcome"] for row in found["outcomes"]] == ["failure", "error", "passed", "skipped"]
    assert found["outcomes"][2] == {"property": "tests.b.holds", "outcome": "passed", "seconds": 1.3}


@pytest.mark.parametrize("holds", [True, False])
def test_a_property_is_tried_many_times_and_its_failure_is_the_exit_code(holds: bool, tmp_path: Path) -> None:
    """In a folder of its own, with a property that counts its examples."""
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\nfrom hypothesis import given, strategies\nfrom tests.examples import examples\n"
        "seen = set()\n"
        "@examples(3)\n@given(strategies.integers(0, 10**9))\n"
        f"def test_counted(n):\n    seen.add(n); Path({str(tmp_path / 'seen')!r}).write_text(str(len(seen)))\n"
        f"    assert {holds}\n"
        "def test_no_property():\n    assert False\n"
    )
    words = ["--times", "7", "--json", str(tmp_path / "out.json"), "-n0", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if holds else 1), done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["times"] == 7 and found["properties"] == 1 and bool(found["failed"]) != holds
    assert next(iter(found)) == "header"
    if holds:
        assert int((tmp_path / "seen").read_text()) >= 18  # of 21, some may be equal


def test_no_property_has_a_deadline() -> None:
    """Also those that do not say how many examples they are tried with: a busy machine is no failure."""
    assert settings().deadline is None and HealthCheck.too_slow in settings().suppress_health_check
