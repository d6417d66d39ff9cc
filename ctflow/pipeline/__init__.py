"""Jobs: measured files to reconstruction files, whatever interrupts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctflow.pipeline.job import Job, load_job
    from ctflow.pipeline.running import Outcome, Progress, SliceResult, results, run

_HOME = {"Job": "job", "load_job": "job"} | dict.fromkeys(
    ("Outcome", "Progress", "SliceResult", "results", "run"), "running"
)
__all__ = ["Job", "Outcome", "Progress", "SliceResult", "load_job", "results", "run"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
