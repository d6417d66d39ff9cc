"""One block of slices: read, solved, written as a part."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.io.errors import OutputError, ScanError
from ctflow.io.parts import Part, write_part
from ctflow.io.results import image_datasets
from ctflow.io.scan import AnyScan
from ctflow.metrics import psnr, ssim
from ctflow.pipeline.job import Job
from ctflow.pipeline.targets import Target
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.report import evenly_spaced
from ctflow.representation import Representation
from ctflow.solvers import Solver, Step, make_solver
from operators.noise import Generators

log = logging.getLogger(__name__)

# What a solver may raise for data that it cannot handle; torch's errors are RuntimeErrors.
_SOLVER_ERRORS = (ValueError, RuntimeError, ArithmeticError)
# What reading may raise beyond a ScanError, where a file is lost or becomes another meanwhile.
_READING_ERRORS = (OSError, LookupError, TypeError, MemoryError)
# What may go wrong with one block or file, the others being none the worse for it.
FAILURES = (*_SOLVER_ERRORS, *_READING_ERRORS)
_SLICES_FOR_SCALE = 3
_SMALLEST_FOR_SSIM = 11

# How much of a block is done, 0 to 1.
Report = Callable[[float], None]


@dataclass(frozen=True)
class BlockTask:
    """Some slices of a target that are to be computed at once."""

    target: Target
    block: range
    fingerprint: str

    def failed(self, reason: str) -> Part:
        """The part of a block of which no slice could be reconstructed."""
        return Part(self.block, (f"failed: {reason}",) * len(self.block))


@dataclass(frozen=True)
class BlockOutcome:
    """What became of a block.

    Attributes
    ----------
    output, block
        The target's output, and the slices.
    failed
        Number and reason of the slices that failed.
    unwritten
        Why there is no part on disk; None where there is one.
    """

    output: Path
    block: range
    failed: dict[int, str] = field(default_factory=dict)
    unwritten: str | None = None


class Worker:
    """What a process keeps from block to block: the solver, the prior, and the scan that it is at."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device
        self.solver: Solver = make_solver(job.solver, job.solver_settings)
        self._loaded: dict[str, FlowPrior] = {}
        self._settled: tuple[Path, FlowPrior] | None = None

    def compute(self, task: BlockTask, report: Report | None = None) -> BlockOutcome:
        """Read, solve and write a block; nothing that can go wrong with it is raised."""
        return self.write(task, self.solve(task, self.read(task), report))

    def read(self, task: BlockTask) -> InverseProblem | Exception:
        """The problem of a block, or what went wrong in reading it."""
        scan, block = task.target.scan, task.block
        try:
            if scan.is_volume:
                return scan.volume()
            problem = scan[block.start : block.stop]
        except FAILURES as error:
            return error
        if (found := len(problem.measurement)) != len(block):
            # Of a file with fewer slices than when it was opened.
            where = f"slices {block.start}:{block.stop}"
            return ScanError(task.target.file, where, found=found, expected=len(block))
        return problem

    def solve(
        self, task: BlockTask, problem: InverseProblem | Exception, report: Report | None = None
    ) -> Part:
        """Reconstruct a block at once, or slice by slice where that fails."""
        try:
            if isinstance(problem, Exception):
                raise problem
            return self._solved(task, problem, report)
        except FAILURES as error:
            scan, block = task.target.scan, task.block
            if len(block) > 1 and not scan.is_volume:
                log.info("slices %d:%d fail together (%s); one by one", block.start, block.stop, error)
                singles = [replace(task, block=range(i, i + 1)) for i in block]
                return joined([self.solve(single, self.read(single)) for single in singles])
            log.info("%s: slice %d failed: %s", task.target.file, block.start, one_line(error))
            return task.failed(one_line(error))

    def write(self, task: BlockTask, part: Part) -> BlockOutcome:
        """Put a part on disk; where there is no room for it, that its slices failed."""
        output, unwritten = task.target.output, self._unwritten(task, part)
        if unwritten is None:
            return BlockOutcome(output, task.block, part.failed)
        record = task.failed(f"not written: {unwritten}")
        if self._unwritten(task, record) is None:
            return BlockOutcome(output, task.block, record.failed)
        return BlockOutcome(output, task.block, part.failed, unwritten)

    def _unwritten(self, task: BlockTask, part: Part) -> str | None:
        """Write a part; why it could not be written, or None."""
        scan = task.target.scan
        try:
            write_part(task.target.folder, part, task.fingerprint, scan.unit, scan.pixel_size)
        except OutputError as error:
            return one_line(error)
        return None

    def _solved(self, task: BlockTask, problem: InverseProblem, report: Report | None) -> Part:
        scan, block, seed = task.target.scan, task.block, self.job.seed
        generators: Generators = slice_generator(seed, 0)
        if not scan.is_volume:
            generators = [slice_generator(seed, i) for i in block]

        def callback(step: Step) -> None:
            if report is not None:
                report(step.step / step.total)

        prior = self._prior(task.target)
        problem = problem.to(self.device)
        result = self.solver(problem, prior, generator=generators, callback=callback)
        return _part(self.job.solver, result, block, scan, problem)

    def _prior(self, target: Target) -> FlowPrior | None:
        """The prior with the scale of the target's scan."""
        name = self.job.prior_name(target.scan.modality)
        if name is None:
            return None
        if name not in self._loaded:
            from ctflow.flows.store import load_prior

            self._loaded[name] = load_prior(name, precision=self.job.precision).to(self.device)
        if self._settled is None or self._settled[0] != target.output:
            self._settled = (target.output, settled(self._loaded[name], target.scan))
        return self._settled[1]


def joined(parts: list[Part]) -> Part:
    """Parts of neighbouring slices as one."""
    slices = range(parts[0].slices.start, parts[-1].slices.stop)
    status = tuple(line for part in parts for line in part.status)
    done = [part for part in parts if part.volumes]
    if not done:
        return Part(slices, status)
    volumes = {}
    for name, known in done[0].volumes.items():
        blank = torch.full_like(known, torch.nan)
        volumes[name] = torch.cat([part.volumes.get(name, blank) for part in parts], known.ndim - 3)
    numbers = {
        name: [value for part in parts for value in part.numbers.get(name, [math.nan] * len(part.slices))]
        for name in done[0].numbers
    }
    about = {**done[0].about}
    for key in ("seconds", "evaluations"):
        about[key] = summed([part.about[key] for part in done])
    return Part(slices, status, volumes, numbers, about)


def summed(counts: list[dict[str, float]]) -> dict[str, float]:
    """The sums of numbers of the same name."""
    return {key: sum(count.get(key, 0) for count in counts) for key in counts[0]} if counts else {}


def _part(solver: str, result: Reconstruction, block: range, scan: AnyScan, problem: InverseProblem) -> Part:
    """What a solver found, on the CPU, with what can be said of each slice."""
    images = scan.finished(result.image.detach().cpu())
    event = tuple(range(1, images.ndim))
    finite = (
        torch.isfinite(images).all(event)
        if not scan.is_volume
        else torch.isfinite(images).all().expand(len(block))
    )
    reason = f"failed: {solver} gave an image with NaN or infinity"
    status = tuple("done" if good else reason for good in finite.tolist())
    volumes = {name: volume for name, volume in image_datasets(images).items() if volume is not None}
    if result.std is not None:
        volumes["std"] = scan.finished(result.std.detach().cpu())
    if result.samples is not None:
        volumes["samples"] = scan.finished(result.samples.detach().cpu())
    mask = finite.reshape(-1, 1, 1)
    volumes = {name: torch.where(mask, volume, torch.nan) for name, volume in volumes.items()}
    if not bool(finite.any()):
        return Part(block, status)
    numbers: dict[str, list[float]] = {}
    if result.history:
        # Of the image itself: the last in the history may be of an estimate before it, or of one run of
        # several. The slices of a volume share one.
        fits = problem.data_fit(result.image).detach().cpu().expand(len(block))
        numbers["data_fit"] = torch.where(finite, fits, torch.nan).tolist()
    numbers |= _against_truth(volumes["reconstruction"], block, scan)
    about = {
        "solver": dict(result.solver),
        "prior": result.prior,
        "representation": None if result.representation is None else dict(result.representation),
        "seconds": dict(result.seconds),
        "evaluations": dict(result.evaluations),
    }
    return Part(block, status, volumes, numbers, about)


def _against_truth(images: Tensor, block: range, scan: AnyScan) -> dict[str, list[float]]:
    """PSNR and SSIM of the slices whose truth the scan knows."""
    truth = scan.truth(slice(block.start, block.stop))
    truth = None if truth is None else truth.abs() if truth.is_complex() else truth
    if truth is None or truth.shape != images.shape or not bool((truth.abs().amax((-2, -1)) > 0).all()):
        return {}
    numbers = {"psnr": psnr(images, truth).tolist()}
    if min(images.shape[-2:]) >= _SMALLEST_FOR_SSIM:
        numbers["ssim"] = ssim(images, truth).tolist()
    return numbers


def slice_generator(seed: int, index: int) -> torch.Generator:
    """The randomness of slice `index`: seeded by the first 8 bytes of the SHA-256 of "seed:index"."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def settled(prior: FlowPrior, scan: AnyScan) -> FlowPrior:
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


def one_line(error: object) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
