"""What was finished before, so that the same command again looks at files instead of opening them.

Opening the files of a job takes seconds, for which a command that is run again and again, by a watch or by
cron, waits each time. A receipt is a small file in the user's cache that names the files of a finished job
and their state. It is found by a number of everything else that decides what the command does, and believed
while all of the files are as they were. Nothing depends on it: without one, the job is checked in full.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctflow import __version__
from ctflow.pipeline.block_size import machine_memory
from ctflow.pipeline.files import listing
from ctflow.place import is_place

if TYPE_CHECKING:
    from ctflow.pipeline.job import Job
    from ctflow.pipeline.running import Outcome

_KEPT = 1000
# Of the environment: what decides on threads and devices.
_DECIDING = ("CUDA_", "OMP_", "MKL_", "OPENBLAS_", "NUMBA_")


class Finished(NamedTuple):
    """A reconstruction file that is there with all of its slices, and the picture beside it."""

    output: Path
    picture: Path
    slices: int


def request_of(settings: Mapping[str, Any]) -> str | None:
    """The number of a command's merged settings, where it is run; None where they name no files.

    The files that its words stand for are part of it, what is in them is not.
    """
    words = settings.get("files")
    try:
        named = listing([words] if isinstance(words, str | Path) else list(words or ()))
    except (OSError, TypeError, ValueError):
        return None
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = {
        "settings": dict(settings),
        "files": named,
        "folder": os.getcwd(),
        "version": [__version__, sys.prefix],
        # Blocks are cut to fit into the memory.
        "machine": [platform.node(), cores, machine_memory(), sorted(glob.glob("/dev/nvidia[0-9]*"))],
        "environment": {key: value for key, value in os.environ.items() if key.startswith(_DECIDING)},
    }
    try:
        text = json.dumps(parts, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):
        # Keys that are no texts, or YAML that holds itself: no job comes of them.
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def finished_before(request: str | None) -> list[Finished] | None:
    """What a request's job has made, if all of it is there and unchanged; None where that is not known."""
    if request is None:
        return None
    try:
        receipt = json.loads(_file(request).read_text())
        states = receipt["states"]
        if not states or _states(states) != states:
            return None
        return [
            Finished(Path(output), Path(picture), int(slices)) for output, picture, slices in receipt["made"]
        ]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return None


def states_beside(job: Job) -> dict[str, list[int]] | None:
    """The state, before the job is run, of what it takes beside its measured files: priors, a solver's file.

    None where that is not known: where the weights of a user's own prior are from is its own affair.
    """
    from ctflow.flows.store import prior_files
    from ctflow.pipeline.job import DEFAULT_PRIORS
    from ctflow.solvers import solver_file

    names = {name for modality in DEFAULT_PRIORS if (name := job.prior_name(modality)) is not None}
    if any(is_place(name) for name in names):
        return None
    own = solver_file(job.solver)
    # What is wrong with a prior the job will say.
    with suppress(OSError, ValueError):
        files = [*(file for name in sorted(names) for file in prior_files(name)), *((own,) if own else ())]
        return _states(map(str, files))
    return None


def keep_receipt(
    request: str | None, beside: dict[str, list[int]] | None, outcomes: Sequence[Outcome]
) -> None:
    """Write that the job of a request is finished, unless it is not, or its files changed meanwhile.

    Those beside the measured ones since they were in the states given. A cache that cannot be written is
    none.
    """
    from ctflow.io.atomic import replacing_text
    from ctflow.pipeline.fingerprint import source_state

    made, files = [], set[Path]()
    # Without a cache, or one that is readable for nobody, there is nothing to keep.
    with suppress(OSError, RuntimeError, ValueError):
        for outcome in outcomes:
            if outcome.output is None or outcome.picture is None or outcome.failed or outcome.unfinished:
                return
            if outcome.source_state != source_state(outcome.sources):
                return
            # Another job may have put its own there, while this one was at its other files.
            if outcome.output_state != source_state((outcome.output, outcome.picture)):
                return
            made.append([str(outcome.output), str(outcome.picture), outcome.slices])
            files |= {outcome.output, outcome.picture, *outcome.sources}
        if not made or request is None or beside is None or _states(beside) != beside:
            return
        receipt = {"made": made, "states": _states(map(str, files)) | beside}
        target = _file(request)
        target.parent.mkdir(parents=True, exist_ok=True)
        replacing_text(target, json.dumps(receipt))
        by_age = sorted(target.parent.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        for old in by_age[:-_KEPT]:
            old.unlink(missing_ok=True)


def _file(request: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ctflow" / "finished" / f"{request}.json"


def _states(files: Iterable[str]) -> dict[str, list[int]]:
    """What tells without reading whether a file is another or was changed; OSError for one that is gone."""
    states = {}
    for file in files:
        found = os.stat(file)
        states[file] = [found.st_ino, found.st_size, found.st_mtime_ns]
    return states
