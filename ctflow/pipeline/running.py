"""Do it: the files of a job, checked before the first is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ctflow.io.errors import OutputError, ScanError
from ctflow.io.parts import assemble, part_file
from ctflow.io.results import read_images
from ctflow.pipeline.against_truth import volume_attributes
from ctflow.pipeline.blocks import FAILURES, BlockOutcome, BlockTask, one_line
from ctflow.pipeline.checks import Plan, checked
from ctflow.pipeline.executors import executor_of
from ctflow.pipeline.fingerprint import fingerprint, source_sha256, source_state
from ctflow.pipeline.job import Job
from ctflow.pipeline.lock import Lock
from ctflow.pipeline.provenance import provenance
from ctflow.pipeline.targets import Target
from ctflow.report import evenly_spaced, preview

_SHOWN = 3


@dataclass(frozen=True)
class Progress:
    """How far a file is: `done` of `slices`, with the part of the present blocks that their steps make up.

    `block` is what has just been written, if anything has; `done_in_all` and `slices_in_all` are of all files
    of the job.
    """

    file: Path
    done: float
    slices: int
    done_in_all: float
    slices_in_all: int
    block: range | None = None


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
        From the first look at the file to its reconstruction on disk.
    computed
        Slices that this run computed; the others were there.
    unfinished
        Why there is no reconstruction file although parts of it are on disk; None where there is one.
    sources, source_state
        All files that are read for it, and their state when that began; see `fingerprint.source_state`.
    output_state
        Likewise of the output and the picture, when they were there.
    """

    file: Path
    output: Path | None
    picture: Path | None
    slices: int
    failed: Mapping[int, str]
    seconds: float
    computed: int = 0
    unfinished: str | None = None
    sources: tuple[Path, ...] = ()
    source_state: str | None = None
    output_state: str | None = None


@dataclass(frozen=True)
class SliceResult:
    """One slice, as soon as it is known: its image, or why there is none."""

    file: Path
    index: int
    image: Tensor | None
    failed: str | None = None


def run(
    job: Job,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Reconstruct every file of a job; run it again to go on where it was stopped.

    All files are opened and all outputs checked before the first is computed. The seed of slice i comes
    from the job's seed and i, so that results do not depend on order, interruption or number of workers.
    Blocks of slices are written as they are done; what is there already is not computed again. A slice that
    fails is recorded in the file, a file that fails in its outcome, and the rest goes on.

    Parameters
    ----------
    job
        What to do.
    progress
        Gets how far each file is.
    stop
        Asked between blocks; once it says True those in hand are finished, and the run ends.

    Raises
    ------
    ValueError
        In one line, for input that cannot be read, output that cannot be written, settings that make no
        sense, or files of which no slice could be reconstructed. What was there before stays as it was.
    """
    work = _Run(job, checked(job), progress or (lambda _: None), stop)
    for _ in work.blocks():
        pass
    if work.outcomes and len(work.refusals) == len(work.outcomes):
        raise work.refusals[0]
    return work.outcomes


def results(job: Job) -> Iterator[SliceResult]:
    """Run a job, and give each slice's image as soon as it is there, in whatever order that is.

    Slices that were there before the run come too. The files are written as by `run`.
    """
    work = _Run(job, checked(job), lambda _: None, lambda: False)
    for target, done in work.blocks():
        images = _images(target, done.block)
        for k, index in enumerate(done.block):
            reason = done.failed.get(index)
            yield SliceResult(target.file, index, None if reason or images is None else images[k], reason)


def _images(target: Target, block: range) -> Tensor | None:
    """The images of a block, from its part or, where it is assembled, from the output."""
    try:
        return read_images(part_file(target.folder, block))
    except (ScanError, OSError):
        # Parts are removed once the output is there.
        return read_images(target.output, [i - target.slices.start for i in block])


def _changed(target: Target, state: str) -> bool:
    """Whether the measured files are others than they were; those that are gone have failed already."""
    try:
        return source_state(target.scan.files) != state
    except OSError:
        return False


def _about(target: Target, error: Exception) -> ValueError:
    """What went wrong with a target, in one line that names a file."""
    if isinstance(error, OSError) and error.strerror:
        return ValueError(f"{error.filename or target.file}: {error.strerror}")
    return error if isinstance(error, ValueError) else ValueError(f"{target.file}: {one_line(error)}")


def _made(target: Target, failed: Mapping[int, str], seconds: float, **details: Any) -> Outcome:
    """What became of a target whose output is there."""
    picture, sources = target.output.with_suffix(".png"), target.scan.files
    slices = len(target.slices)
    return Outcome(target.file, target.output, picture, slices, failed, seconds, sources=sources, **details)


@dataclass
class _State:
    """A target while its blocks are computed."""

    target: Target
    fingerprint: str
    source: dict[str, str]
    described: dict[str, Any]
    lock: Lock
    waiting: set[range]
    started: float
    failed: dict[int, str] = field(default_factory=dict)
    unwritten: str | None = None
    computed: int = 0
    in_hand: dict[range, float] = field(default_factory=dict)

    @property
    def done(self) -> float:
        """How many slices are, with the part of the present blocks that is."""
        left = sum((1 - self.in_hand.get(waiting, 0.0)) * len(waiting) for waiting in self.waiting)
        return len(self.target.slices) - left

    def left(self, reason: str) -> Outcome:
        """What became of it where it lies with the parts that it has."""
        seconds, slices = time.perf_counter() - self.started, len(self.target.slices)
        failed = dict(sorted(self.failed.items()))
        return Outcome(
            self.target.file, None, None, slices, failed, seconds, self.computed, unfinished=reason
        )


class _Run:
    """One run of a job."""

    def __init__(
        self, job: Job, plan: Plan, progress: Callable[[Progress], None], stop: Callable[[], bool]
    ) -> None:
        self._job, self._plan, self._progress, self._stop = job, plan, progress, stop
        self._states: dict[Path, _State] = {}
        self._finishing: list[Future[Outcome]] = []
        # Slices of the targets that nothing is left to be computed of.
        self._past = 0
        self._there: list[tuple[Target, BlockOutcome]] = []
        self.outcomes: list[Outcome] = [
            Outcome(file, None, None, 0, {}, 0.0, unfinished=reason) for file, reason in plan.refused.items()
        ]
        self.refusals = [ValueError(reason) for reason in plan.refused.values()]

    def blocks(self) -> Iterator[tuple[Target, BlockOutcome]]:
        """Compute what is missing, and yield every block that has a part before its target is assembled."""
        executor = executor_of(self._job, self._plan.device)
        # Files are assembled while others are computed.
        self._pool = ThreadPoolExecutor(1, "finishing")
        try:
            for outcome in executor.outcomes(self._tasks(), self._stop, self._report):
                yield from self._found()
                state = self._states[outcome.output]
                state.waiting.discard(outcome.block)
                state.computed += len(outcome.block)
                state.failed |= outcome.failed
                state.unwritten = state.unwritten or outcome.unwritten
                if outcome.unwritten is None:
                    yield state.target, outcome
                self._tell(state, outcome.block)
                if not state.waiting:
                    self._finish(state)
            yield from self._found()
        finally:
            self._pool.shutdown()
            self.outcomes += [finished.result() for finished in self._finishing]
            for state in self._states.values():
                state.lock.release()
                self.outcomes.append(state.left("stopped"))
            self.outcomes.sort(key=lambda outcome: self._job.files.index(outcome.file))

    def _tasks(self) -> Iterator[BlockTask]:
        """The blocks that are missing, target by target, each locked when its turn comes."""
        for target in self._plan.targets:
            try:
                state = self._prepared(target)
            except FAILURES as error:
                self.outcomes.append(self._refused(target, _about(target, error)))
                state = None
            if state is None:
                self._past += len(target.slices)
                continue
            if not state.waiting:
                self._finish(state)
            for block in [block for block in target.blocks if block in state.waiting]:
                yield BlockTask(target, block, state.fingerprint)

    def _prepared(self, target: Target) -> _State | None:
        """The target with what is there already, locked; None where all is."""
        started = time.perf_counter()
        target.folder.mkdir(exist_ok=True)
        lock = Lock(target.folder)
        lock.acquire()
        try:
            return self._begun(target, lock, started)
        except BaseException:
            lock.release()
            raise

    def _begun(self, target: Target, lock: Lock, started: float) -> _State | None:
        job, known = self._job, target.known()
        files = target.scan.files
        # The state first: a file that changes in between will be seen to be another.
        state_before = source_state(files)
        if state_before != target.state:
            # Its geometry may be another, too.
            raise ValueError(f"{target.file}: was changed since it was checked; run again")
        source = {"source_sha256": source_sha256(files, known), "source_state": state_before}
        number = fingerprint(
            job,
            source=source["source_sha256"],
            slices=target.slices,
            batch=target.batch,
            device=self._plan.device.partition(":")[0],
            prior=self._plan.priors[target.scan.modality],
        )
        status = target.done(number)
        failures = {i for i, line in zip(target.slices, status or (), strict=False) if line != "done"}
        if status is not None and not (failures and job.retry_failed):
            failed = {i: status[i - target.slices.start].removeprefix("failed: ") for i in sorted(failures)}
            picture = target.output.with_suffix(".png")
            if not picture.exists():
                self._preview(target)
            made = source_state((target.output, picture))
            target.clear()
            lock.release()
            seconds = time.perf_counter() - started
            self.outcomes.append(_made(target, failed, seconds, source_state=state_before, output_state=made))
            for block in target.blocks:
                failed_there = {i: failed[i] for i in block if i in failed}
                self._there.append((target, BlockOutcome(target.output, block, failed_there)))
            return None
        if status is not None:
            target.reopen(number, status)
        elif not job.overwrite:
            self._refuse_to_replace(target, known, number)
        target.plan(number, source)
        finished = target.finished(number, retry_failed=job.retry_failed)
        # Now, for the file may be gone at the end.
        described = target.scan.describe()
        waiting = set(target.blocks) - set(finished)
        state = _State(target, number, source, described, lock, waiting, started)
        for block, failed_there in finished.items():
            state.failed |= failed_there
            self._there.append((target, BlockOutcome(target.output, block, failed_there)))
        self._states[target.output] = state
        return state

    def _refuse_to_replace(self, target: Target, known: Mapping[str, object], number: str) -> None:
        """Raise unless what is at the target's place is the beginning of this very run."""
        hint = "name another, or allow to overwrite it"
        parts = list(target.folder.glob("*.h5"))
        if target.output.exists():
            if not parts:
                target.clear()
            raise OutputError(f"{target.output}: the file exists already, made with other settings; {hint}")
        if parts and known.get("fingerprint") != number:
            raise OutputError(f"{target.folder}: holds parts made with other settings; {hint}")

    def _finish(self, state: _State) -> None:
        """Assemble a target whose blocks are all there, while the next is computed."""
        del self._states[state.target.output]
        self._past += len(state.target.slices)
        self._finishing.append(self._pool.submit(self._finished, state))

    def _finished(self, state: _State) -> Outcome:
        target, job = state.target, self._job
        try:
            if state.unwritten is not None:
                return state.left(state.unwritten)
            if len(state.failed) == len(target.slices):
                index, reason = next(iter(sorted(state.failed.items())))
                message = f"{target.file}: no slice could be reconstructed; slice {index}: {reason}"
                target.clear()
                return self._refused(target, ValueError(message), state.failed)
            if _changed(target, state.source["source_state"]):
                return state.left("the measured file was changed meanwhile")
            attributes = {**provenance(job, target, self._plan.device, state.described), **state.source}
            attributes["fingerprint"] = state.fingerprint
            quality = volume_attributes(target, state.fingerprint)
            if quality:
                attributes["volume_quality"] = quality
            attributes["seconds"] = {**attributes["seconds"], "all": time.perf_counter() - state.started}
            assemble(target.output, target.folder, target.blocks, attributes, overwrite=True)
            picture = self._preview(target)
            made = source_state((target.output, picture))
            target.clear()
        except FAILURES as error:
            return state.left(str(_about(target, error)))
        finally:
            state.lock.release()
        seconds = time.perf_counter() - state.started
        failed = dict(sorted(state.failed.items()))
        states = {"source_state": state.source["source_state"], "output_state": made}
        return _made(target, failed, seconds, computed=state.computed, **states)

    def _refused(self, target: Target, error: ValueError, failed: Mapping[int, str] | None = None) -> Outcome:
        self.refusals.append(error)
        if failed is None:
            return Outcome(target.file, None, None, 0, {}, 0.0, unfinished=str(error))
        return Outcome(target.file, None, None, len(target.slices), failed, 0.0)

    def _found(self) -> Iterator[tuple[Target, BlockOutcome]]:
        found, self._there = self._there, []
        yield from found

    def _report(self, task: BlockTask, part: float) -> None:
        state = self._states[task.target.output]
        state.in_hand[task.block] = part
        self._tell(state)

    def _tell(self, state: _State, block: range | None = None) -> None:
        target = state.target
        done = self._past + sum(one.done for one in self._states.values())
        slices = sum(len(one.slices) for one in self._plan.targets)
        self._progress(Progress(target.file, state.done, len(target.slices), done, slices, block))

    def _preview(self, target: Target) -> Path:
        scan, chosen = target.scan, evenly_spaced(len(target.slices), _SHOWN)
        images = read_images(target.output, chosen)
        if images is None:
            raise OutputError(f"{target.output}: /reconstruction: expected images, found nothing")
        return preview(
            images,
            target.output.with_suffix(".png"),
            unit=scan.unit,
            pixel_size=scan.pixel_size,
            names=[f"slice {target.slices[k]}" for k in chosen],
            title=f"{target.file.name}, {self._job.solver}",
        )
