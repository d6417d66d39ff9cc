"""What a dry run says, and that it leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ctflow.cli import main
from ctflow.io.scan import open_scan
from ctflow.pipeline import block_size, estimate
from ctflow.pipeline.block_size import slice_bytes, slices_at_once
from ctflow.pipeline.job import Job
from tests.ctflow.io.measured import CENTRE, write_dxchange

CPU = torch.device("cpu")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    for name in ("a", "b"):
        write_dxchange(tmp_path / "runs" / f"{name}.h5", slices=5)
    return tmp_path / "runs"


def dry_run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    with pytest.raises(SystemExit) as ended:
        main(["reconstruct", *map(str, words), "--dry-run", "--solver", "fbp", "--centre", str(CENTRE)])
    told = capsys.readouterr()
    assert told.err == ""
    return int(ended.value.code or 0), told.out.splitlines()


def test_a_dry_run_tells_what_would_be_done(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs.parent / "out"
    code, lines = dry_run(capsys, runs, "-o", out, "--batch", 2)
    assert code == 0
    for name in ("a", "b"):
        first = f"{runs / name}.h5: 5 slices of 41 x 41 pixels, 2 at a time, to {out / name}_recon.h5"
        assert first in lines
    told = "\n".join(lines[-4:])
    assert re.search(r"^output +at most 1 MiB, \d+ MiB free$", told, re.MULTILINE)
    assert re.search(r"^memory +about \d+ MiB, \d+ MiB in this machine$", told, re.MULTILINE)
    assert re.search(r"^one slice +\d+\.\d\d s, \d+ MiB at most in this process$", told, re.MULTILINE)
    assert re.search(r"^time +about \d+ s for 10 slices, in one process$", told, re.MULTILINE)
    assert sorted(path.name for path in runs.parent.iterdir()) == ["runs"]


def test_a_dry_run_names_every_file_that_cannot_be_read(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("c", "d"):
        (runs / f"{name}.h5").write_text("text")
    code, lines = dry_run(capsys, runs, "-o", runs.parent / "out")
    assert code == 2
    assert [line.split(": ")[:2] for line in lines[:2]] == [
        [str(runs / f"{name}.h5"), "left out"] for name in ("c", "d")
    ]
    assert "for 10 slices" in lines[-1]


def test_too_little_room_is_a_problem(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000))
    monkeypatch.setattr(estimate, "machine_memory", lambda: 2**29)
    words = ("-o", runs.parent / "out", "--executor", "processes", "--workers", 2)
    told = "\n".join(dry_run(capsys, runs, *words)[1])
    assert "problem: expected room for 1 MiB, parts included" in told
    assert "problem: expected room in memory for all; take fewer workers or a smaller batch" in told
    assert "in 2 processes" in told


def test_blocks_fit_into_memory(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = open_scan(runs / "a.h5", centre=CENTRE)

    def job(solver: str) -> Job:
        return Job(files=(runs / "a.h5",), output=runs / "out.h5", solver=solver)

    plain, network, through = (slice_bytes(scan, job(name)) for name in ("tv", "flower", "d-flow"))
    assert plain < network < through
    for memory, expected in ((2**40, 4), (10 * network, 4), (6 * network, 2), (network, 1)):
        monkeypatch.setattr(block_size, "machine_memory", lambda memory=memory: memory)
        assert slices_at_once(scan, job("flower"), CPU) == expected


def test_a_queue_may_give_less_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(text: str) -> int:
        (tmp_path / "memory.max").write_text(text)
        return block_size.machine_memory()

    monkeypatch.setattr(block_size, "_LIMITS", ())
    whole = block_size.machine_memory()
    monkeypatch.setattr(block_size, "_LIMITS", (tmp_path / "none", tmp_path / "memory.max"))
    assert limited("max\n") == whole
    assert limited("1000000\n") == 1_000_000


def test_a_slice_that_fails_leaves_the_time_unknown(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("fbp: not today")

    monkeypatch.setattr("ctflow.solvers.direct.FBP.__call__", broken)
    _, lines = dry_run(capsys, runs, "-o", runs.parent / "out")
    assert lines[-1] == "time           unknown: fbp: not today"
