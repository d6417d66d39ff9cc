"""The threads that compiled kernels run in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch

_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def in_threads(work: Callable[..., None], parts: Iterable[tuple[Any, ...]]) -> None:
    """Call ``work(*part)`` for every part, in as many threads as torch uses; the kernels release the GIL.

    Pools are kept per process, because threads do not survive a fork. They run nothing but kernels, so that
    calls from several threads share a pool and cannot wait for each other.
    """
    workers = torch.get_num_threads()
    jobs = list(parts)
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            work(*job)
        return
    key = (os.getpid(), workers)
    # setdefault is atomic, and a pool that loses the race has started no thread: no lock that a fork could
    # copy.
    pool = _POOLS.get(key) or _POOLS.setdefault(key, ThreadPoolExecutor(workers, thread_name_prefix="kernel"))
    for done in [pool.submit(work, *job) for job in jobs]:
        done.result()


def spans(size: int, parts: int) -> list[tuple[int, int]]:
    """Cut range(size) into at most ``parts`` pieces of nearly equal length."""
    edges = np.linspace(0, size, min(parts, size) + 1).round().astype(int).tolist()
    return list(pairwise(edges))
