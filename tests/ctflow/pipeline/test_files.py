"""Names, patterns, folders and lists of measured files, in Python, in YAML and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctflow.pipeline.files import measured_files
from ctflow.pipeline.job import load_job


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.h5", "a.h5", "c.nxs", "a_recon.h5", ".hidden.h5", "notes.txt", "deep/d.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("# the good ones\nb.h5\n\ndeep\n")
    return tmp_path


def names(folder: Path, *words: str) -> list[str]:
    return [str(file.relative_to(folder)) for file in measured_files(str(folder / word) for word in words)]


def test_words(folder: Path) -> None:
    assert names(folder, "b.h5", "a.h5") == ["b.h5", "a.h5"]
    assert names(folder, "[ab].h5") == ["a.h5", "b.h5"]
    # What was measured and not what ctflow wrote.
    assert names(folder, "**/*.h5") == ["a.h5", "b.h5", "deep/d.h5"]
    assert names(folder, ".") == ["a.h5", "b.h5", "c.nxs"]
    assert names(folder, "b.h5", ".", "*.h5") == ["b.h5", "a.h5", "c.nxs"]
    for named in ("missing.h5", "a_recon.h5"):
        assert names(folder, named) == [named]


def test_lists_start_at_their_own_folder(folder: Path) -> None:
    found = measured_files([f"@{folder / 'list.txt'}"])
    assert [file.relative_to(folder) for file in found] == [Path("b.h5"), Path("deep/d.h5")]


def test_a_list_holds_no_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "list.txt").write_text("@list.txt\n")
    assert measured_files(["@list.txt"]) == (Path("@list.txt"),)


@pytest.mark.parametrize("word", ["'@list.txt'", "[b.h5, deep]", "['b.h5', 'deep/*.h5']"])
def test_yaml(folder: Path, word: str) -> None:
    (folder / "job.yaml").write_text(f"files: {word}\noutput: out\nsolver: fbp\n")
    job = load_job(folder / "job.yaml", {})
    assert job.files == (folder / "b.h5", folder / "deep" / "d.h5")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("*.nx", "files: expected a measured file that fits '.*nx', found none"),
        ("*_recon.h5", "files: expected a measured file that fits '.*', found none"),
        ("empty", "empty: expected a scan or measured files in the folder, found none"),
        ("@no.txt", "no.txt: expected a list of measured files: No such file"),
        ("@empty.txt", "empty.txt: expected a measured file in each line, found none"),
        ("@binary.txt", "binary.txt: expected a list of measured files: not a text"),
    ],
)
def test_words_that_stand_for_nothing(folder: Path, word: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    word = f"@{folder / word[1:]}" if word.startswith("@") else str(folder / word)
    with pytest.raises(ValueError, match=message):
        measured_files([word])
