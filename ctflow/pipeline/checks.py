"""Everything that can be found out about a job before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ctflow.io.atomic import check_writable
from ctflow.io.results import file_sha256, files_sha256
from ctflow.io.scan import open_scan
from ctflow.pipeline.block_size import slices_at_once
from ctflow.pipeline.fingerprint import source_state
from ctflow.pipeline.job import Job, chosen_slices
from ctflow.pipeline.targets import Target
from ctflow.place import file_of, is_place

# Of one file. More are not a scan but a broken or hostile header.
_MOST_SLICES = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What a job will do.

    Attributes
    ----------
    targets
        The files that can be read, and what each becomes.
    refused
        Why others cannot; empty unless the job keeps going nevertheless.
    device
        Where is computed.
    priors
        SHA-256 of the prior's files of each modality, or None.
    """

    targets: tuple[Target, ...]
    refused: Mapping[Path, str]
    device: str
    priors: Mapping[str, str | None]


def checked(job: Job, *, dry_run: bool = False) -> Plan:
    """Open every file, and check every output, the prior and the device; a dry run makes no folder.

    Raises
    ------
    ValueError
        In one line, for the first thing that is wrong. With `keep_going`, files that cannot be read are
        listed instead, unless they are all there is.
    """
    device = chosen_device(job.device, elsewhere=job.elsewhere)
    targets: list[Target] = []
    refused: dict[Path, str] = {}
    first: ValueError | OSError | None = None
    for file in job.files:
        try:
            targets.append(_target(job, file, device))
        except (ValueError, OSError) as error:
            # Beside what is no scan, what may not be looked at, or is lost in a network.
            if not job.keep_going:
                raise
            first = first or error
            refused[file] = str(error)
    if first is not None and not targets:
        raise first
    _check_outputs(job, targets, dry_run)
    # Where all outputs are there, nothing is computed unless asked for.
    needed = job.overwrite or job.retry_failed or not all(target.output.exists() for target in targets)
    kinds = sorted({target.scan.modality for target in targets})
    priors = {kind: _prior_sha256(job, kind, needed) for kind in kinds}
    return Plan(tuple(targets), refused, str(device), priors)


def _target(job: Job, file: Path, device: torch.device) -> Target:
    scan = open_scan(file, **job.reading())
    slices = chosen_slices(job.slices, len(scan))
    if len(slices) > _MOST_SLICES:
        raise ValueError(f"slices: expected at most {_MOST_SLICES} at a time of {file}, found {len(slices)}")
    if scan.is_volume and len(slices) < len(scan):
        raise ValueError(f"slices: expected all {len(scan)} of {file}, which are one problem")
    at_once = job.batch or slices_at_once(scan, job, device)
    batch = len(slices) if scan.is_volume else min(at_once, scan.most_together)
    return Target(file, job.output_of(file), scan, slices, batch, source_state(scan.files))


def chosen_device(name: str, *, elsewhere: bool = False) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one.

    Raises
    ------
    ValueError
        If it is not usable; of GPUs `elsewhere`, on other machines, nothing is known.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu or cuda, found {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, found {name!r}")
    if (
        device.type == "cuda"
        and not elsewhere
        and not (available and (device.index or 0) < torch.cuda.device_count())
    ):
        raise ValueError(f"device: expected one of this machine, found {name!r}; torch sees no such GPU")
    return device


def _check_outputs(job: Job, targets: list[Target], dry_run: bool) -> None:
    """ValueError unless all outputs can be written."""
    outputs = [target.output for target in targets]
    if job.into_folder:
        if len(job.files) > 1 and job.output.suffix:
            raise ValueError(f"output: expected a folder for {len(job.files)} files, found {job.output}")
        if len(set(outputs)) < len(outputs):
            raise ValueError("files: expected different names, found two that would share one output")
        if dry_run and not job.output.exists():
            check_writable(job.output)
            return
        try:
            job.output.mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(f"output: cannot make the folder {job.output}: {error.strerror}") from error
    for target, output in zip(targets, outputs, strict=True):
        sources = (*job.files, *target.scan.files)
        if output.suffix == ".png":
            raise ValueError(f"output: expected an HDF5 file such as recon.h5, found {output}")
        # Whether an output that is there may be replaced turns out when its turn comes: it may be this job's.
        check_writable(output, overwrite=True, sources=sources)
        picture = output.with_suffix(".png")
        check_writable(picture, job.overwrite or output.exists(), sources=sources)


def _prior_sha256(job: Job, modality: str, needed: bool) -> str | None:
    """Of the prior's files; one that is needed is loaded once, so that a damaged one is found now.

    Of a user's own prior, of the file that makes it and of its weights, wherever they are from.
    """
    name = job.prior_name(modality)
    if name is None:
        return None
    from ctflow.flows.store import load_prior, prior_files

    if is_place(name):
        digest, weights = hashlib.sha256(), load_prior(name).state_dict()
        digest.update(file_sha256(file_of(name)).encode())
        for key, tensor in weights.items():
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(key.encode() + values.numpy().tobytes())
        return digest.hexdigest()
    if needed:
        load_prior(name, precision=job.precision)
    return files_sha256(prior_files(name))
