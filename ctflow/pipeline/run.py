"""Do it: the files of a job, checked before the first is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.io.atomic import check_writable
from ctflow.io.scan import open_scan
from ctflow.pipeline.blocks import FileRun, Outcome, Progress
from ctflow.pipeline.job import Job, chosen_slices
from ctflow.solvers import make_solver


def run(job: Job, progress: Callable[[Progress], None] | None = None) -> list[Outcome]:
    """Reconstruct every file of a job.

    All files are opened and all outputs checked before the first is computed. The seed of slice i comes
    from the job's seed and i, so that results depend neither on blocks nor on which slices are chosen.
    A slice that fails is recorded in the file, a file that fails in its outcome, and the rest goes on.

    Raises
    ------
    ValueError
        In one line, for input that cannot be read, output that cannot be written, settings that make no
        sense, or files of which no slice could be reconstructed. What was there before stays as it was.
    """
    device = chosen_device(job.device)
    scans = {file: open_scan(file, **job.reading()) for file in job.files}
    chosen = {file: chosen_slices(job.slices, len(scan)) for file, scan in scans.items()}
    for file, scan in scans.items():
        if scan.is_volume and len(chosen[file]) < len(scan):
            raise ValueError(f"slices: expected all {len(scan)} of {file}, which are one problem")
    outputs = _outputs(job)
    solver, prior = make_solver(job.solver, job.solver_settings), _prior(job, device)
    outcomes, refused = [], None
    for file, scan in scans.items():
        work = FileRun(job, file, scan, solver, prior, device, chosen[file], progress)
        try:
            outcomes.append(work.run(outputs[file]))
        except ValueError as error:
            refused = refused or error
            failed = dict.fromkeys(chosen[file], str(error))
            outcomes.append(Outcome(file, None, None, len(failed), failed, 0.0))
    if refused is not None and all(outcome.output is None for outcome in outcomes):
        raise refused
    return outcomes


def chosen_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. ValueError where it is not usable."""
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu or cuda, found {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, found {name!r}")
    if device.type == "cuda" and not (available and (device.index or 0) < torch.cuda.device_count()):
        raise ValueError(f"device: expected one of this machine, found {name!r}; torch sees no such GPU")
    return device


def _outputs(job: Job) -> dict[Path, Path]:
    """Where each file's reconstruction goes; ValueError unless all can be written."""
    outputs = {file: job.output_of(file) for file in job.files}
    if len(job.files) > 1:
        if job.output.suffix:
            raise ValueError(f"output: expected a folder for {len(job.files)} files, found {job.output}")
        if len(set(outputs.values())) < len(outputs):
            raise ValueError("files: expected different names, found two that would share one output")
        try:
            job.output.mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(f"output: cannot make the folder {job.output}: {error.strerror}") from error
    for output in outputs.values():
        if output.suffix == ".png":
            raise ValueError(f"output: expected an HDF5 file such as recon.h5, found {output}")
        for written in (output, output.with_suffix(".png")):
            check_writable(written, job.overwrite, sources=job.files)
    return outputs


def _prior(job: Job, device: torch.device) -> FlowPrior | None:
    if job.prior_name is None:
        return None
    from ctflow.flows.store import load_prior

    return load_prior(job.prior_name, precision=job.precision).to(device)
