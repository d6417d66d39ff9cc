"""Data in other files than the one that was opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.io.errors import ScanError
from ctflow.io.fields import find, numbers, opened
from ctflow.io.links import external_links_allowed
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured import write_nxtomo

Refer = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the file that is opened; beside it lies a folder that is none of its business."""
    folder = tmp_path / "scans"
    (folder / "raw").mkdir(parents=True)
    for place in (folder / "raw" / "data.h5", tmp_path / "secret.h5"):
        with h5py.File(place, "w") as file:
            file["numbers"] = np.arange(3.0)
    return folder


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "file.h5"


def test_links_inside_the_file_are_followed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["/group/data"] = np.arange(3.0)
        file["/absolute"] = h5py.SoftLink("/group/data")
        file["/group/relative"] = h5py.SoftLink("data")
        file["/twice"] = h5py.SoftLink("/absolute")
        file["/folder"] = h5py.SoftLink("/group")
        file["/dangling"] = h5py.SoftLink("/nowhere")
        for name in ("/absolute", "/group/relative", "/twice", "/folder/data", "group//data"):
            assert numbers(file, name).tolist() == [0, 1, 2], name
        assert find(file, "/dangling") is None
        assert find(file, "/group/data/deeper") is None


def test_links_in_a_circle(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["/a"], file["/b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        with pytest.raises(ScanError, match=r"/a: expected .*, found links in a circle"):
            find(file, "/a")


def virtual(file: h5py.File, source: object, name: str = "numbers") -> None:
    layout = h5py.VirtualLayout((3,), np.float64)
    layout[:] = h5py.VirtualSource(source, name, (3,))
    file.create_virtual_dataset("data", layout)


def link(file: h5py.File, source: object, name: str = "numbers") -> None:
    file["data"] = h5py.ExternalLink(str(source), name)


@pytest.mark.parametrize("refer", [link, virtual])
def test_files_of_the_folder_belong_to_it(path: Path, refer: Refer, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        refer(file, "raw/data.h5")
    monkeypatch.chdir(path.parent.parent)
    with opened(Path("scans/file.h5")) as file:
        assert numbers(file, "/data").tolist() == [0, 1, 2]


@pytest.mark.parametrize("through", ["raw/data.h5", "raw/between.h5"])
@pytest.mark.parametrize("refer", [link, virtual])
def test_a_scan_names_the_files_that_its_data_lie_in(path: Path, refer: Refer, through: str) -> None:
    frames = "/entry0000/instrument/detector/data"
    write_nxtomo(path.parent / "raw" / "data.h5")
    with h5py.File(path.parent / "raw" / "data.h5") as file:
        shape = file[frames].shape
    with h5py.File(path.parent / "raw" / "between.h5", "w") as file:
        file[frames] = h5py.ExternalLink("data.h5", frames)

    def elsewhere(file: h5py.File) -> None:
        del file[frames]
        if refer is link:
            file[frames] = h5py.ExternalLink(through, frames)
            return
        layout = h5py.VirtualLayout(shape, np.float32)
        layout[:] = h5py.VirtualSource(through, frames, shape)
        file.create_virtual_dataset(frames, layout)

    write_nxtomo(path, elsewhere)
    expected = {path, *(path.parent / name for name in (through, "raw/data.h5"))}
    # What was asked of a file before is remembered, and so is where it led.
    for _ in range(2):
        scan = open_scan(path)
        assert scan.files[0] == path
        assert {file.resolve() for file in scan.files} == {file.resolve() for file in expected}


@pytest.mark.parametrize("refer", [link, virtual])
@pytest.mark.parametrize("absolute", [False, True])
def test_files_elsewhere_do_not(path: Path, refer: Refer, absolute: bool) -> None:
    secret = path.parent.parent / "secret.h5"
    with h5py.File(path, "w") as file:
        refer(file, secret if absolute else "../secret.h5")
    with (
        opened(path) as file,
        pytest.raises(ScanError, match=r"another file, .*secret.h5; --allow-external-links") as caught,
    ):
        find(file, "/data")
    assert caught.value.expected == "data in this file, or in files of its folder"
    with external_links_allowed(), opened(path) as file:
        assert numbers(file, "/data").tolist() == [0, 1, 2]
    with opened(path) as file, pytest.raises(ScanError, match="another file"):
        find(file, "/data")


@pytest.mark.parametrize("first", [link, virtual])
@pytest.mark.parametrize("second", [link, virtual])
def test_nor_by_a_detour(path: Path, first: Refer, second: Refer) -> None:
    with h5py.File(path.parent / "raw" / "detour.h5", "w") as file:
        second(file, "../../secret.h5")
    with h5py.File(path, "w") as file:
        first(file, "raw/detour.h5", "data")
    with opened(path) as file, pytest.raises(ScanError, match=r"/data: .* another file, \.\./\.\./secret.h5"):
        find(file, "/data")


def test_symbolic_links_of_the_file_system_are_seen_through(path: Path) -> None:
    (path.parent / "innocent.h5").symlink_to(path.parent.parent / "secret.h5")
    with h5py.File(path, "w") as file:
        link(file, "innocent.h5")
    with opened(path) as file, pytest.raises(ScanError, match=r"a link to another file, innocent.h5"):
        find(file, "/data")


def test_the_folder_of_a_linked_file_is_where_it_lies(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "w") as file:
        link(file, "raw/data.h5")
    (tmp_path / "elsewhere.h5").symlink_to(path)
    with opened(tmp_path / "elsewhere.h5") as file:
        assert numbers(file, "/data").tolist() == [0, 1, 2]


@pytest.mark.parametrize("refer", [link, virtual])
def test_missing_files_are_not_zeros(path: Path, refer: Refer, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        refer(file, "missing.h5")
    monkeypatch.chdir(path.parent.parent)
    os.rename("secret.h5", "missing.h5")  # HDF5 would take this one
    with opened(path) as file, pytest.raises(ScanError, match=r"missing.h5, which is not there"):
        find(file, "/data")


def test_virtual_data_without_a_source(path: Path) -> None:
    with h5py.File(path, "w") as file:
        virtual(file, "raw/data.h5", "nothing")
    with (
        opened(path) as file,
        pytest.raises(ScanError, match=r"found data from raw/data.h5, which has no dataset"),
    ):
        find(file, "/data")


def test_virtual_data_in_a_series_of_files(path: Path) -> None:
    unlimited, properties = h5py.h5s.UNLIMITED, h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((2, 3), (unlimited, 3))
    space.select_hyperslab((0, 0), (unlimited, 1), (1, 1), (1, 3))
    properties.set_virtual(space, b"raw/data%b.h5", b"numbers", h5py.h5s.create_simple((1, 3)))
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F64LE, space, properties)
    with opened(path) as file, pytest.raises(ScanError, match=r"named by the pattern raw/data%b.h5"):
        find(file, "/data")


def test_circles_through_files(path: Path) -> None:
    with h5py.File(path, "w") as file:
        link(file, "raw/back.h5", "data")
    with h5py.File(path.parent / "raw" / "back.h5", "w") as file:
        link(file, "../file.h5", "data")
    with opened(path) as file, pytest.raises(ScanError, match="found links in a circle"):
        find(file, "/data")


def test_external_storage(path: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "raw.bin", path.parent / "raw.bin"):
        place.write_bytes(np.arange(3.0).tobytes())
        with h5py.File(path, "w") as file:
            file.create_dataset("data", (3,), np.float64, external=[(str(place), 0, 24)])
        with opened(path) as file:
            if place.parent == path.parent:
                assert numbers(file, "/data").tolist() == [0, 1, 2]
            else:
                with pytest.raises(ScanError, match="found data stored in another file"):
                    find(file, "/data")


def test_a_file_that_is_no_hdf5(path: Path) -> None:
    (path.parent / "raw" / "text").write_text("words")
    with h5py.File(path, "w") as file:
        link(file, "raw/text")
    with opened(path) as file, pytest.raises(ScanError, match="text, which cannot be read"):
        find(file, "/data")


def test_a_scan_whose_frames_lie_in_other_files(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole.nxs", tmp_path / "split"
    folder.mkdir()
    write_nxtomo(whole)
    expected = open_scan(whole)[1].measurement
    name = "/entry0000/instrument/detector/data"

    def scattered(file: h5py.File) -> None:
        frames = file[name][()]
        del file[name]
        layout = h5py.VirtualLayout(frames.shape, frames.dtype)
        for k, part in enumerate(np.array_split(np.arange(len(frames)), 3)):
            with h5py.File(folder / f"frames_{k}.h5", "w") as other:
                other["data"] = frames[part]
            source = h5py.VirtualSource(f"frames_{k}.h5", "data", frames[part].shape)
            layout[part[0] : part[-1] + 1] = source
        file.create_virtual_dataset("frames", layout)
        file[name] = h5py.SoftLink("/frames")

    write_nxtomo(folder / "scan.nxs", scattered)
    assert bool((open_scan(folder / "scan.nxs")[1].measurement == expected).all())
    (folder / "scan.nxs").rename(tmp_path / "scan.nxs")
    with pytest.raises(ScanError, match=r"frames_0.h5, which is not there"):
        open_scan(tmp_path / "scan.nxs")


def test_scans_from_elsewhere_are_read_when_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    write_nxtomo(tmp_path / "raw.nxs")
    with h5py.File(tmp_path / "here" / "scan.nxs", "w") as file:
        file["entry"] = h5py.ExternalLink("../raw.nxs", "/entry0000")
        group = file.create_group("own")
        group["definition"] = "NXtomo"
        for name in ("instrument", "sample"):
            group[name] = h5py.ExternalLink("../raw.nxs", f"/entry0000/{name}")
    with pytest.raises(ScanError, match="allow_external_links=True"):
        open_scan(tmp_path / "here" / "scan.nxs")
    scan = open_scan(tmp_path / "here" / "scan.nxs", allow_external_links=True)
    assert bool((scan[0].measurement == open_scan(tmp_path / "raw.nxs")[0].measurement).all())
    assert len(scan.describe()["problems"]) == 1
