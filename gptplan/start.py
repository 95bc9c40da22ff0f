"""Where the program begins: Ctrl-C is quiet before anything that takes time is imported."""

from __future__ import annotations

import signal


def start() -> None:
    """Run the program. While it is imported, Ctrl-C ends it at once: 130 in a shell, no traceback, nothing to tidy up.

    What comes before this call, Python's own start, is not ours. A signal that is ignored stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gptplan.app import main  # 0.1 s: typer

    main()
