"""Progress as plain lines and as a bar."""

from __future__ import annotations

import logging
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctflow import progress
from ctflow.pipeline.running import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("ctflow.progress.time.monotonic", lambda: now.seconds)
    return now


def test_a_log_gets_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: SimpleNamespace
) -> None:
    with progress.shown() as show:
        for second in range(35):
            clock.seconds = float(second)
            show(Progress(Path("folder/scan.h5"), second / 10, 4, second / 10, 4))
    assert capsys.readouterr().err.splitlines() == [
        "scan.h5: 1.1 of 4 slices, 6 a minute, 29 s left",
        "scan.h5: 2.2 of 4 slices, 6 a minute, 18 s left",
        "scan.h5: 3.3 of 4 slices, 6 a minute, 7 s left",
    ]


def test_a_log_gets_a_line_for_each_block(capsys: pytest.CaptureFixture[str], clock: SimpleNamespace) -> None:
    with progress.shown() as show:
        for second, done, block in ((1, 0.5, None), (2, 1, range(1)), (3, 4, range(1, 4))):
            clock.seconds = float(second)
            show(Progress(Path("scan.h5"), done, 400, done, 400, block))
    assert capsys.readouterr().err.splitlines() == [
        "scan.h5: 1 of 400 slices, 30 a minute, 13 min left",
        "scan.h5: 4 of 400 slices, 105 a minute, 4 min left",
    ]


def test_what_executors_log_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("ctflow.pipeline.executors.dask_cluster")
    with progress.shown():
        log.info("dashboard: %s", "http://here\x1b[2J")
    log.info("dashboard: %s", "nowhere")
    assert capsys.readouterr().err == "dashboard: http://here\\x1b[2J\n"


def test_lines_of_several_files_count_all(capsys: pytest.CaptureFixture[str], clock: SimpleNamespace) -> None:
    with progress.shown() as show:
        for second, done in ((1, 10), (2, 12)):
            clock.seconds = float(second)
            show(Progress(Path("b.h5"), done - 8, 8, done, 20, range(1)))
    assert capsys.readouterr().err.splitlines() == [
        "b.h5: 2 of 8 slices (10 of 20 in all)",
        "b.h5: 4 of 8 slices (12 of 20 in all), 120 a minute, 4 s left",
    ]


def test_a_terminal_gets_one_bar_for_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown() as show:
        show(Progress(Path("a.h5"), 2, 4, 2, 8))
        show(Progress(Path("b.h5"), 4, 4, 8, 8))
    monkeypatch.undo()
    drawn = terminal.getvalue()
    assert all(text in drawn for text in ("b.h5", "8 of 8 slices"))


def test_training_tells_the_mean_loss_since_the_last_line(
    capsys: pytest.CaptureFixture[str], clock: SimpleNamespace
) -> None:
    say = progress.training_lines()
    for second, loss in enumerate([1.0] * 11 + [3.0] * 12):
        clock.seconds = float(second)
        say(SimpleNamespace(progress=lambda: 0.25, step=second), loss)  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == [
        " 25.0 %  step 11  loss 1.1667",
        " 25.0 %  step 22  loss 3.0000",
    ]
