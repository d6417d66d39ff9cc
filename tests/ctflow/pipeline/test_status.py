"""How far a job is: running, dead, finished, and with failures that a file tells of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ctflow.cli import main
from ctflow.io.errors import OutputError
from ctflow.io.parts import parts_folder
from ctflow.io.results import write_result
from ctflow.pipeline import Job, Progress, run
from ctflow.pipeline.lock import Lock
from ctflow.pipeline.status import status_of
from tests.ctflow.io.measured import CENTRE, write_dxchange


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_dxchange(tmp_path / "scan.h5", slices=6)
    values = {"files": (tmp_path / "scan.h5",), "output": tmp_path / "recon.h5", "solver": "fbp"}
    return Job(**values, centre=CENTRE, batch=2, threads=1)


def test_running_dead_and_finished(job: Job) -> None:
    states: list[tuple[int, int, str]] = []

    def look(progress: Progress) -> None:
        (status,) = status_of(job.output)
        states.append((status.done, status.remaining, status.state))

    stops = iter([False] * 3)
    run(job, look, stop=lambda: next(stops, True))
    done, remaining, state = states[-1]
    assert state.startswith(f"running (process {os.getpid()} on ")
    assert 0 < done == 6 - remaining
    for path in (job.output, parts_folder(job.output), job.output.parent):
        (status,) = status_of(path)
        assert (status.output, status.state, status.slices) == (job.output, "stopped", 6)
        assert 0 < status.done < 6
    run(job)
    for path in (job.output, job.output.parent):
        (status,) = status_of(path)
        assert (status.state, status.done, status.remaining) == ("finished", 6, 0)


def test_before_the_slices_are_known(job: Job) -> None:
    folder = parts_folder(job.output)
    folder.mkdir()
    lock = Lock(folder)
    lock.acquire()
    for path in (job.output, job.output.parent):
        (status,) = status_of(path)
        assert (status.output, status.slices, status.done) == (job.output, 0, 0)
        assert status.state.startswith(f"starting (process {os.getpid()} on ")
    lock.release()
    for path in (job.output, job.output.parent):
        with pytest.raises(OutputError, match="expected"):
            status_of(path)


def test_for_a_program(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    run(job)
    with pytest.raises(SystemExit) as ended:
        main(["status", str(job.output), "--json"])
    assert not ended.value.code
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {
        "output": str(job.output),
        "slices": 6,
        "done": 6,
        "failed": {},
        "remaining": 0,
        "state": "finished",
    }


def test_reasons_in_a_file_do_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, status = torch.zeros(2, 3, 3), ["done", "failed: \x1b[2J gone"]
    write_result(tmp_path / "recon.h5", images, status=status, attributes={"slices": "4:6"})
    with pytest.raises(SystemExit):
        main(["status", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("finished, 1 of 2 slices done, 1 failed, 0 remaining")
    assert lines[1] == "  slice 5: \\x1b[2J gone"


def test_places_without_a_job(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("text")
    for path, message in (
        (tmp_path, "expected reconstructions or parts of them, found none"),
        (tmp_path / "no.h5", r"no\.h5: expected a reconstruction or parts of one, found neither"),
        (tmp_path / "text.h5", r"text\.h5"),
    ):
        with pytest.raises(OutputError, match=message) as caught:
            status_of(path)
        assert "\n" not in str(caught.value)
