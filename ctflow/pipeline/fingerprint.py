"""What a result depends on, as one number: equal fingerprints, equal images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctflow import __version__
from ctflow.io.results import files_sha256
from ctflow.pipeline.job import Job
from ctflow.solvers import make_solver, solver_file
from ctflow.solvers.solver import settings_of


def fingerprint(job: Job, *, source: str, slices: range, batch: int, device: str, prior: str | None) -> str:
    """The SHA-256 of everything that decides the images, in hexadecimal.

    Parameters
    ----------
    job
        Solver, settings, seed, precision, threads, and how the file is read. Of a user's own solver the file
        that it is in counts, too.
    source, prior
        SHA-256 of the measured file, and of the prior's files.
    slices, batch
        Which are reconstructed, and how many at once, which decides how results are rounded.
    device
        Its kind, such as "cpu".
    """
    solver, own = make_solver(job.solver, job.solver_settings), solver_file(job.solver)
    parts = {
        "version": __version__,
        "source": source,
        "reading": job.reading(),
        "slices": [slices.start, slices.stop],
        "batch": batch,
        "solver": [job.solver, settings_of(solver)],
        "prior": prior,
        "precision": job.precision,
        "seed": job.seed,
        "device": device,
        "threads": job.fixed_threads,
    }
    if own is not None:
        parts["own"] = files_sha256([own])
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def source_state(files: Sequence[Path]) -> str:
    """What tells, without reading them, whether files have changed: sizes and times of change."""
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def source_sha256(files: Sequence[Path], known: dict[str, Any]) -> str:
    """The SHA-256 of the measured files; what is `known` of files in the same state is believed."""
    if known.get("source_state") == source_state(files) and known.get("source_sha256"):
        return str(known["source_sha256"])
    return files_sha256(files)
