"""Workers that do not hear the terminal's Ctrl-C, which goes to every process of a job at once.

The process that was started hears it, and lets them finish the blocks in hand. Dask loads this module in its
workers, and calls `dask_setup`.
"""

from __future__ import annotations

import signal


def ignore_interrupts() -> None:
    """Leave SIGINT to others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def dask_setup(worker: object) -> None:
    """What Dask calls once for each worker."""
    ignore_interrupts()
