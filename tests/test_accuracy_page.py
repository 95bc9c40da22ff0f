"""The page of accuracy names a cause for exactly the rows that lie outside their intervals."""

from __future__ import annotations

import pytest

from docs.accuracy_page import (
    causes,
    hours_outside,
    memory_outside,
    memory_scores,
    result,
    speed_classes,
    speed_outside,
)


@pytest.mark.parametrize(("table", "name"), [("speed", "speed_rows.json"), ("hours", "hours_rows.json")])
def test_every_row_outside_its_interval_has_one_cause_and_no_other_row_has(table: str, name: str) -> None:
    outside = [row["id"] for row in result(name)["outside"]]
    assert sorted(causes(table)) == sorted(outside)
    assert all(len(cause) > 20 for cause in causes(table).values())


def test_every_layout_that_is_off_and_every_wrong_verdict_has_one_cause() -> None:
    found = result("memory_rows.json")
    off = [row["id"] for row in found["layouts_outside"]]
    off += [row["id"] for row in found["wrong_verdicts"] if row["need"] is not None]
    assert sorted(causes("memory")) == sorted(off)
    assert all(f"| {id} |" in memory_outside() for id in off)
    assert all(f"| {group['source_group']} | {group['n']} |" in memory_scores() for group in found["groups"])


def test_the_page_shows_every_row_outside_and_every_class() -> None:
    for name, text in (("speed_rows.json", speed_outside()), ("hours_rows.json", hours_outside())):
        for row in result(name)["outside"]:
            assert f"| {row['id']} |" in text
    shown = speed_classes()
    for kind in ("gpu", "size", "sequence", "software", "layout"):
        for one in result("speed_rows.json")["by"][kind]:
            assert f"| {one['class']} | {one['n']} |" in shown


def test_the_results_are_of_one_fit() -> None:
    fit, used = result("fit_time.json"), result("speed_rows.json")
    scores = {group["source_group"]: group["median"] for group in used["groups"]}
    for group in fit["scores"]["fitted to all"]["groups"]:
        if group["n"] == next(g["n"] for g in used["groups"] if g["source_group"] == group["source_group"]):
            assert scores[group["source_group"]] == pytest.approx(group["median"], abs=0.005)  # constants are rounded
