"""How far a job is, running or dead, as its files tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctflow.io.errors import OutputError
from ctflow.io.parts import failures, parts_folder, read_status
from ctflow.io.results import read_description
from ctflow.pipeline.lock import holder_of
from ctflow.pipeline.targets import read_plan

_PARTS = ".parts"


@dataclass(frozen=True)
class Status:
    """How far one reconstruction file is.

    Attributes
    ----------
    output
        The file that is there, or that is to be.
    slices, done
        How many there are to be, and how many are there.
    failed
        Number in the scan and reason of those that failed.
    state
        "finished", "running (process 12 on host)" or "stopped"; "starting (...)", without a number of slices,
        while the measured file is looked at.
    """

    output: Path
    slices: int
    done: int
    failed: dict[int, str]
    state: str

    @property
    def remaining(self) -> int:
        """Slices that are neither done nor failed."""
        return self.slices - self.done - len(self.failed)


def status_of(path: Path) -> list[Status]:
    """How far an output file is, or those in a folder.

    Raises
    ------
    OutputError
        If there is neither an output nor the beginning of one.
    """
    if path.is_dir() and not path.name.endswith(_PARTS):
        begun = (Path(str(folder).removesuffix(_PARTS)) for folder in path.glob(f"*{_PARTS}"))
        found = [one for output in sorted({*begun, *_outputs(path)}) if (one := _status(output)) is not None]
        if not found:
            raise OutputError(f"{path}: expected reconstructions or parts of them, found none")
        return found
    output = Path(str(path).removesuffix(_PARTS))
    if (status := _status(output)) is None:
        raise OutputError(f"{output}: expected a reconstruction or parts of one, found neither")
    return [status]


def _outputs(folder: Path) -> Iterator[Path]:
    for file in folder.glob("*.h5"):
        try:
            read_description(file)
        except OutputError:
            continue
        yield file


def _status(output: Path) -> Status | None:
    folder = parts_folder(output)
    plan, holder = read_plan(folder), holder_of(folder)
    who = "" if holder is None else f"(process {holder.get('pid')} on {holder.get('host')})"
    if plan is None:
        if not output.exists():
            return Status(output, 0, 0, {}, f"starting {who}") if who else None
        lines = read_description(output).get("status", ())
        slices = _slices_of(output, len(lines))
        failed = failures(slices, lines)
        return Status(output, len(slices), len(slices) - len(failed), failed, "finished")
    done, failed = 0, dict[int, str]()
    for block in plan.blocks:
        lines = read_status(folder, block, plan.fingerprint)
        if lines is not None:
            failed_there = failures(block, lines)
            failed |= failed_there
            done += len(block) - len(failed_there)
    state = f"running {who}" if who else "stopped"
    return Status(output, sum(len(block) for block in plan.blocks), done, failed, state)


def _slices_of(output: Path, count: int) -> range:
    start, _, _ = str(read_description(output).get("slices", "0:")).partition(":")
    return range(int(start), int(start) + count)
