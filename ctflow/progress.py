"""Progress on a terminal as a bar, elsewhere as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctflow.flows.training import Training
    from ctflow.pipeline.blocks import Progress

# Seconds between two plain lines.
_PAUSE = 10.0


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """A function that shows the progress of a job on the standard error, while in the context."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    tasks: dict[object, TaskID] = {}
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:

        def advance(progress: Progress) -> None:
            if progress.file not in tasks:
                tasks[progress.file] = bar.add_task(progress.file.name, total=progress.slices)
            bar.update(tasks[progress.file], completed=progress.done)

        yield advance


def _lines() -> Callable[[Progress], None]:
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > _PAUSE:
            last = time.monotonic()
            done = f"{progress.done:.1f} of {progress.slices} slices"
            sys.stderr.write(f"{progress.file.name}: {done}\n")
            sys.stderr.flush()

    return say


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
