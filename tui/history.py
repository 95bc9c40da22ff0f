"""Undo and redo: the states of the form, one step per field that was edited."""

from __future__ import annotations

from planner.analysis.difference import changed_fields
from tui.session import FormState

_MOST_STEPS = 500  # steps that can be undone


class History:
    """The states before and after the present one. Keys typed into one field in a row are one step."""

    def __init__(self, present: FormState) -> None:
        self.present = present
        self._before: list[FormState] = []
        self._after: list[FormState] = []
        self._typing: str | None = None

    def record(self, form_state: FormState) -> None:
        """A new state; the undone states are dropped."""
        if form_state == self.present:
            return
        fields = changed_fields(self.present.flags, form_state.flags)
        field = fields[0] if len(fields) == 1 and form_state.session is self.present.session else None
        if field is None or field != self._typing:
            self._before = [*self._before, self.present][-_MOST_STEPS:]
        self.present, self._typing, self._after = form_state, field, []

    def close(self) -> None:
        """The next change is a step of its own, whatever field it is in."""
        self._typing = None

    def undo(self) -> FormState | None:
        """The state before, which is the present one from now on; None at the beginning."""
        return self._move(self._before, self._after)

    def redo(self) -> FormState | None:
        """The state that was undone last; None where nothing was."""
        return self._move(self._after, self._before)

    def _move(self, source: list[FormState], target: list[FormState]) -> FormState | None:
        if not source:
            return None
        target.append(self.present)
        self.present, self._typing = source.pop(), None
        return self.present
