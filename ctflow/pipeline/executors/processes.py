"""Blocks in several processes of this machine; one that dies takes its block with it, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from ctflow.pipeline.blocks import BlockOutcome, BlockTask, Worker
from ctflow.pipeline.executors import TaskReport
from ctflow.pipeline.executors.deafness import ignore_interrupts
from ctflow.pipeline.executors.threads import set_threads, usable_device
from ctflow.pipeline.job import Job

DIED = "the process that computed it died (killed, or out of memory)"
_worker: Worker | None = None


class Processes:
    """See `Executor`.

    Each process holds one block at a time and opens files itself. When one dies, those that were being
    computed are computed again, each alone, so that the one that kills its process is found; it counts as
    failed.
    """

    def __init__(self, job: Job, device: str) -> None:
        self._job, self._device = job, device
        self._workers = job.processes

    def outcomes(
        self, tasks: Iterator[BlockTask], stop: Callable[[], bool], report: TaskReport
    ) -> Iterator[BlockOutcome]:
        """Yield what became of each block; see `Executor`."""
        suspects: deque[BlockTask] = deque()
        while True:
            running: dict[Future[BlockOutcome], BlockTask] = {}
            alone = False
            pool = self._pool()
            try:
                while True:
                    while len(running) < self._workers and not alone and not stop():
                        if suspects:
                            if running:
                                break
                            task, alone = suspects.popleft(), True
                        elif (following := next(tasks, None)) is not None:
                            task = following
                        else:
                            break
                        running[pool.submit(_compute, task)] = task
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del running[future]
                        alone = False
                        yield outcome
            except BrokenProcessPool:
                if alone:
                    yield self._dead(next(iter(running.values())))
                else:
                    suspects.extend(running.values())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        counter = context.Value("i", 0)
        arguments = (self._job, self._device, counter)
        return ProcessPoolExecutor(self._workers, context, _start, arguments)

    def _dead(self, task: BlockTask) -> BlockOutcome:
        return failed_block(self._job, task, DIED)


def failed_block(job: Job, task: BlockTask, reason: str) -> BlockOutcome:
    """Record that a block killed what computed it."""
    import torch

    return Worker(job, torch.device("cpu")).write(task, task.failed(reason))


def _start(job: Job, device: str, counter: object) -> None:
    """Prepare a process: its threads, its GPU, its deafness to the terminal's Ctrl-C, and its end."""
    global _worker
    ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():  # type: ignore[attr-defined]
        index = counter.value  # type: ignore[attr-defined]
        counter.value += 1  # type: ignore[attr-defined]
    set_threads(job.fixed_threads)
    _worker = Worker(job, usable_device(device, index))


def _end_with_parent() -> None:
    """Leave when the process that started this one is gone: a pool would wait for ever, with its memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _compute(task: BlockTask) -> BlockOutcome:
    if _worker is None:
        raise RuntimeError("the process was not prepared")
    return _worker.compute(task)
