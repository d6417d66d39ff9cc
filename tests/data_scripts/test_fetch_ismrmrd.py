"""ISMRMRD files from a list of addresses, from a server that breaks off."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.flows.training_settings import read_settings
from data_scripts.fetch_ismrmrd import main, read_addresses
from tests.ctflow.io.test_ismrmrd import XML, kspace, lines_of, write_ismrmrd
from tests.data_scripts.served import Served


@pytest.fixture
def addresses(served: Served, tmp_path: Path) -> Path:
    for name, slices in (("one", 1), ("two", 2)):
        samples = kspace(slices)
        lines = [line for k in range(slices) for line in lines_of(samples[k], slice=k)]
        write_ismrmrd(tmp_path / f"{name}.h5", lines, XML)
        served.content[f"/download/{name}"] = (tmp_path / f"{name}.h5").read_bytes()
    served.content["/download/other"] = b"not k-space at all"
    md5 = hashlib.md5(served.content["/download/one"]).hexdigest()
    sha256 = hashlib.sha256(served.content["/download/two"]).hexdigest()
    listed = [
        "# a collection",
        f"{served.url}/download/one md5={md5} name=knee.h5",
        f"{served.url}/download/two sha256={sha256}",
        f"{served.url}/download/other",
    ]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    return tmp_path / "list.txt"


def test_listed_fetched_checked_and_converted(
    served: Served, addresses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([str(addresses), "--output", str(out), "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["knee.h5", "two.h5", "other.h5", "fetch"]
    assert "18 B  other.h5" in lines[2]
    assert not out.exists()
    assert not served.asked
    served.breaks["/download/two"] = 2
    main([str(addresses), "--output", str(out), "--images", "complex", "--size", "32"])
    printed = capsys.readouterr().out
    assert "two.h5: the connection broke" in printed
    assert any(start > 0 for _, start in served.asked)
    assert "knee.h5: ISMRMRD, 1 slices of 48 x 40, 4 coils" in printed
    assert "18 bytes of something else; kept, but of no use" in printed
    settings = read_settings(out / "train_ismrmrd-complex.yaml")
    with h5py.File(settings.images[0].file) as file:
        images = file[settings.images[0].dataset][:]
    assert (images.shape, images.dtype) == ((3, 32, 32), np.complex64)
    asked = len(served.asked)
    main([str(addresses), "--output", str(out), "--images", "complex", "--size", "32"])
    assert len(served.asked) == asked


def test_a_wrong_checksum(served: Served, addresses: Path, tmp_path: Path) -> None:
    served.content["/download/two"] += b" and more"
    with pytest.raises(
        SystemExit, match=r"two: expected the SHA256 .*, found .*; what was fetched is deleted"
    ):
        main([str(addresses), "--output", str(tmp_path / "out")])
    assert not list((tmp_path / "out").glob("two*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ftp://a/b", "line 1: expected an address and md5=, name=, sha256=, size=, found 'ftp"),
        ("https://a/b crc=3", "line 1: expected an address and"),
        ("https://a/b size=large", "line 1: size: expected bytes, found 'large'"),
        ("https://a/b name=../b.h5", r"line 1: name: expected that of a file, found '\.\./b\.h5'"),
        ("https://a/", "line 1: name: expected that of a file, found ''"),
        ("https://a/b\nhttps://c/b", r"expected different names, found b\.h5 twice; give them as name="),
        ("# nothing", "expected addresses, found none"),
    ],
)
def test_bad_lists(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([str(tmp_path / "list.txt"), "--output", str(tmp_path)])


def test_names_of_addresses(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("http://a/download/1-2%20b?x=1\nhttps://a/knee.h5 size=12\n")
    found = read_addresses(tmp_path / "list.txt")
    assert [(file.name, file.size) for file in found] == [("1-2 b.h5", None), ("knee.h5", 12)]
