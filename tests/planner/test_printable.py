"""Text from files in messages: no terminal executes it, and no value fills the screen."""

from __future__ import annotations

import pytest

from planner.errors import PlanError, UnknownNameError
from planner.printable import MOST_IN_ALL, message_text, printable, shortened


@pytest.mark.parametrize(
    "bad",
    ["\x1b[2J", "\x07", "\r", "\b", "\x9b31m", "\x00", "\u202e", "\u2066", "\u2028", "\udcff", "\x7f", "\ufeff"],
)
def test_what_a_terminal_would_execute_is_replaced(bad: str) -> None:
    for shown in (printable(f"a{bad}b"), PlanError(f"a{bad}b", f"a{bad}b", f"a{bad}b").message()):
        assert bad[0] not in shown and "\ufffd" in shown
        shown.encode()  # half of a surrogate pair has no bytes


def test_letters_of_all_scripts_stay() -> None:
    text = "größer · 10 × ≤ 日本語 العربية 🙂 a\u200db\n\tc\u00a0d"
    assert printable(text) == text == message_text(text)


def test_a_quoted_value_keeps_eighty_characters() -> None:
    for quoted in (repr("x" * 500), repr("it's " + "y" * 500), repr('"' + "z" * 500), repr("\\" * 400)):
        message = UnknownNameError("GPU", "a", []).with_note(f"it has {quoted} in it").message()
        assert max(map(len, message.split(" in it")[0].split("it has "))) <= 85 and "…" in message
    kept = f"name {'x' * 80!r} and the run's own, 'short' one; pip install 'gptplan[all]'; it's the user's"
    assert message_text(kept) == kept
    apart = "the run's first step and " + "so on " * 30 + "until the run's last"
    assert message_text(apart) == apart  # apostrophes quote nothing


def test_a_path_is_whole_and_a_megabyte_is_not() -> None:
    path = "/home/somebody/" + "folder/" * 25 + "run.toml"
    assert message_text(f"{path!r} is a directory; {path} too") == f"{path!r} is a directory; {path} too"
    assert len(PlanError(f"{'x' * 10**6} does not exist", repr("y" * 10**6), "z " * 10**6).message()) < 2 * MOST_IN_ALL


def test_what_is_shortened_keeps_both_ends() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("a" + "x" * 500 + "z") == "a" + "x" * 51 + "…" + "x" * 26 + "z"
    assert all(len(shortened("abcdefgh", most)) == most for most in range(1, 8))
