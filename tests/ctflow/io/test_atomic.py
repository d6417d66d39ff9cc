"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from ctflow.io.atomic import check_room, check_writable, replacing, replacing_folder
from ctflow.io.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.h5") as file:
        file["x"] = 1
        assert "a.h5" not in names(tmp_path)
    assert names(tmp_path) == ["a.h5"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][()] == 1


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.h5"
    with replacing(target) as file:
        file["x"] = 1

    def fail() -> None:
        with replacing(target, overwrite=True) as file:
            file["x"] = 2
            raise error

    with pytest.raises(OutputError if error is OSError else error):
        fail()
    assert names(tmp_path) == ["a.h5"]
    with h5py.File(target) as file:
        assert file["x"][()] == 1


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.h5"
    with replacing(target) as file:
        file["x"] = 1
    script = (
        "import os, signal, sys; from ctflow.io.atomic import replacing\n"
        "with replacing(sys.argv[1], True) as file:\n"
        "    file['x'] = 2; file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(target)]).returncode == -signal.SIGKILL
    with h5py.File(target) as file:
        assert file["x"][()] == 1
    with replacing(target, overwrite=True) as file:
        file["x"] = 3
    with h5py.File(target) as file:
        assert file["x"][()] == 3


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.h5"

    def race() -> None:
        with replacing(target) as file:
            file["x"] = 1
            target.write_text("of somebody else")

    with pytest.raises(OutputError, match="exists already"):
        race()
    assert target.read_text() == "of somebody else"
    assert names(tmp_path) == ["a.h5"]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "a.h5").symlink_to(tmp_path / "store" / "real.h5")
    with replacing(tmp_path / "a.h5", overwrite=True) as file:
        file["x"] = 1
    assert (tmp_path / "a.h5").is_symlink()
    assert names(tmp_path / "store") == ["real.h5"]


def test_what_cannot_be_written_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "scan.h5"
    source.write_text("counts")
    (tmp_path / "old.h5").write_text("images")
    for path, overwrite, message in (
        (tmp_path, False, "expected the name of a file to write, found a folder"),
        (tmp_path / "no" / "a.h5", False, "no does not exist"),
        (source / "a.h5", False, "scan.h5 is not a folder"),
        (tmp_path / "old.h5", False, "the file exists already"),
        (source, True, "expected another name than that of the file being read"),
    ):
        with pytest.raises(OutputError, match=message):
            check_writable(path, overwrite, sources=[source])
    check_writable(tmp_path / "old.h5", True, sources=[source])
    assert names(tmp_path) == ["old.h5", "scan.h5"]
    assert (source.read_text(), (tmp_path / "old.h5").read_text()) == ("counts", "images")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match=r"b\.h5: cannot write here \(Permission denied\)"):
        check_writable(tmp_path / "b.h5")


def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "series"
    target.mkdir()  # an empty one may be there
    with replacing_folder(target) as folder:
        (folder / "a.dcm").write_text("1")
        assert names(target) == []
    assert (names(tmp_path), names(target)) == (["series"], ["a.dcm"])


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "series"
    with replacing_folder(target) as folder:
        (folder / "a.dcm").write_text("1")

    def fail() -> None:
        with replacing_folder(target, overwrite=True) as folder:
            (folder / "b.dcm").write_text("2")
            raise error

    with pytest.raises(OutputError if error is OSError else error):
        fail()
    assert (names(tmp_path), names(target)) == (["series"], ["a.dcm"])


def test_folders_are_replaced_whole_and_only_if_they_are_ours(tmp_path: Path) -> None:
    target = tmp_path / "series"
    for name, overwrite in (("a.dcm", False), ("b.dcm", True)):
        with replacing_folder(target, overwrite, ours="*.dcm") as folder:
            (folder / name).write_text("1")
    assert (names(tmp_path), names(target)) == (["series"], ["b.dcm"])
    (target / "notes.txt").write_text("words")
    for overwrite, message in (
        (False, "exists already"),
        (True, r"nothing but \*\.dcm to replace, found notes"),
    ):
        with pytest.raises(OutputError, match=message), replacing_folder(target, overwrite, ours="*.dcm"):
            pass
    with (
        pytest.raises(OutputError, match="the name of a folder to write, found a file"),
        replacing_folder(target / "b.dcm", overwrite=True),
    ):
        pass
    with pytest.raises(OutputError, match="does not exist"), replacing_folder(tmp_path / "none" / "series"):
        pass
    assert names(target) == ["b.dcm", "notes.txt"]


def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctflow.io.atomic.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    check_room(tmp_path / "recon.h5", 1000)
    with pytest.raises(OutputError, match=r"recon\.h5: expected room for 1001 bytes, found 1000 on the disk"):
        check_room(tmp_path / "recon.h5", 1001)
