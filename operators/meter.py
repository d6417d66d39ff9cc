"""Counts and times the costly evaluations of a run: operator applications and network calls."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Meter:
    """What was evaluated while the meter ran: `counts` and wall-clock `seconds` by kind.

    On a GPU the seconds are those of the launches, not of the kernels.
    """

    counts: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


_running: ContextVar[tuple[Meter, ...]] = ContextVar("running_meters", default=())
_inside: ContextVar[bool] = ContextVar("inside_an_evaluation", default=False)


@contextmanager
def metered() -> Iterator[Meter]:
    """Meter all evaluations of the block; meters nest, and each thread has its own."""
    meter = Meter()
    token = _running.set((*_running.get(), meter))
    try:
        yield meter
    finally:
        _running.reset(token)


@contextmanager
def measure(kind: str) -> Iterator[None]:
    """Mark the block as one evaluation of `kind`; evaluations inside another one are not counted again."""
    meters = _running.get()
    if not meters or _inside.get():
        yield
        return
    token = _inside.set(True)
    start = time.perf_counter()
    try:
        yield
    finally:
        _inside.reset(token)
        elapsed = time.perf_counter() - start
        for meter in meters:
            meter.counts[kind] += 1
            meter.seconds[kind] += elapsed
