"""What can be done to a run: key, method of the tab Run, title, sentence."""

from __future__ import annotations

RUN_KEYS = (
    ("n", "start", "New run", "Start the trainer on the plan in the form"),
    ("a", "attach", "Attach", "Follow a run that is there already"),
    ("d", "detach", "Detach", "Leave the run alone: it goes on, also when the planner is closed"),
    ("x", "stop", "Stop", "Stop the run after its step, with a checkpoint; again: kill it, after a question"),
    ("k", "checkpoint", "Checkpoint", "Ask the run for a checkpoint now"),
    ("r", "resume", "Resume", "Continue a run that was stopped, from its last checkpoint"),
)
