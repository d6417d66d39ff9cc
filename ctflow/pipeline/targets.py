"""One measured file and the reconstruction file it becomes: what is there, and what is to be done."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctflow.io.atomic import replacing_text
from ctflow.io.errors import OutputError
from ctflow.io.parts import failures, part_file, parts_folder, read_status, split
from ctflow.io.results import read_description
from ctflow.io.scan import AnyScan

_PLAN = "plan.json"


@dataclass(frozen=True)
class WrittenPlan:
    """What lies beside parts: which blocks there are to be, and of what fingerprint."""

    fingerprint: str
    blocks: list[range]


def read_plan(folder: Path) -> WrittenPlan | None:
    """The plan in a folder of parts; None where there is none, or none that can be read."""
    try:
        plan = json.loads((folder / _PLAN).read_text())
        return WrittenPlan(str(plan["fingerprint"]), _blocks(range(*plan["slices"]), int(plan["batch"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Target:
    """A measured file on its way.

    Attributes
    ----------
    file, output
        The measured file and the reconstruction file.
    scan
        The file, opened.
    slices
        Which are to be reconstructed.
    batch
        How many at a time; of a scan in space all.
    state
        Of the measured files when the scan was opened; see `fingerprint.source_state`.
    """

    file: Path
    output: Path
    scan: AnyScan
    slices: range
    batch: int
    state: str

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return parts_folder(self.output)

    @property
    def blocks(self) -> list[range]:
        """The slices, in the pieces that are computed at a time."""
        return _blocks(self.slices, self.batch)

    def known(self) -> dict[str, Any]:
        """What an earlier run wrote about the target, in the plan of its parts or in the output."""
        try:
            return dict(json.loads((self.folder / _PLAN).read_text()))
        except (OSError, ValueError):
            pass
        try:
            return read_description(self.output)
        except (OutputError, OSError):
            return {}

    def plan(self, fingerprint: str, source: dict[str, str]) -> None:
        """Write what is to be done beside the parts, for whoever asks."""
        self.folder.mkdir(exist_ok=True)
        slices = [self.slices.start, self.slices.stop]
        content = {"fingerprint": fingerprint, "slices": slices, "batch": self.batch, **source}
        replacing_text(self.folder / _PLAN, json.dumps(content))

    def done(self, fingerprint: str) -> tuple[str, ...] | None:
        """The status of the slices of an output of that fingerprint; None where there is none."""
        try:
            found = read_description(self.output)
        except (OutputError, OSError):
            return None
        status = found.get("status", ())
        fits = found.get("fingerprint") == fingerprint and len(status) == len(self.slices)
        return status if fits else None

    def reopen(self, fingerprint: str, status: tuple[str, ...]) -> None:
        """Take the blocks without failures out of an output as parts, so that the others can be redone."""
        blocks = self.blocks
        for k, block in enumerate(blocks):
            rows = slice(block.start - self.slices.start, block.stop - self.slices.start)
            if not failures(block, status[rows]):
                split(self.output, self.folder, blocks, k, fingerprint)

    def finished(self, fingerprint: str, *, retry_failed: bool) -> dict[range, dict[int, str]]:
        """The blocks of which a part of that fingerprint is there, with what failed in each.

        Other parts are removed: other settings, another version or another input made them, or they hold
        failures that are to be retried.
        """
        found: dict[range, dict[int, str]] = {}
        for block in self.blocks:
            status = read_status(self.folder, block, fingerprint)
            if status is not None and not (retry_failed and failures(block, status)):
                found[block] = failures(block, status)
        kept = {part_file(self.folder, block) for block in found}
        for file in self.folder.glob("*.h5"):
            if file not in kept:
                file.unlink(missing_ok=True)
        # What a process that was killed was writing.
        for file in self.folder.glob(".*.part"):
            file.unlink(missing_ok=True)
        return found

    def clear(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _blocks(slices: range, batch: int) -> list[range]:
    return [slices[k : k + batch] for k in range(0, len(slices), batch)]
