"""The command `cowest`: quiet when it is interrupted while it still imports.

Knows signals, and where the command line is.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line; an early Ctrl-C ends it with one line and the usual exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from trainer.cli import main as run

    run()


def _end(number: int, _: FrameType | None) -> None:
    sys.stderr.write("interrupted; nothing was begun\n")
    sys.stderr.flush()
    os._exit(128 + number)
