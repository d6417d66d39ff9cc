"""Blocks one after another in this process, while the next is read and the last is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ctflow.pipeline.blocks import BlockOutcome, BlockTask, Worker
from ctflow.pipeline.executors import TaskReport
from ctflow.pipeline.executors.threads import threads
from ctflow.pipeline.job import Job
from ctflow.problem import InverseProblem


class Serial:
    """See `Executor`."""

    def __init__(self, job: Job, device: str) -> None:
        self._worker, self._threads = Worker(job, torch.device(device)), job.fixed_threads

    def outcomes(
        self, tasks: Iterator[BlockTask], stop: Callable[[], bool], report: TaskReport
    ) -> Iterator[BlockOutcome]:
        """Yield what became of each block; see `Executor`."""
        worker = self._worker
        with (
            threads(self._threads),
            ThreadPoolExecutor(1, "reading") as reading,
            ThreadPoolExecutor(1, "writing") as writing,
        ):
            ahead: tuple[BlockTask, Future[InverseProblem | Exception]] | None = None
            written: Future[BlockOutcome] | None = None
            while True:
                if ahead is None and (first := _next(tasks, stop)) is not None:
                    ahead = (first, reading.submit(worker.read, first))
                if ahead is None:
                    break
                task, problem = ahead[0], ahead[1].result()
                following = _next(tasks, stop)
                ahead = None if following is None else (following, reading.submit(worker.read, following))
                part = worker.solve(task, problem, lambda done, task=task: report(task, done))  # type: ignore[misc]
                # One block waits to be written at most, so that memory does not grow.
                if written is not None:
                    yield written.result()
                written = writing.submit(worker.write, task, part)
                if stop() and ahead is not None:
                    ahead[1].cancel()
                    break
            if written is not None:
                yield written.result()


def _next(tasks: Iterator[BlockTask], stop: Callable[[], bool]) -> BlockTask | None:
    return None if stop() else next(tasks, None)
