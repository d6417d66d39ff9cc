"""Blocks on a Dask cluster: of this machine, of an address, or of a SLURM queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from ctflow.pipeline.blocks import BlockOutcome, BlockTask, Worker
from ctflow.pipeline.executors import TaskReport
from ctflow.pipeline.executors.processes import DIED, failed_block
from ctflow.pipeline.executors.threads import set_threads, usable_device
from ctflow.pipeline.job import Job

log = logging.getLogger(__name__)

# Workers that a block may take down before it counts as failed.
_ALLOWED_FAILURES = 2
# Blocks on the way to each worker, so that none waits for the next.
_AHEAD = 2


class DaskCluster:
    """See `Executor`.

    The workers open and write files themselves: they must see them under the same paths. A block that takes
    down its worker three times counts as failed. Workers may come and go meanwhile.
    """

    def __init__(self, job: Job, device: str) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise ImportError("dask is needed for executor dask: pip install 'ctflow[dask]'") from error
        self._job, self._device = job, device

    def outcomes(
        self, tasks: Iterator[BlockTask], stop: Callable[[], bool], report: TaskReport
    ) -> Iterator[BlockOutcome]:
        """Yield what became of each block; see `Executor`.

        Raises
        ------
        ConnectionError
            When the scheduler is lost; the parts that were written stay.
        """
        import dask
        from distributed import Client, KilledWorker, as_completed
        from distributed.client import FutureCancelledError

        settings = {"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES}
        with dask.config.set(settings), ExitStack() as stack:
            client: Client = stack.enter_context(Client(self._cluster(stack)))
            log.info("dashboard: %s", client.dashboard_link)
            waiting: dict[Any, BlockTask] = {}
            completed = as_completed()
            try:
                while True:
                    room = _AHEAD * max(1, len(client.ncores())) - len(waiting)
                    for _ in range(room):
                        if stop() or (task := next(tasks, None)) is None:
                            break
                        future = client.submit(_compute, self._job, self._device, task, pure=False)
                        waiting[future] = task
                        completed.add(future)
                    if not waiting:
                        return
                    future = next(completed)
                    task = waiting.pop(future)
                    try:
                        yield future.result()
                    except KilledWorker:
                        yield failed_block(self._job, task, DIED)
            except (FutureCancelledError, OSError) as error:
                raise ConnectionError(f"the Dask scheduler was lost ({error}); run the job again") from error

    def _cluster(self, stack: ExitStack) -> Any:
        settings = self._job.dask
        if settings.address is not None:
            return settings.address
        if settings.slurm is not None:
            return stack.enter_context(slurm_cluster(self._job))
        from distributed import LocalCluster

        cluster = LocalCluster(
            n_workers=self._job.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=f"127.0.0.1:{settings.dashboard}",
            silence_logs=logging.ERROR,
        )
        return stack.enter_context(cluster)


def slurm_cluster(job: Job) -> Any:
    """A cluster of SLURM jobs, scaled to the job's workers; ImportError in one line without dask-jobqueue."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ImportError("dask-jobqueue is needed for slurm: pip install 'ctflow[dask]'") from error
    cluster = SLURMCluster(**(job.dask.slurm or {}))
    cluster.scale(n=job.workers or 1)
    return cluster


# Of a worker process: what it was made for, and the worker.
_prepared: tuple[Job, Worker] | None = None


def _compute(job: Job, device: str, task: BlockTask) -> BlockOutcome:
    global _prepared
    if _prepared is None or _prepared[0] != job:
        from distributed import get_worker

        name = str(get_worker().name)
        set_threads(job.fixed_threads)
        _prepared = (job, Worker(job, usable_device(device, int(name) if name.isdigit() else 0)))
    return _prepared[1].compute(task)
