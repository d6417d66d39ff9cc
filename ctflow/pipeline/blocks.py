"""One measured file through a solver, in blocks of slices."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctflow import __version__
from ctflow.flows.prior import FlowPrior
from ctflow.io.errors import ScanError
from ctflow.io.mr_scan import MRScan
from ctflow.io.rebinned import RebinnedScan
from ctflow.io.results import files_sha256, write_result
from ctflow.io.scan import Scan
from ctflow.pipeline.job import Job
from ctflow.reconstruction import Reconstruction
from ctflow.report import evenly_spaced, preview
from ctflow.representation import Representation
from ctflow.solvers import Solver, Step
from operators.noise import Generators

log = logging.getLogger(__name__)

# What a solver may raise for data that it cannot handle; torch's errors are RuntimeErrors.
_SOLVER_ERRORS = (ValueError, RuntimeError, ArithmeticError)
_SLICES_FOR_SCALE = 3


@dataclass(frozen=True)
class Progress:
    """How far a file is: `done` of `slices`, with the part of the present block that its steps make up."""

    file: Path
    done: float
    slices: int


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes
    ----------
    file, output, picture
        The measured file, the reconstruction and the PNG beside it, both None where nothing was written.
    slices
        How many were to be reconstructed.
    failed
        Number in the scan and reason of those that were not.
    seconds
        From opening the file to its reconstruction on disk.
    """

    file: Path
    output: Path | None
    picture: Path | None
    slices: int
    failed: Mapping[int, str]
    seconds: float


@dataclass
class FileRun:
    """One measured file on its way to a reconstruction file.

    Slices are computed `job.batch` at a time. A block that fails is computed slice by slice; a slice that
    fails alone is recorded, and the rest goes on. The slices of a scan in space are one problem, and one
    block.
    """

    job: Job
    file: Path
    scan: Scan | MRScan | RebinnedScan
    solver: Solver
    prior: FlowPrior | None
    device: torch.device
    slices: range
    progress: Callable[[Progress], None] | None
    images: dict[int, Reconstruction] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)

    def run(self, output: Path) -> Outcome:
        """Reconstruct all slices and write them."""
        start = time.perf_counter()
        source_hash = files_sha256(self.scan.files)
        if self.prior is not None:
            self.prior = settled(self.prior, self.scan)
        together = len(self.slices) if self.scan.is_volume else min(self.job.batch, self.scan.most_together)
        for k in range(0, len(self.slices), together):
            self._block(self.slices[k : k + together])
        if not self.images:
            index, reason = next(iter(self.failed.items()))
            raise ValueError(f"{self.file}: no slice could be reconstructed; slice {index}: {reason}")
        results = self._assembled()
        self.seconds["all"] = time.perf_counter() - start
        status = [f"failed: {self.failed[i]}" if i in self.failed else "done" for i in self.slices]
        attributes = {**self._provenance(), "source_sha256": source_hash}
        write_result(output, **results, status=status, attributes=attributes, overwrite=self.job.overwrite)
        picture = preview(
            results["images"],
            output.with_suffix(".png"),
            unit=self.scan.unit,
            pixel_size=self.scan.pixel_size,
            names=[f"slice {i}" for i in self.slices],
            title=f"{self.file.name}, {self.job.solver}",
        )
        return Outcome(self.file, output, picture, len(self.slices), self.failed, self.seconds["all"])

    def _block(self, block: range) -> None:
        """Reconstruct some slices at once, or one by one where that fails."""
        try:
            result = self._solve(block)
        except _SOLVER_ERRORS as error:
            if self.scan.is_volume:
                self.failed.update(dict.fromkeys(block, _one_line(error)))
                log.info("%s: the volume failed: %s", self.file, _one_line(error))
                return
            if len(block) > 1:
                log.info("slices %d:%d fail together (%s); one by one", block.start, block.stop, error)
                for i in block:
                    self._block(range(i, i + 1))
                return
            self.failed[block.start] = _one_line(error)
            log.info("%s: slice %d failed: %s", self.file, block.start, self.failed[block.start])
        else:
            for k, i in enumerate(block):
                if bool(torch.isfinite(result.image[k]).all()):
                    self.images[i] = self._finished(_sample(result, k))
                else:
                    self.failed[i] = f"{self.job.solver} gave an image with NaN or infinity"
                    log.info("%s: slice %d failed: %s", self.file, i, self.failed[i])
        self._report(block, 1.0)

    def _solve(self, block: range) -> Reconstruction:
        generators: Generators = slice_generator(self.job.seed, 0)
        if self.scan.is_volume:
            problem = self.scan.volume()
        else:
            problem = self.scan[block.start : block.stop]
            generators = [slice_generator(self.job.seed, i) for i in block]

        def callback(step: Step) -> None:
            self._report(block, step.step / step.total)

        result = self.solver(problem.to(self.device), self.prior, generator=generators, callback=callback)
        for key, seconds in result.seconds.items():
            self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        for key, count in result.evaluations.items():
            self.evaluations[key] = self.evaluations.get(key, 0) + count
        return result

    def _finished(self, result: Reconstruction) -> Reconstruction:
        """What of a sample's images goes into the file."""
        finished = self.scan.finished
        return replace(
            result,
            image=finished(result.image),
            std=None if result.std is None else finished(result.std),
            samples=None if result.samples is None else finished(result.samples),
        )

    def _report(self, block: range, part: float) -> None:
        if self.progress is not None:
            done = block.start - self.slices.start + part * len(block)
            self.progress(Progress(self.file, done, len(self.slices)))

    def _assembled(self) -> dict[str, Any]:
        """The volumes, with NaN where a slice failed."""
        first = next(iter(self.images.values()))
        results: dict[str, Any] = {}
        for name, attribute, axis in (("images", "image", 0), ("std", "std", 0), ("samples", "samples", 1)):
            known: Tensor | None = getattr(first, attribute)
            if known is not None:
                blank = torch.full_like(known, torch.nan)
                done = [
                    getattr(self.images[i], attribute) if i in self.images else blank for i in self.slices
                ]
                results[name] = torch.stack(done, axis)
        if first.history:
            fits = {i: float(result.history[-1]) for i, result in self.images.items()}
            results["data_fit"] = [fits.get(i, math.nan) for i in self.slices]
        return results

    def _provenance(self) -> dict[str, Any]:
        """Everything that made the result, but for the source's SHA-256."""
        first = next(iter(self.images.values()))
        return {
            "unit": self.scan.unit,
            "pixel_size": self.scan.pixel_size,
            "slice_distance": self.scan.slice_distance,
            "source": str(self.file.resolve()),
            "scan": self.scan.describe(),
            "metadata": dict(self.scan.metadata),
            "reading": self.job.reading(),
            "slices": f"{self.slices.start}:{self.slices.stop}",
            "solver": dict(first.solver),
            "prior": first.prior,
            "representation": None if first.representation is None else dict(first.representation),
            "seed": self.job.seed,
            "slice_seeds": "the first 8 bytes of SHA-256 of 'seed:slice', big-endian; slice 0's for a volume",
            "batch": self.job.batch,
            "device": str(self.device),
            "precision": self.job.precision,
            "seconds": dict(self.seconds),
            "evaluations": dict(self.evaluations),
            "versions": versions(),
        }


def slice_generator(seed: int, index: int) -> torch.Generator:
    """The randomness of slice `index`: seeded by the first 8 bytes of the SHA-256 of "seed:index"."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def settled(prior: FlowPrior, scan: Scan | MRScan | RebinnedScan) -> FlowPrior:
    """The prior with the scale of its images settled for a scan, so that all slices share it.

    Up to three evenly spaced slices of the whole scan are looked at, whichever are to be reconstructed;
    unreadable ones are passed over for others. Of a scan in space, all.
    """
    if prior.representation.calibration == "fixed":
        return prior
    if scan.is_volume:
        return _with_representation(prior, prior.representation.fitted(scan.volume()))
    first = evenly_spaced(len(scan), _SLICES_FOR_SCALE)
    images: list[Tensor] = []
    unreadable: ScanError | None = None
    for i in dict.fromkeys([*first, *range(len(scan))]):
        if len(images) == len(first):
            break
        try:
            images.append(scan[i].initial())
        except ScanError as error:
            unreadable = unreadable or error
    if not images:
        raise unreadable or ValueError("expected at least one slice, found none")
    return _with_representation(prior, prior.representation.fitted_to(torch.stack(images)))


def _with_representation(prior: FlowPrior, representation: Representation) -> FlowPrior:
    changed = copy(prior)
    changed.representation = representation
    return changed


def versions() -> dict[str, str]:
    """Of ctflow and of what computes for it."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "h5py", "numba", "diffusers", "astra-toolbox", "odl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return {"ctflow": __version__, **found}


def _sample(result: Reconstruction, k: int) -> Reconstruction:
    """Sample `k` of a batch, in memory."""
    return replace(
        result,
        image=result.image[k].cpu(),
        std=None if result.std is None else result.std[k].cpu(),
        samples=None if result.samples is None else result.samples[:, k].cpu(),
        # The slices of a volume share one data fit.
        history=tuple((fit[k] if fit.ndim else fit).cpu() for fit in result.history),
        details={},
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
