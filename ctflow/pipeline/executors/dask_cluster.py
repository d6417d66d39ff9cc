"""Blocks on a Dask cluster: of this machine, of an address, or of a SLURM queue."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from ctflow.pipeline.blocks import BlockOutcome, BlockTask, Worker
from ctflow.pipeline.executors import TaskReport, deafness
from ctflow.pipeline.executors.processes import DIED, failed_block
from ctflow.pipeline.executors.threads import set_threads, usable_device
from ctflow.pipeline.job import Job

log = logging.getLogger(__name__)

# Workers that a block may take down before it counts as failed.
_ALLOWED_FAILURES = 2
# Blocks on the way to each worker, so that none waits for the next.
_AHEAD = 2
# Seconds of silence after which it is asked whether to stop.
_PATIENCE = 1.0


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
        from distributed import Client, KilledWorker
        from distributed.client import FutureCancelledError

        settings = {"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES}
        with dask.config.set(settings), ExitStack() as stack:
            client: Client = stack.enter_context(Client(self._cluster(stack)))
            log.info("dashboard: %s", client.dashboard_link)
            waiting: dict[Any, BlockTask] = {}
            completed: SimpleQueue[Any] = SimpleQueue()
            try:
                while True:
                    room = _AHEAD * max(1, len(client.ncores())) - len(waiting)
                    for _ in range(room):
                        if stop() or (task := next(tasks, None)) is None:
                            break
                        future = client.submit(_compute, self._job, self._device, task, pure=False)
                        waiting[future] = task
                        future.add_done_callback(completed.put)
                    if not waiting:
                        return
                    finished: Any = None
                    try:
                        finished = completed.get(timeout=_PATIENCE)
                        outcome = finished.result(timeout=_PATIENCE)
                    except Empty:
                        pass
                    except TimeoutError:
                        # What it gave was lost with its worker, and another computes it again.
                        finished.add_done_callback(completed.put)
                        finished = None
                    except KilledWorker:
                        outcome = failed_block(self._job, waiting[finished], DIED)
                    if finished is not None:
                        del waiting[finished]
                        yield outcome
                    elif stop() and not client.ncores():
                        # Nobody is left to finish what is in hand.
                        return
            except (FutureCancelledError, OSError) as error:
                raise ConnectionError(f"the Dask scheduler was lost ({error}); run the job again") from error

    def _cluster(self, stack: ExitStack) -> Any:
        settings = self._job.dask
        if settings.address is not None:
            return settings.address
        if settings.slurm is not None:
            cluster = stack.enter_context(slurm_cluster(self._job, self._device))
            cluster.scale(n=self._job.processes)
            return cluster
        from distributed import LocalCluster

        cluster = LocalCluster(
            n_workers=self._job.processes,
            threads_per_worker=1,
            processes=True,
            dashboard_address=f"127.0.0.1:{settings.dashboard}",
            preload=[deafness.__name__],
            silence_logs=logging.ERROR,
        )
        return stack.enter_context(cluster)


def slurm_cluster(job: Job, device: str) -> Any:
    """A cluster of SLURM jobs that are yet to be submitted.

    Each job runs one process on a GPU, or as many as its cores are good for on the CPU, unless the settings
    say `processes`.

    Raises
    ------
    ValueError
        In one line, for settings that dask_jobqueue.SLURMCluster does not take.
    ImportError
        In one line, without dask-jobqueue.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ImportError("dask-jobqueue is needed for slurm: pip install 'ctflow[dask]'") from error
    import dask

    settings = dict(job.dask.slurm or {})
    cores = settings.get("cores", dask.config.get("jobqueue.slurm.cores", None))
    if not isinstance(cores, int):
        raise ValueError(f"dask: slurm: cores: expected a whole number, found {cores!r}")
    each = cores if device.startswith("cuda") else job.fixed_threads
    settings.setdefault("processes", max(1, cores // each))
    # A process computes one block at a time, in as many threads as the job says.
    settings["worker_extra_args"] = [*settings.get("worker_extra_args", ()), "--nthreads", "1"]
    # Whoever looks at the dashboard sits at another machine.
    place = {"dashboard_address": f":{job.dask.dashboard}"}
    settings["scheduler_options"] = place | dict(settings.get("scheduler_options", {}))
    try:
        return SLURMCluster(**settings)
    except (TypeError, ValueError) as error:
        first, *_ = str(error).split(". ")
        raise ValueError(f"dask: slurm: {' '.join(first.split())}") from error


# Of a worker process: what it was made for, and the worker.
_prepared: tuple[Job, Worker] | None = None
# Processes of a cluster that somebody else started may run several tasks at once.
_one_at_a_time = Lock()


def _compute(job: Job, device: str, task: BlockTask) -> BlockOutcome:
    global _prepared
    with _one_at_a_time:
        if _prepared is None or _prepared[0] != job:
            from distributed import get_worker

            set_threads(job.fixed_threads)
            _prepared = (job, Worker(job, usable_device(device, worker_index(str(get_worker().name)))))
        return _prepared[1].compute(task)


def worker_index(name: str) -> int:
    """Which of the workers that share a machine: the number that Dask gave it at the end of its name, or 0.

    Names are numbers on a cluster of this machine, and end in one on SLURM; others are addresses.
    """
    number = re.search(r"(?:^|-)(\d+)$", name)
    return int(number[1]) if number else 0
