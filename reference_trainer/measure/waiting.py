"""How long threads of this process waited for a processor that other work had: the kernel of Linux counts it.

Times that other work stretched evenly look like those of a slower machine: they do not scatter. What a thread waited
tells them apart.
"""

from __future__ import annotations

from pathlib import Path

Waits = dict[str, int]  # of each thread, nanoseconds since it began

TASKS = Path("/proc/self/task")


def waits_of_threads(tasks: Path = TASKS) -> Waits | None:
    """Nanoseconds that each thread was ready to run and no processor took it; None where the system does not count.

    Source: Linux, Documentation/scheduler/sched-stats.rst: the second number of schedstat.
    """
    found = {}
    try:
        for task in tasks.iterdir():
            found[task.name] = int((task / "schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):  # no such file, a thread that just ended, another format
        return None
    return found


def longest_wait(before: Waits | None, after: Waits | None) -> float | None:
    """Seconds between two readings that the thread waited which waited most; None where one is unknown."""
    if before is None or after is None:
        return None
    return max((after[name] - before.get(name, 0) for name in after), default=0) / 1e9
