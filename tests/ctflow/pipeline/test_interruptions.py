"""What interrupts a job, and that running it again ends in the same file."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.cli import main
from ctflow.io.parts import parts_folder
from ctflow.io.results import read_result
from ctflow.pipeline import Job, results, run
from ctflow.pipeline.blocks import Worker
from ctflow.pipeline.lock import Lock, holder_of
from ctflow.pipeline.running import Progress
from ctflow.pipeline.status import status_of
from ctflow.problem import InverseProblem
from ctflow.solvers import CGLS
from tests.ctflow.io.measured import CENTRE, write_dxchange

SLICES, LONG = 8, 100
# What may differ between two runs: when they ran and how long they took.
TIMES = {"created", "seconds", "source_state", "blocks"}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_dxchange(tmp_path / "scan.h5", noise=True, slices=SLICES)
    return tmp_path / "scan.h5"


def job(scan: Path, name: str, **changes: Any) -> Job:
    values = {"files": [scan], "output": scan.parent / name, "solver": "cgls", "centre": CENTRE, "batch": 2}
    return Job(**(values | {"settings": {"iterations": 3}, "threads": 1} | changes))


def content(file: Path) -> dict[str, Any]:
    """Every bit of a file but its times."""
    with h5py.File(file) as stored:
        found: dict[str, Any] = {
            name: stored[name][()].tobytes() if name != "status" else list(stored[name].asstr()[()])
            for name in stored
            if name not in TIMES
        }
        return found | {key: value for key, value in stored.attrs.items() if key not in TIMES}


@pytest.fixture
def expected(scan: Path) -> dict[str, Any]:
    (outcome,) = run(job(scan, "whole.h5"))
    return content(outcome.output)


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_run_goes_on_where_it_was_killed(
    scan: Path, expected: dict[str, Any], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, solved = Worker.solve, []

    def dies(self: Worker, task: Any, *rest: Any) -> Any:
        if len(solved) == blocks:
            raise Killed
        solved.append(task.block)
        return original(self, task, *rest)

    monkeypatch.setattr(Worker, "solve", dies)
    with pytest.raises(Killed):
        run(job(scan, "recon.h5"))
    output = scan.parent / "recon.h5"
    assert not output.exists()
    written = sorted(parts_folder(output).glob("*.h5"))
    (status,) = status_of(output)
    assert (status.state, status.slices, status.done) == ("stopped", SLICES, 2 * len(written))
    monkeypatch.undo()
    (outcome,) = run(job(scan, "recon.h5"))
    assert outcome.computed == SLICES - 2 * len(written)
    assert content(output) == expected
    assert not parts_folder(output).exists()
    (status,) = status_of(output)
    assert (status.state, status.done, status.remaining) == ("finished", SLICES, 0)


def test_a_finished_job_computes_nothing(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = run(job(scan, "recon.h5"))
    before = first.output.read_bytes()

    def never(*arguments: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(Worker, "solve", never)
    for changes in ({}, {"overwrite": True}, {"executor": "serial", "keep_going": True}):
        (again,) = run(job(scan, "recon.h5", **changes))
        assert (again.output, again.picture, again.computed) == (first.output, first.picture, 0)
    assert first.output.read_bytes() == before


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"settings": {"iterations": 4}}, {"batch": 3}, {"views": 20}, {"slices": "1:"}]
)
def test_other_settings_replace_nothing_unless_allowed(scan: Path, changes: dict[str, Any]) -> None:
    (first,) = run(job(scan, "recon.h5"))
    before, number = first.output.read_bytes(), read_result(first.output).attributes["fingerprint"]
    with pytest.raises(ValueError, match=r"recon\.h5: the file exists already, made with other settings"):
        run(job(scan, "recon.h5", **changes))
    assert first.output.read_bytes() == before
    assert not parts_folder(first.output).exists()
    (second,) = run(job(scan, "recon.h5", overwrite=True, **changes))
    assert second.computed == second.slices
    assert read_result(second.output).attributes["fingerprint"] != number


def test_parts_of_other_settings_are_kept_unless_allowed(
    scan: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter([False, False, False, True, True, True, True, True])
    run(job(scan, "recon.h5", seed=1), stop=lambda: next(stops, True))
    folder = parts_folder(scan.parent / "recon.h5")
    there = {file.name for file in folder.glob("*.h5")}
    assert there
    with pytest.raises(ValueError, match="holds parts made with other settings"):
        run(job(scan, "recon.h5"))
    assert {file.name for file in folder.glob("*.h5")} == there
    run(job(scan, "recon.h5", overwrite=True))
    assert content(scan.parent / "recon.h5") == expected


def test_a_changed_input_is_noticed(scan: Path) -> None:
    run(job(scan, "recon.h5"))
    with h5py.File(scan, "r+") as file:
        file["/exchange/data"][0, 0, 0] += 1
    with pytest.raises(ValueError, match="made with other settings"):
        run(job(scan, "recon.h5"))


def test_a_change_of_data_that_lie_in_another_file_is_noticed(scan: Path) -> None:
    data, raw = "/exchange/data", scan.with_name("raw.h5")
    with h5py.File(scan, "r+") as file, h5py.File(raw, "w") as other:
        file.copy(data, other, "data")
        del file[data]
        file[data] = h5py.ExternalLink("raw.h5", "data")
    run(job(scan, "recon.h5"))
    (again,) = run(job(scan, "recon.h5"))
    assert again.computed == 0
    with pytest.raises(ValueError, match=r"raw\.h5: expected another name than that of the file being read"):
        run(job(scan, "raw.h5", overwrite=True))
    with h5py.File(raw, "r+") as file:
        file["data"][0, 0, 0] += 1
    with pytest.raises(ValueError, match="made with other settings"):
        run(job(scan, "recon.h5"))


def test_a_damaged_part_is_computed_again(
    scan: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter([False] * 4)
    run(job(scan, "recon.h5"), stop=lambda: next(stops, True))
    folder = parts_folder(scan.parent / "recon.h5")
    parts = sorted(folder.glob("*.h5"))
    parts[0].write_bytes(parts[0].read_bytes()[:-300])
    (folder / ".000004-000006.h5.1-ab.part").write_bytes(b"half of it")
    (outcome,) = run(job(scan, "recon.h5"))
    assert outcome.computed == SLICES - 2 * (len(parts) - 1)
    assert content(outcome.output) == expected


def test_failed_slices_are_retried_and_the_rest_is_kept(
    scan: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Worker.read

    def vanished(self: Worker, task: Any) -> Any:
        if 3 in task.block:
            return OSError(errno.ESTALE, "Stale file handle")
        return original(self, task)

    monkeypatch.setattr(Worker, "read", vanished)
    (outcome,) = run(job(scan, "recon.h5"))
    assert list(outcome.failed) == [3]
    assert "Stale file handle" in outcome.failed[3]
    assert bool(torch.isnan(read_result(outcome.output).images[3]).all())
    monkeypatch.undo()
    (left,) = run(job(scan, "recon.h5"))
    assert (list(left.failed), left.computed) == ([3], 0)
    (retried,) = run(job(scan, "recon.h5", retry_failed=True))
    assert (retried.failed, retried.computed) == ({}, 2)
    assert content(retried.output) == expected


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full for every file beyond so many bytes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_blocks_that_the_disk_has_no_room_for_are_failures_to_be_retried(
    scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Blocks of three slices take 0.7 MB, the last one of two 0.5 MB.
    changes = {"size": 256, "batch": 3}
    (whole,) = run(job(scan, "whole.h5", **changes))
    assert whole.output is not None
    output = scan.parent / "recon.h5"
    words = command(scan, output, "--size", "256", "--batch", "3")[3:]
    with largest_file(600_000), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert "slice 5 failed: not written: " in told.err
    assert "--retry-failed" in told.err
    assert f"{output}: 2 slices in" in told.out
    result = read_result(output)
    assert result.status[6:] == ("done", "done")
    assert all("File too large" in status for status in result.status[:6])
    assert torch.equal(result.images[6:], read_result(whole.output).images[6:])
    with pytest.raises(SystemExit) as ended:
        main([*words, "--retry-failed"])
    assert ended.value.code == 0
    assert content(output) == content(whole.output)


def test_a_disk_without_room_for_anything_loses_nothing(scan: Path, expected: dict[str, Any]) -> None:
    stops = iter([False] * 4)
    run(job(scan, "recon.h5"), stop=lambda: next(stops, True))
    there = status_of(scan.parent / "recon.h5")[0].done
    with largest_file(2048):
        (outcome,) = run(job(scan, "recon.h5"))
    assert (outcome.output, outcome.computed) == (None, SLICES - there)
    assert "File too large" in (outcome.unfinished or "")
    (again,) = run(job(scan, "recon.h5"))
    assert again.computed == SLICES - there > 0
    assert content(again.output) == expected


def test_a_measured_file_that_vanishes_midway(scan: Path, expected: dict[str, Any]) -> None:
    away = scan.with_suffix(".away")

    def vanish(progress: Progress) -> None:
        if progress.block is not None and scan.exists():
            scan.rename(away)

    (outcome,) = run(job(scan, "recon.h5"), vanish)
    assert 0 < len(outcome.failed) < SLICES
    assert all("scan.h5" in reason for reason in outcome.failed.values())
    away.rename(scan)
    (retried,) = run(job(scan, "recon.h5", retry_failed=True))
    assert retried.computed == len(outcome.failed)
    assert content(retried.output) == expected


def test_a_measured_file_that_vanishes_before_its_turn(scan: Path, expected: dict[str, Any]) -> None:
    files = [scan.with_name(f"{name}.h5") for name in "abc"]
    for file in files:
        file.write_bytes(scan.read_bytes())

    def vanish(progress: Progress) -> None:
        files[1].unlink(missing_ok=True)

    output = scan.parent / "out"
    first, gone, last = run(job(scan, "out", files=files), vanish)
    assert (gone.output, gone.unfinished) == (None, f"{files[1]}: No such file or directory")
    for outcome in (first, last):
        assert content(outcome.output)["reconstruction"] == expected["reconstruction"]
    assert [status.output for status in status_of(output)] == [first.output, last.output]
    # Nobody is at it any more.
    assert holder_of(parts_folder(output / "b_recon.h5")) is None
    with pytest.raises(ValueError, match=r"b\.h5: file: expected an HDF5 file, found no such file"):
        run(job(scan, "out", files=files))


def test_a_measured_file_that_becomes_another_before_its_turn(scan: Path) -> None:
    other = scan.with_name("other.h5")
    other.write_bytes(scan.read_bytes())

    def replace(progress: Progress) -> None:
        write_dxchange(other, lambda file: file.__delitem__("/exchange/theta"), noise=True)

    first, left = run(job(scan, "out", files=[scan, other]), replace)
    assert first.computed == SLICES
    assert left.output is None
    assert "other.h5: was changed since it was checked" in (left.unfinished or "")


def test_a_measured_file_that_loses_slices_midway(scan: Path) -> None:
    other = scan.with_name("other.h5")
    other.write_bytes(scan.read_bytes())
    write_dxchange(scan.with_suffix(".short"), noise=True, slices=3)

    def shrink(progress: Progress) -> None:
        if progress.file == scan and progress.block is not None:
            with suppress(FileNotFoundError):
                scan.with_suffix(".short").replace(scan)

    shrunk, whole = run(job(scan, "out", files=[scan, other]), shrink)
    assert shrunk.unfinished == "the measured file was changed meanwhile"
    assert 7 in shrunk.failed
    assert whole.computed == SLICES


def test_a_measured_file_that_changes_midway_spoils_no_output(scan: Path) -> None:
    def change(progress: Progress) -> None:
        os.utime(scan, ns=(1, 1))

    (outcome,) = run(job(scan, "recon.h5"), change)
    assert outcome.unfinished == "the measured file was changed meanwhile"
    # Its content is the same, as the next run finds out.
    (again,) = run(job(scan, "recon.h5"))
    assert (again.computed, again.unfinished) == (0, None)


def test_a_signal_in_the_last_block_stops_nothing(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def shown() -> Iterator[Callable[[Progress], None]]:
        seen: list[Progress] = []

        def look(progress: Progress) -> None:
            if not seen and progress.done == progress.slices:
                seen.append(progress)
                os.kill(os.getpid(), signal.SIGTERM)

        yield look

    monkeypatch.setattr("ctflow.progress.shown", shown)
    with pytest.raises(SystemExit) as caught:
        main(["reconstruct", str(scan), "-o", str(scan.with_name("r.h5")), "--solver", "fbp"])
    assert caught.value.code == 0
    assert "to go on" not in capsys.readouterr().err


def test_a_target_that_turns_read_only(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ValueError, match=r"recon\.h5: cannot write here \(Read-only file system\)"):
        run(job(scan, "recon.h5"))


def test_a_dask_cluster_gives_the_same_bits(
    scan: Path, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ctflow.pipeline.executors")
    (outcome,) = run(job(scan, "recon.h5", executor="dask", workers=2))
    assert content(outcome.output) == expected
    assert any(line.startswith("dashboard: http://127.0.0.1:") for line in caplog.messages)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_same_bits(scan: Path, expected: dict[str, Any], workers: int) -> None:
    (outcome,) = run(job(scan, "recon.h5", executor="processes", workers=workers))
    found = content(outcome.output)
    assert found == expected


def test_each_slice_is_told_when_it_is_known(scan: Path) -> None:
    seen = list(results(job(scan, "recon.h5")))
    assert sorted(one.index for one in seen) == list(range(SLICES))
    again = list(results(job(scan, "recon.h5")))
    images = read_result(scan.parent / "recon.h5").images
    for one in (*seen, *again):
        assert torch.equal(one.image, images[one.index])


def test_two_jobs_do_not_write_one_target(scan: Path) -> None:
    output = scan.parent / "recon.h5"
    folder = parts_folder(output)
    folder.mkdir()
    lock = Lock(folder)
    lock.acquire()
    with pytest.raises(ValueError, match=rf"another job is writing here: process {os.getpid()} on"):
        run(job(scan, "recon.h5"))
    assert holder_of(folder)["pid"] == os.getpid()
    lock.release()
    # The lock of a process that died is a file and nothing more.
    (folder / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    assert holder_of(folder) is None
    run(job(scan, "recon.h5"))
    assert output.exists()


def command(scan: Path, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ctflow", "reconstruct", str(scan), "-o", str(output), "--solver", "cgls"),
        *("--centre", str(CENTRE), "--batch", "2", "--threads", "1", "--set", "iterations=3", *more),
    ]


def waited_for(folder: Path, process: subprocess.Popen[str], parts: int) -> None:
    """Return when so many parts are there."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("[0-9]*.h5"))) < parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def long_scan(tmp_path: Path) -> Path:
    write_dxchange(tmp_path / "long.h5", noise=True, slices=LONG)
    return tmp_path / "long.h5"


@pytest.fixture
def long_expected(long_scan: Path) -> dict[str, Any]:
    (outcome,) = run(job(long_scan, "whole.h5"))
    return content(outcome.output)


def test_sigkill_at_any_moment(long_scan: Path, long_expected: dict[str, Any]) -> None:
    output = long_scan.parent / "recon.h5"
    generator = np.random.default_rng(0)
    kills = 0
    for parts in np.sort(generator.integers(1, 40, 3)):
        process = subprocess.Popen(command(long_scan, output), stderr=subprocess.PIPE, text=True)
        waited_for(parts_folder(output), process, int(parts))
        process.kill()
        process.communicate()
        kills += not output.exists()
    assert kills == 3
    subprocess.run(command(long_scan, output), check=True, capture_output=True)
    assert content(output) == long_expected


class Cluster:
    """A Dask scheduler in a process of its own, and workers in others."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "scheduler.json"
        place = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self._file)]
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._started("scheduler", *place)

    @property
    def address(self) -> str:
        """Of the scheduler, as soon as it has one."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return str(json.loads(self._file.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):  # not there, or not all of it
                assert self.scheduler.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def add_worker(self) -> None:
        """Another process of one thread."""
        self.workers.append(self._started("worker", self.address, "--nthreads", "1", "--no-nanny"))

    def running(self, scan: Path, output: Path) -> subprocess.Popen[str]:
        """A job on the cluster that has written three parts."""
        words = command(scan, output, "--executor", "dask", "--dask-address", self.address)
        job = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        waited_for(parts_folder(output), job, 3)
        return job

    def _started(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "dask", what, *options, "--no-dashboard"]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    try:
        found.add_worker()
        yield found
    finally:
        for process in (*found.workers, found.scheduler):
            process.kill()
            process.wait()


def test_a_killed_scheduler_loses_nothing(
    long_scan: Path, long_expected: dict[str, Any], cluster: Cluster
) -> None:
    output = long_scan.parent / "recon.h5"
    running = cluster.running(long_scan, output)
    cluster.scheduler.kill()
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "error: the Dask scheduler was lost" in errors
    assert not output.exists()
    assert 0 < status_of(output)[0].done < LONG
    again = subprocess.run(command(long_scan, output), check=True, capture_output=True, text=True)
    assert f"{LONG} slices in" in again.stdout
    assert content(output) == long_expected


def test_a_worker_that_joins_midway_takes_over_from_one_that_is_killed(
    long_scan: Path, long_expected: dict[str, Any], cluster: Cluster
) -> None:
    output = long_scan.parent / "recon.h5"
    running = cluster.running(long_scan, output)
    cluster.workers[0].kill()
    assert running.poll() is None
    assert not output.exists()
    cluster.add_worker()
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert content(output) == long_expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(long_scan: Path, number: signal.Signals) -> None:
    output = long_scan.parent / "recon.h5"
    process = subprocess.Popen(command(long_scan, output), stderr=subprocess.PIPE, text=True)
    waited_for(parts_folder(output), process, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopping after the block in hand" in errors
    assert f"to go on: ctflow reconstruct {long_scan} -o {output}" in errors
    done = status_of(output)[0].done
    assert 0 < done < LONG
    again = subprocess.run(command(long_scan, output), check=True, capture_output=True, text=True)
    assert f"{LONG} slices in" in again.stdout


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_ctrl_c_reaches_all_processes_and_stops_none_in_its_block(
    long_scan: Path, long_expected: dict[str, Any], executor: str
) -> None:
    output = long_scan.parent / "recon.h5"
    words = command(long_scan, output, "--executor", executor, "--workers", "2")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    waited_for(parts_folder(output), process, 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "died" not in errors
    assert 0 < status_of(output)[0].done < LONG
    run(job(long_scan, "recon.h5"))
    assert content(output) == long_expected


@pytest.mark.parametrize("log", ["full", "gone"])
def test_a_log_that_cannot_be_written_ends_no_job(scan: Path, log: str) -> None:
    with h5py.File(scan, "r+") as file:
        file["/exchange/data"][0, 3, 2] = np.nan
    output = scan.parent / "recon.h5"
    if log == "full":
        with open("/dev/full", "w") as errors:
            code = subprocess.run(command(scan, output), stderr=errors).returncode
    else:
        process = subprocess.Popen(command(scan, output), stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.close()
        code = process.wait()
    assert code == 1
    assert [line[:4] for line in read_result(output).status].count("done") == SLICES - 1


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_no_process_outlives_the_job(long_scan: Path, executor: str) -> None:
    output = long_scan.parent / "recon.h5"
    words = command(long_scan, output, "--executor", executor, "--workers", "2")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    waited_for(parts_folder(output), process, 2)
    process.kill()
    try:
        # The standard error ends when the last process that writes to it does.
        process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_cluster_without_workers_is_not_waited_for(long_scan: Path, cluster: Cluster) -> None:
    output = long_scan.parent / "recon.h5"
    words = command(long_scan, output, "--executor", "dask", "--dask-address", cluster.address)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    waited_for(parts_folder(output), process, 3)
    cluster.workers[0].kill()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "to go on: ctflow reconstruct" in errors


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_a_poisonous_slice_kills_its_process_and_nothing_else(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    monkeypatch.setenv("CTFLOW_TEST_POISON", "4")
    (outcome,) = run(job(scan, "recon.h5", executor=executor, workers=2))
    assert list(outcome.failed) == [4, 5]
    assert "the process that computed it died" in outcome.failed[4]
    monkeypatch.delenv("CTFLOW_TEST_POISON")
    (again,) = run(job(scan, "recon.h5", retry_failed=True))
    assert again.failed == {}


# A worker process that dies with a block, as one that runs out of memory does.
POISON = """
import os
if "CTFLOW_TEST_POISON" in os.environ:
    import ctflow.pipeline.blocks as blocks
    original = blocks.Worker.solve
    def solve(self, task, *rest):
        if int(os.environ["CTFLOW_TEST_POISON"]) in task.block:
            os._exit(9)
        return original(self, task, *rest)
    blocks.Worker.solve = solve
"""


def test_the_same_bits_from_one_problem_at_a_time(scan: Path) -> None:
    """Batches are part of what decides the bits: the same solver on the same block gives the same."""
    images = read_result(run(job(scan, "recon.h5"))[0].output).images
    from ctflow.io.scan import open_scan

    problem = open_scan(scan, centre=CENTRE)[2:4]
    assert isinstance(problem, InverseProblem)
    assert torch.equal(CGLS(iterations=3)(problem).image, images[2:4])
