"""The actions of the planner: one table for the keys, the footer, the palette and the list of keys."""

from __future__ import annotations

from typing import NamedTuple

from textual.binding import Binding, BindingType


class Action(NamedTuple):
    """A key or several, the method behind it, its short name, a sentence; `footer`: always shown."""

    keys: str
    method: str
    title: str
    sentence: str
    footer: bool = True

    def spelled(self) -> str:
        """The names of the keys, as in Ctrl+S."""
        return ", ".join(spell_key(key) for key in self.keys.split(","))


# in the footer's order, which is cut at the width of the terminal: the key to all the others comes first
ACTIONS = (
    Action("question_mark", "keys", "Keys", "Every key and what it does"),
    Action("f1", "help", "Help", "Help for the focused field"),
    Action("f2", "show_results", "Results", "Show the results (below 100 columns one pane is shown at a time)"),
    Action("f2", "show_form", "Form", "Show the form (below 100 columns one pane is shown at a time)"),
    Action("ctrl+o", "jump", "Jump", "Letters over tabs, groups and fields: press one to go there"),
    Action("f6", "pin", "Pin", "Compare the next plans with this one; again: unpin"),
    Action("ctrl+s", "save", "Save", "Write the configuration of this plan as run.toml"),
    Action("ctrl+l", "open", "Open", "Start from another run.toml", False),
    Action("ctrl+e", "export", "Export", "Write this plan as JSON or Markdown", False),
    Action("ctrl+y", "copy_command", "Copy command", "Copy the gptplan estimate command of this plan", False),
    Action("ctrl+z", "undo", "Undo", "Undo the last change of the form", False),
    Action("ctrl+r,ctrl+shift+z", "redo", "Redo", "Redo the last undone change", False),
    Action("f8", "next_tab", "Next tab", "Show the next tab of the results", False),
    Action("f7", "previous_tab", "Previous tab", "Show the previous tab", False),
    Action("ctrl+q", "quit", "Quit", "Leave the planner"),
)
ONE_PANE = ("show_results", "show_form")  # of which at most one is possible


def bindings() -> list[BindingType]:
    """The table for Textual. Priority: a key of the program does the same in every field."""
    return [
        Binding(a.keys, a.method, a.title, show=a.footer, priority=a.keys != "question_mark")
        for a in ACTIONS
    ]  # fmt: skip


def spell_key(key: str) -> str:
    """`ctrl+shift+z` as Ctrl+Shift+Z, `question_mark` as ?."""
    return "+".join("?" if part == "question_mark" else part.capitalize() for part in key.split("+"))
