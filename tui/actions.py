"""What the planner can do: one table, from which the keys, the footer, the palette and the list of keys are made."""

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
        """The keys as people write them."""
        return ", ".join(spell_key(key) for key in self.keys.split(","))


# in the footer's order, which ends where the terminal does: the way to all the others comes first
ACTIONS = (
    Action("question_mark", "keys", "Keys", "Every key and what it does"),
    Action("f1", "help", "Help", "What may be typed into the field at hand"),
    Action("f2", "show_results", "Results", "Show the results (below 100 columns one pane is seen at a time)"),
    Action("f2", "show_form", "Form", "Show the form (below 100 columns one pane is seen at a time)"),
    Action("ctrl+o", "jump", "Jump", "Letters over tabs, groups and fields: press one to go there"),
    Action("f6", "pin", "Pin", "Keep this plan beside the next ones; again: let it go"),
    Action("ctrl+s", "save", "Save", "Write the configuration of this plan as run.toml"),
    Action("ctrl+l", "open", "Open", "Start from another run.toml", False),
    Action("ctrl+e", "export", "Export", "Write this plan as JSON or Markdown", False),
    Action("ctrl+y", "copy_command", "Copy command", "gptplan estimate with the same fields", False),
    Action("ctrl+z", "undo", "Undo", "Take back the last change of the form", False),
    Action("ctrl+r,ctrl+shift+z", "redo", "Redo", "Make the change again that was taken back", False),
    Action("f8", "next_tab", "Next tab", "Show the next tab of the results", False),
    Action("f7", "previous_tab", "Tab before", "Show the tab before", False),
    Action("ctrl+q", "quit", "Quit", "Leave the planner"),
)
ONE_PANE = ("show_results", "show_form")  # of which at most one is possible


def bindings() -> list[BindingType]:
    """The table for Textual. Priority: a key of the program means the same in every field."""
    return [
        Binding(a.keys, a.method, a.title, show=a.footer, priority=a.keys != "question_mark")
        for a in ACTIONS
    ]  # fmt: skip


def spell_key(key: str) -> str:
    """`ctrl+shift+z` as Ctrl+Shift+Z, `question_mark` as ?."""
    return "+".join("?" if part == "question_mark" else part.capitalize() for part in key.split("+"))
