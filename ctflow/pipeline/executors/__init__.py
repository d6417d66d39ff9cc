"""Who computes the blocks: this process, several of this machine, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ctflow.pipeline.blocks import BlockOutcome, BlockTask
from ctflow.pipeline.job import Job

# Tells how much of a block is done, 0 to 1, where that is known before its end.
TaskReport = Callable[[BlockTask, float], None]


class Executor(Protocol):
    """Computes blocks in any order.

    Tasks are taken from the iterator as there is room for them, and none once `stop` is true; those in hand
    are finished.
    """

    def outcomes(
        self, tasks: Iterator[BlockTask], stop: Callable[[], bool], report: TaskReport
    ) -> Iterator[BlockOutcome]:
        """Yield what became of each block as soon as it is known."""
        ...


def executor_of(job: Job, device: str) -> Executor:
    """The executor that a job asks for; ImportError in one line where its package is missing."""
    if job.executor == "processes":
        from ctflow.pipeline.executors.processes import Processes

        return Processes(job, device)
    if job.executor == "dask":
        from ctflow.pipeline.executors.dask_cluster import DaskCluster

        return DaskCluster(job, device)
    from ctflow.pipeline.executors.serial import Serial

    return Serial(job, device)
