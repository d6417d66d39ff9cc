"""Progress on a terminal as a bar, elsewhere as plain lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ctflow.io.errors import printable

if TYPE_CHECKING:
    from ctflow.flows.training import Training
    from ctflow.pipeline.running import Progress

# Seconds between two plain lines.
_PAUSE = 10.0


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """A function that shows the progress of a job on the standard error, while in the context.

    What an executor logs meanwhile, such as where the dashboard of its cluster is, is shown there too.
    """
    log, handler = logging.getLogger("ctflow.pipeline.executors"), _Lines()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with _shown() as progress:
            yield progress
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Lines(logging.Handler):
    """Lines on what is the standard error at the time, which a bar replaces while it is there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(f"{printable(record.getMessage())}\n")
        sys.stderr.flush()


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    count = TextColumn("{task.completed:.4g} of {task.total:.0f} slices")
    columns = (TextColumn("{task.description}"), BarColumn(), count, TextColumn("{task.fields[rate]}"))
    tasks: dict[object, TaskID] = {}
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:

        def advance(progress: Progress) -> None:
            if progress.file not in tasks:
                tasks[progress.file] = bar.add_task(progress.file.name, total=progress.slices, rate="")
            bar.update(tasks[progress.file], completed=progress.done)
            speed = bar.tasks[tasks[progress.file]].speed
            bar.update(tasks[progress.file], rate=f"{60 * speed:.3g} a minute" if speed else "")

        yield advance


def _lines() -> Callable[[Progress], None]:
    """Lines of what is done, how fast, and how long it will take: after each block, and every 10 s within."""
    first: dict[object, tuple[float, float]] = {}
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        start, done_before = first.setdefault(progress.file, (now, progress.done))
        finished = progress.done >= progress.slices
        # After the last block the file's own line follows.
        if now - last > _PAUSE or (progress.block is not None and not finished):
            last = now
            line = f"{progress.file.name}: {progress.done:.4g} of {progress.slices} slices"
            rate = (progress.done - done_before) / max(now - start, 1e-9)
            if rate > 0 and not finished:
                left = (progress.slices - progress.done) / rate
                line += f", {60 * rate:.3g} a minute, {_duration(left)} left"
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    return say


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def training_lines() -> Callable[[Training, float], None]:
    """A function that writes how far a training is, now and then, to the standard error."""
    last, losses = time.monotonic(), list[float]()

    def say(run: Training, loss: float) -> None:
        nonlocal last
        losses.append(loss)
        if time.monotonic() - last > _PAUSE:
            last = time.monotonic()
            mean = sum(losses) / len(losses)
            losses.clear()
            sys.stderr.write(f"{100 * run.progress():5.1f} %  step {run.step}  loss {mean:.4f}\n")
            sys.stderr.flush()

    return say
