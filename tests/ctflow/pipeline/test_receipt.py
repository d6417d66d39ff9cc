"""A finished job that is asked for again: answered at once unless something was changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from ctflow.cli import main
from ctflow.pipeline import block_size, checks, running
from ctflow.pipeline.job import Job
from ctflow.pipeline.receipt import request_of
from tests.ctflow.io.measured import write_dxchange
from tests.ctflow.priors import write_prior

Said = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a measured file, in which the commands run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_dxchange(folder / "scan.h5", noise=True)
    return folder


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each file that a job has opened."""
    opened: list[object] = []
    whole = checks.open_scan

    def open_scan(file: object, **reading: object) -> object:
        opened.append(file)
        return whole(file, **reading)  # type: ignore[arg-type]

    monkeypatch.setattr(checks, "open_scan", open_scan)
    return opened


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Reconstruct; exit code and standard output."""

    def call(*words: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as caught:
            main(["reconstruct", *words])
        return int(caught.value.code or 0), capsys.readouterr().out.splitlines()

    return call


JOB = ("scan.h5", "-o", "r.h5", "--solver", "fbp")


def test_a_finished_job_is_known_without_torch(folder: Path) -> None:
    command = "import sys; from ctflow.cli import main; sys.argv[0] = 'ctflow'\n"
    command += "try: main()\nfinally: print('torch' in sys.modules)"
    words = [sys.executable, "-c", command, "reconstruct", *JOB]
    for how, torch in (("in ", "True"), ("there already", "False")):
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        first, picture, found = done.stdout.splitlines()
        assert first.startswith("r.h5: 3 slices ")
        assert how in first
        assert (picture, found) == ("r.png", torch)


def test_streams_that_are_closed(folder: Path) -> None:
    words = [sys.executable, "-m", "ctflow", "reconstruct", *JOB]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], check=False)
    assert done.returncode == 0
    with h5py.File(folder / "r.h5") as file:
        assert set(file["status"].asstr()) == {"done"}


def test_nothing_is_opened_again_until_something_changes(
    folder: Path, said: Said, looked: list[object]
) -> None:
    before = said(*JOB)
    assert before[0] == 0
    assert len(looked) == 1
    there = (0, ["r.h5: 3 slices there already", "r.png"])
    for _ in range(2):
        assert said(*JOB) == there
    assert len(looked) == 1
    # Not another file, only touched: looked at in full once.
    os.utime(folder / "scan.h5")
    for _ in range(2):
        assert said(*JOB) == there
    assert len(looked) == 2


def _another_input(folder: Path) -> None:
    with h5py.File(folder / "scan.h5", "r+") as file:
        file["exchange/data"][0] *= 0.9


def _damaged_output(folder: Path) -> None:
    os.truncate(folder / "r.h5", (folder / "r.h5").stat().st_size // 2)


@pytest.mark.parametrize(
    "change",
    [
        _another_input,
        _damaged_output,
        lambda folder: (folder / "r.h5").unlink(),
        lambda folder: (folder / "r.png").unlink(),
        lambda folder: (folder / "scan.h5").unlink(),
        lambda folder: os.environ.update(OMP_NUM_THREADS="1"),
    ],
)
def test_a_change_is_seen(
    folder: Path,
    said: Said,
    looked: list[object],
    change: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a change does to the environment ends with the test.
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    said(*JOB)
    change(folder)
    said(*JOB)
    assert len(looked) == 2


@pytest.mark.parametrize("option", [("--views", "30"), ("--set", "filter=hann"), ("--seed", "1")])
def test_another_option_is_another_job(
    folder: Path, said: Said, looked: list[object], option: tuple[str, str]
) -> None:
    said(*JOB)
    assert said(*JOB, *option)[0] == 2
    assert len(looked) == 2


def test_folders_patterns_and_lists_are_read_again(folder: Path, said: Said, looked: list[object]) -> None:
    (folder / "runs").mkdir()
    for name in "ab":
        write_dxchange(folder / "runs" / f"{name}.h5", noise=True)
    (folder / "list.txt").write_text("runs/*.h5\n")
    for k, word in enumerate(("runs", "runs/*.h5", "@list.txt")):
        looked.clear()
        words = (word, "-o", f"out{k}", "--solver", "fbp")
        assert [len(said(*words)[1]) for _ in range(2)] == [4, 4]
        assert len(looked) == 2
        write_dxchange(folder / "runs" / f"c{k}.h5", noise=True)
        assert len(said(*words)[1]) == 6
        assert len(looked) == 5
        (folder / "runs" / f"c{k}.h5").unlink()


def test_folders_that_a_pattern_fits_are_looked_into(folder: Path) -> None:
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "runs" / "one" / "1.dcm").touch()
    asked = [{"files": words} for words in ("runs/*", "runs", ["runs/one"])]
    before = [request_of(settings) for settings in asked]
    assert [request_of(settings) for settings in asked] == before
    (folder / "runs" / "one" / "1.dcm").write_text("nothing that a name tells")
    assert [request_of(settings) for settings in asked] == before
    (folder / "runs" / "one" / "2.dcm").touch()
    assert all(request_of(settings) != old for settings, old in zip(asked, before, strict=True))


def test_another_limit_of_memory_is_another_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"files": "scan.h5"}
    before = request_of(settings)
    (folder / "limit").write_text("1000000000\n")
    monkeypatch.setattr(block_size, "_LIMITS", (folder / "limit",))
    assert request_of(settings) != before


def test_settings_of_which_no_job_comes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings in ("{1: 2, a: b}", "{2020-01-01: 3}", "&all {a: *all}"):
        (folder / "job.yaml").write_text(f"files: scan.h5\noutput: r.h5\nsolver: fbp\nsettings: {settings}\n")
        with pytest.raises(SystemExit) as ended:
            main(["reconstruct", "--config", "job.yaml"])
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_outputs_that_another_job_put_there_meanwhile(
    folder: Path, said: Said, looked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = running.run

    def run(job: Job, *rest: object) -> object:
        outcomes = whole(job, *rest)  # type: ignore[arg-type]
        if job.seed == 0:
            whole(job.model_copy(update={"seed": 1, "overwrite": True}))
        return outcomes

    with monkeypatch.context() as patched:
        patched.setattr(running, "run", run)
        assert said(*JOB)[0] == 0
    assert said(*JOB)[0] == 2
    assert len(looked) == 3


@pytest.mark.parametrize("output", [".", "out"])
def test_outputs_beside_the_input_change_nothing(
    folder: Path, said: Said, looked: list[object], output: str
) -> None:
    words = (".", "-o", output, "--solver", "fbp")
    assert [len(said(*words)[1]) for _ in range(2)] == [2, 2]
    assert len(looked) == 1


def test_a_settings_file_and_a_prior_count(folder: Path, said: Said, looked: list[object]) -> None:
    write_prior(folder)
    job = "files: scan.h5\noutput: r.h5\nsolver: flower\nprior: tiny\nslices: 0\nsettings: {steps: 1}\n"
    (folder / "job.yaml").write_text(job)
    for _ in range(2):
        assert said("--config", "job.yaml")[0] == 0
    assert len(looked) == 1
    (folder / "job.yaml").write_text(job.replace("steps: 1", "steps: 2"))
    assert said("--config", "job.yaml")[0] == 2
    assert len(looked) == 2
    (folder / "job.yaml").write_text(job)
    os.utime(folder / "tiny.safetensors")
    assert said("--config", "job.yaml")[0] == 0
    assert len(looked) == 3


def test_a_prior_that_is_replaced_meanwhile(
    folder: Path, said: Said, looked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prior(folder)
    whole = running.run

    def run(*arguments: object) -> object:
        outcomes = whole(*arguments)  # type: ignore[arg-type]
        os.utime(folder / "tiny.safetensors")
        return outcomes

    monkeypatch.setattr(running, "run", run)
    words = ("scan.h5", "-o", "r.h5", "--prior", "tiny", "--slices", "0", "--steps", "1")
    for _ in range(2):
        assert said(*words)[0] == 0
    assert len(looked) == 2


def test_failed_slices_are_never_called_done(folder: Path, said: Said, looked: list[object]) -> None:
    with h5py.File(folder / "scan.h5", "r+") as file:
        data = file["exchange/data"][()].astype("float32")
        data[:, 2] = float("nan")
        del file["exchange/data"]
        file["exchange/data"] = data
    assert [said(*JOB)[0] for _ in range(2)] == [1, 1]
    assert len(looked) == 2


@pytest.mark.parametrize("cache", ["/dev/null", "damaged"])
def test_no_cache_costs_nothing_but_time(
    folder: Path, said: Said, looked: list[object], cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cache == "damaged":
        said(*JOB)
        (receipt,) = (folder.parent / "cache" / "ctflow" / "finished").iterdir()
        receipt.write_text('{"states": {"r.h5": 1}}')
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        said(*JOB)
    assert said(*JOB)[0] == 0
    assert len(looked) == 2
