"""The actions on a run: key, method of the tab Run, title, sentence."""

from __future__ import annotations

RUN_KEYS = (
    ("n", "start", "New run", "Train the plan in the form"),
    ("a", "attach", "Attach", "Follow an existing run"),
    ("d", "detach", "Detach", "Stop following the run: it continues, also after the planner is closed"),
    ("x", "stop", "Stop", "Stop the run after the current step, with a checkpoint; press again to kill it"),
    ("k", "checkpoint", "Checkpoint", "Write a checkpoint after the current step"),
    ("r", "resume", "Resume", "Continue a stopped run from its last checkpoint"),
)
