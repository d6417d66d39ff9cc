"""Stopping between two blocks when the user or the machine asks for it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Interruption:
    """Whether to stop after the blocks in hand.

    Attributes
    ----------
    signal
        The signal that asked for it, or 0.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Take SIGINT and SIGTERM as the wish to stop after the block in hand, while in the context.

    The second one stops at once, by KeyboardInterrupt. Outside the main thread, where Python knows no
    signals, nothing changes.
    """
    stop = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number
        # The terminal may be gone.
        with suppress(OSError):
            sys.stderr.write("stopping after the block in hand; once more stops at once\n")
            sys.stderr.flush()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
