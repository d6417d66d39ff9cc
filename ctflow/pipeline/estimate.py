"""What a job will take, before it is run."""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator

import torch

from ctflow.io.errors import ScanError
from ctflow.pipeline.block_size import machine_memory, slice_bytes
from ctflow.pipeline.blocks import BlockTask, Worker
from ctflow.pipeline.checks import Plan
from ctflow.pipeline.executors.threads import threads
from ctflow.pipeline.job import Job
from ctflow.pipeline.targets import Target

_MEBIBYTE = 2**20
# Of a process before it computes: torch, and what is compiled.
_PROCESS = 400 * _MEBIBYTE


def estimated(job: Job, plan: Plan) -> Iterator[str]:
    """Say what a job would do, line by line; the last lines wait for a slice that is computed for the time.

    Nothing is written.
    """
    for file, reason in plan.refused.items():
        yield f"{file}: left out: {reason}"
    slices = size = 0
    for target in plan.targets:
        yield from _about(target)
        slices += len(target.slices)
        size += _output_bytes(target, job)
    if not plan.targets:
        return
    yield from _room(job, plan, size)
    yield from _memory(job, plan)
    if plan.device.startswith("cuda") and job.elsewhere:
        yield "time           unknown: the GPUs are on other machines"
        return
    largest = max(plan.targets, key=lambda target: math.prod(target.scan.image_shape))
    seconds, failed, peak = _one_block(job, plan, largest)
    if failed is not None:
        yield f"time           unknown: {failed}"
        return
    total = seconds * slices / job.processes
    yield f"one slice      {seconds:.2f} s, {_megabytes(peak)} at most in this process"
    yield f"time           about {_duration(total)} for {slices} slices, {_in_processes(job)}"


def _about(target: Target) -> Iterator[str]:
    scan = target.scan
    height, width = scan.image_shape[-2:]
    count = len(target.slices)
    yield (
        f"{target.file}: {count} slice{'s' * (count != 1)} of {height} x {width} pixels, "
        f"{target.batch} at a time, to {target.output}"
    )
    for problem in scan.describe()["problems"]:
        yield f"  problem: {problem}"


def _one_block(job: Job, plan: Plan, target: Target) -> tuple[float, str | None, int]:
    """Seconds a slice, the reason of a failure, and the process's peak memory in bytes."""
    worker = Worker(job, torch.device(plan.device))
    block = target.blocks[0] if target.scan.is_volume else target.slices[:1]
    task = BlockTask(target, block, "")
    with threads(job.fixed_threads):
        worker.solve(task, worker.read(task))  # what is compiled and loaded once does not count
        start = time.perf_counter()
        try:
            part = worker.solve(task, worker.read(task))
        except ScanError as error:
            return 0.0, str(error), 0
        seconds = (time.perf_counter() - start) / len(block)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return seconds, next(iter(part.failed.values()), None), peak


def _output_bytes(target: Target, job: Job) -> int:
    images = len(target.slices) * math.prod(target.scan.image_shape[-2:]) * 4
    samples = job.samples or 1
    return images * (samples + 2 if samples > 1 else 1)


def _room(job: Job, plan: Plan, size: int) -> Iterator[str]:
    folder = plan.targets[0].output.resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    yield f"output         at most {_megabytes(size)}, {_megabytes(free)} free"
    # Parts lie beside the file that they are put together into.
    largest = max(_output_bytes(target, job) for target in plan.targets)
    if free < size + largest:
        yield f"  problem: expected room for {_megabytes(size + largest)}, parts included"


def _memory(job: Job, plan: Plan) -> Iterator[str]:
    workers = job.processes
    block = max(target.batch * slice_bytes(target.scan, job) for target in plan.targets)
    each = "" if workers == 1 else f" in each of {workers} processes"
    if plan.device.startswith("cuda"):
        yield f"memory         about {_megabytes(block)} of the GPU{each}"
        return
    there = machine_memory()
    yield f"memory         about {_megabytes(_PROCESS + block)}{each}, {_megabytes(there)} in this machine"
    if not job.elsewhere and workers * (_PROCESS + block) > there:
        yield "  problem: expected room in memory for all; take fewer workers or a smaller batch"


def _in_processes(job: Job) -> str:
    return "in one process" if job.processes == 1 else f"in {job.processes} processes"


def _megabytes(count: float) -> str:
    return f"{count / _MEBIBYTE:.0f} MiB" if count >= _MEBIBYTE else "1 MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
