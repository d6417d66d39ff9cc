"""Progress on a terminal as a bar, elsewhere as plain lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        _write(printable(record.getMessage()))


def _write(line: str) -> None:
    """A line on the standard error; none where it cannot be written, for which no job is to end."""
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    count = TextColumn("{task.completed:.4g} of {task.total:.0f} slices")
    columns = (TextColumn("{task.description}"), BarColumn(), count, TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        # One bar for all files, of which there may be thousands.
        task = bar.add_task("", total=1, rate="")

        def advance(progress: Progress) -> None:
            known = bar.tasks[0]
            if progress.slices_in_all != known.total or progress.done_in_all < known.completed:
                # What was there before says nothing about the speed; a comparison starts again and again.
                bar.reset(task, total=progress.slices_in_all, completed=int(progress.done_in_all))
            bar.update(task, description=printable(progress.file.name), completed=progress.done_in_all)
            bar.update(task, rate=f"{60 * known.speed:.3g} a minute" if known.speed else "")

        yield advance


def _lines() -> Callable[[Progress], None]:
    """Lines of what is done, how fast, and how long it will take: after each block, and every 10 s within."""
    first: tuple[float, float] | None = None
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal first, last
        now = time.monotonic()
        if first is None or progress.done_in_all < first[1]:
            first = (now, progress.done_in_all)
        finished = progress.done >= progress.slices
        # After the last block the file's own line follows.
        if now - last > _PAUSE or (progress.block is not None and not finished):
            last = now
            line = f"{printable(progress.file.name)}: {progress.done:.4g} of {progress.slices} slices"
            if progress.slices_in_all > progress.slices:
                line += f" ({progress.done_in_all:.4g} of {progress.slices_in_all} in all)"
            rate = (progress.done_in_all - first[1]) / max(now - first[0], 1e-9)
            if rate > 0 and progress.done_in_all < progress.slices_in_all:
                left = (progress.slices_in_all - progress.done_in_all) / rate
                line += f", {60 * rate:.3g} a minute, {_duration(left)} left"
            _write(line)

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
            _write(f"{100 * run.progress():5.1f} %  step {run.step}  loss {mean:.4f}")

    return say
