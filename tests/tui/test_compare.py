"""The tab Compare: predicted and measured numbers of finished runs."""

from __future__ import annotations

import json
from dataclasses import asdict

from planner.report.comparison import comparison_within
from planner.runs.comparison import Comparison, ComparisonRow
from tui.watched import remember

ROWS = (
    ComparisonRow("parameters", "1", 34688, 34688, 1.0, 0.0, "within"),
    ComparisonRow("step_seconds", "s", 0.004, 0.017, 4.25, 0.1, "outside", timing=True),
    ComparisonRow("peak_allocated_bytes", "byte", None, None, None, 0.02, "unknown"),
)
COMPARISON = Comparison(1, "a processor", "2.0", "profile", ROWS)


def finished(directory):
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text("")
    (directory / "comparison.json").write_text(json.dumps(asdict(COMPARISON)))
    (directory / "post-mortem.md").write_text(f"# Post-mortem of {directory.name}\n\n1. {'slow ' * 40}\n\n| a | b |\n")


def test_runs_are_found_chosen_and_typed(planner_app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "runs/one")
    finished(tmp_path / "far/off/away")
    (tmp_path / "runs/two").mkdir()
    (tmp_path / "runs/two/config.toml").write_text("")

    async def play(user):
        if user.app.size.width < 100:
            await user.press("f2")
        await user.open("compare")
        text = user.text("#compared")
        assert (
            "runs/one" in user.seen() and "✓ parameters" in text and "✗ step_seconds" in text and "? peak_all" in text
        )
        assert text.index("✗") < text.index("✓ parameters")  # what is wrong is read first
        assert "Post-mortem of one" in text and "✗ step_seconds" in user.seen()
        assert [o.id for o in user.app.query_one("#compare-runs").options] == ["runs/one"]
        place = user.app.query_one("#compare-path")
        for name, message in (("far/off/away", "Post-mortem of away"), ("runs/two", "has no comparison.json"),
                            ("nowhere", "does not exist")):  # fmt: skip
            place.focus()
            place.value = name
            await user.press("enter")
            assert message in user.text("#compared")
        (tmp_path / "runs/one/comparison.json").write_text("{")
        place.value = "runs/one"
        await user.press("enter")
        assert "is damaged" in user.text("#compared")
        (tmp_path / "runs/one/comparison.json").write_text(json.dumps(asdict(COMPARISON)))
        await user.press("f1")
        assert "gptplan postmortem" in user.seen()
        await user.press("escape")

    for size in ((120, 40), (60, 20)):
        planner_app(play, size=size)


def test_a_run_that_was_watched_elsewhere_is_remembered(planner_app, tmp_path, monkeypatch):
    finished(tmp_path / "else/where")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    async def play(user):
        await user.open("compare")
        assert "No finished run" in user.text("#compared")
        remember(tmp_path / "else/where")
        remember(tmp_path / "not/there")
        await user.open("summary")
        await user.open("compare")  # shown again, it looks again
        assert [o.id for o in user.app.query_one("#compare-runs").options] == [str(tmp_path / "else/where")]
        assert "✗ step_seconds" in user.text("#compared")

    planner_app(play)


def test_without_a_finished_run_a_message_says_what_to_do(planner_app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def play(user):
        await user.open("compare")
        assert "No finished run" in user.text("#compared")

    planner_app(play)


def test_the_table_fits_any_width():
    for width in (34, 50, 60, 75, 120):
        lines = comparison_within(COMPARISON, width).splitlines()
        assert max(map(len, lines)) <= width, (width, lines)
        assert [line[0] for line in lines if line[:1] in "✓✗?" and line] == ["✗", "?", "✓"]
