"""Every picture is drawn by the command, is on the page, and shows what its name says."""

from __future__ import annotations

import re

from docs.looks import HERE, LOOKS

WORDS = {"memory-too-much": "does&#160;not&#160;fit", "pinned": "difference", "schedule": "cooldown", "jump": "Summary"}


def test_every_picture_is_there_and_on_the_page():
    page = (HERE / "looks.md").read_text(encoding="utf-8")
    named = re.findall(r"\((\S+)\.svg\)", page)
    assert sorted(named) == sorted(look.name for look in LOOKS) == sorted(p.stem for p in HERE.glob("*.svg"))
    for look in LOOKS:
        text = (HERE / f"{look.name}.svg").read_text(encoding="utf-8")
        assert "cdnjs" not in text and WORDS.get(look.name, "") in text, look.name
