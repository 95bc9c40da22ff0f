"""Published layouts against a search: the smallest is searched again, and the record has every published one."""

from __future__ import annotations

import json

import pytest

from benchmarks.layouts import RESULT, WITHIN, compared, published, recorded, table_of


def test_the_first_published_layout_has_the_recorded_ratio() -> None:
    found, kept = compared(*published()[0]), json.loads(RESULT.read_text(encoding="utf-8"))["layouts"][0]
    assert found["winner"]["step_seconds"] <= found["published"]["step_seconds"]
    assert found["ratio"] == pytest.approx(kept["ratio"], rel=0.02)
    assert (found["winner"]["tp"], found["winner"]["pp"]) == (kept["winner"]["tp"], kept["winner"]["pp"])


def test_a_layout_that_may_fit_is_said_to() -> None:
    table, row = next(pair for pair in published() if pair[1].get("typed", {}).get("cp") == 16)
    found = compared(table, row)
    assert found["published"]["open"] and found["published"]["cp"] == 16
    assert f"tp {row['tp']}, pp {row['pp']}, cp 16 (may fit)" in table_of({"layouts": [found]})


def test_every_published_layout_is_recorded_and_counted() -> None:
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["layouts"]
    assert [row["model"] for row in rows] == [layout["model"] for _, layout in published()]
    near = sum(row["ratio"] <= 1 + WITHIN for row in rows)
    assert f"{near} of {len(rows)} are within" in recorded()
    slower = {**rows[0], "ratio": 1.2}
    assert "0 of 1 are within" in table_of({"layouts": [slower]})
