"""Fetching large files: resume, checksums, refusals, and unpacking."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_scripts.downloads import (
    FetchError,
    Remote,
    chosen,
    fetch,
    fetch_json,
    listing,
    readable,
    remaining,
    require_space,
    unpack,
    zenodo_files,
)
from tests.data_scripts.served import Served, packed

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def file(served: Served) -> Remote:
    served.content["/a.zip"] = CONTENT
    return Remote("a.zip", f"{served.url}/a.zip", len(CONTENT), MD5)


def nothing(line: str) -> None:
    """Say nothing."""


def test_a_broken_connection_is_gone_on_with(served: Served, file: Remote, tmp_path: Path) -> None:
    served.breaks["/a.zip"] = 2
    said: list[str] = []
    path = fetch(file, tmp_path, said.append)
    assert path.read_bytes() == CONTENT
    half, three_quarters = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert served.asked == [("/a.zip", 0), ("/a.zip", half), ("/a.zip", three_quarters)]
    assert len(said) == 2
    assert "the connection broke" in said[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_later_run_goes_on_where_the_first_gave_up(served: Served, file: Remote, tmp_path: Path) -> None:
    served.breaks["/a.zip"] = 1
    served.answers["/a.zip"] = []
    with pytest.raises(FetchError, match=r"a\.zip: the connection broke; 1\.5 MB are kept, start"):
        fetch(file, tmp_path, nothing, tries=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip.part"]
    assert remaining([file], tmp_path) == len(CONTENT) - len(CONTENT) // 2
    assert listing([file], tmp_path) == ["    3.0 MB  a.zip  1.5 MB there already", "    1.5 MB  to fetch"]
    assert fetch(file, tmp_path, nothing).read_bytes() == CONTENT
    assert served.asked[-1] == ("/a.zip", len(CONTENT) // 2)
    asked = len(served.asked)
    fetch(file, tmp_path, nothing)
    assert len(served.asked) == asked
    assert listing([file], tmp_path)[0].endswith("a.zip  there already")


def test_a_server_without_ranges_begins_anew(served: Served, file: Remote, tmp_path: Path) -> None:
    served.ranges = False
    served.breaks["/a.zip"] = 1
    assert fetch(file, tmp_path, nothing).read_bytes() == CONTENT


def test_passing_refusals_are_waited_for_and_final_ones_not(
    served: Served, file: Remote, tmp_path: Path
) -> None:
    served.answers["/a.zip"] = [503, 429]
    assert fetch(file, tmp_path, nothing).read_bytes() == CONTENT
    assert len(served.asked) == 3
    with pytest.raises(FetchError, match="none: the server answered 404"):
        fetch(Remote("none", f"{served.url}/none"), tmp_path, nothing)
    assert len(served.asked) == 4
    served.answers["/b"] = [503] * 9
    with pytest.raises(FetchError, match=r"the server answered 503\); 0 B are kept"):
        fetch(Remote("b", f"{served.url}/b"), tmp_path, nothing)


def test_wrong_content_is_deleted(served: Served, file: Remote, tmp_path: Path) -> None:
    wrong = Remote("a.zip", file.url, file.size, "0" * 32)
    with pytest.raises(
        FetchError, match=f"expected the MD5 {'0' * 32}, found {MD5}; what was fetched is del"
    ):
        fetch(wrong, tmp_path, nothing)
    with pytest.raises(FetchError, match="expected 10 bytes, found 3000000"):
        fetch(Remote("a.zip", file.url, 10), tmp_path, nothing)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    with pytest.raises(FetchError, match=r"the \.part file is longer than the server's; delete it"):
        fetch(file, tmp_path, nothing)
    (tmp_path / "a.zip").write_bytes(b"another")
    with pytest.raises(FetchError, match=r"a\.zip: expected 3\.0 MB, found 7 B; move it away"):
        fetch(file, tmp_path, nothing)


def test_a_complete_part_is_only_checked(served: Served, file: Remote, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert fetch(file, tmp_path, nothing).read_bytes() == CONTENT
    assert served.asked == []


def test_records(served: Served) -> None:
    served.add_record(7, {"a.zip": b"one", "b.zip": b"three"})
    files = zenodo_files(7, served.url)
    assert [(file.name, file.size) for file in files] == [("a.zip", 3), ("b.zip", 5)]
    assert files[1].url == served.url + served.path_of(7, "b.zip")
    assert files[0].md5 == hashlib.md5(b"one").hexdigest()
    assert [file.name for file in chosen(files, ["b.zip"])] == ["b.zip"]
    with pytest.raises(FetchError, match=r"expected c\.zip, found a\.zip, b\.zip"):
        chosen(files, ["c.zip"])
    served.content["/api/records/8"] = b'{"files": [{}]}'
    with pytest.raises(FetchError, match="expected files with key, links, size and checksum"):
        zenodo_files(8, served.url)
    served.content["/text"] = b"<html>"
    with pytest.raises(FetchError, match="text: expected JSON, found"):
        fetch_json(f"{served.url}/text")
    with pytest.raises(FetchError, match="the server answered 404"):
        zenodo_files(9, served.url)


def test_sizes_for_a_person() -> None:
    sizes = (None, 0, 999, 1500, 3e9, 2e13)
    assert [readable(size) for size in sizes] == ["unknown", "0 B", "999 B", "1.5 kB", "3.0 GB", "20.0 TB"]


def test_space(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(FetchError, match=r"expected 1000000\.0 TB of free disk, found"):
        require_space(tmp_path, 10**18)


def test_unpacking_goes_on(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.zip", tmp_path / "out"
    archive.write_bytes(packed({"top/x.tif": b"x" * 10, "top/y.tif": b"y" * 20, "top/z.txt": b"z"}))

    def place(member: str) -> str | None:
        return member.removeprefix("top/") if member.endswith(".tif") else None

    (folder / "x.tif").parent.mkdir()
    (folder / "x.tif").write_bytes(b"kept as it" * 1)
    (folder / "y.tif").write_bytes(b"y")
    paths = unpack(archive, folder, place, nothing)
    assert paths == [folder / "x.tif", folder / "y.tif"]
    assert (folder / "x.tif").read_bytes() == b"kept as it"
    assert (folder / "y.tif").read_bytes() == b"y" * 20
    assert sorted(entry.name for entry in folder.iterdir()) == ["x.tif", "y.tif"]


def test_archives_that_are_none(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("../out.txt", "x")
    with pytest.raises(FetchError, match="would leave"):
        unpack(archive, tmp_path / "out", lambda member: member, nothing)
    whole = packed({"x": bytes(1000)})
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FetchError, match="expected a whole ZIP file"):
        unpack(archive, tmp_path / "out", lambda member: member, nothing)
