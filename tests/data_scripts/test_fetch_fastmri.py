"""fastMRI, from archives that somebody obtained to scans and to training images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.flows.training_settings import read_settings
from ctflow.io.scan import open_scan
from data_scripts.fetch_fastmri import main, split
from data_scripts.mr_images import scaled
from tests.ctflow.io.measured_kspace import FastMRI


def knee(path: Path, patient: str = "a", mask: np.ndarray | None = None) -> bytes:
    def named(file: h5py.File) -> None:
        file.attrs["patient_id"] = patient

    FastMRI(mask=mask, edit=named).write(path)
    return path.read_bytes()


def packed(files: Mapping[str, bytes], mode: str = "w:xz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return content.getvalue()


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    content = knee(tmp_path / "knee.h5")
    train = {f"multicoil_train/file{k}.h5": content for k in (1, 2)}
    evil = {
        "../../escaped.h5": content,
        "multicoil_train/._file3.h5": b"x",
        "multicoil_train/notes.txt": b"x",
    }
    (folder / "knee_multicoil_train_batch_0.tar.xz").write_bytes(packed({**train, **evil}))
    (folder / "multicoil_val.tar").write_bytes(packed({"multicoil_val/file9.h5": content}, "w"))
    return folder


def test_checked_unpacked_and_converted(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sums = tmp_path / "out", tmp_path / "SHA256.txt"
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in archives.iterdir()]
    sums.write_text("\n".join(lines))
    command = [str(archives), "--output", str(out), "--checksums", str(sums), "--size", "24"]
    main([*command, "--list"])
    assert "knee_multicoil_train_batch_0.tar.xz  to unpack" in capsys.readouterr().out
    assert not out.exists()
    main([*command, "--images", "magnitude"])
    assert {str(file.relative_to(out)) for file in out.glob("*/*.h5")} == {
        "multicoil_train/file1.h5",
        "multicoil_train/file2.h5",
        "knee_multicoil_train/escaped.h5",
        "multicoil_val/file9.h5",
    }
    assert not (tmp_path / "escaped.h5").exists()
    assert open_scan(out / "multicoil_train" / "file1.h5").describe()["format"] == "fastMRI"
    settings = read_settings(out / "train_fastmri-magnitude.yaml")
    assert settings.phase is not None
    with h5py.File(settings.images[0].file) as file:
        images = file[settings.images[0].dataset][:]
    with h5py.File(settings.validation[0].file) as file:
        assert file[settings.validation[0].dataset].shape == (2, 24, 24)
    assert images.shape == (6, 24, 24)
    assert 0.9 < images.max() < 2
    # Again: nothing is left to be done, and nothing is looked for in the archives.
    for file in archives.iterdir():
        file.write_bytes(b"")
    capsys.readouterr()
    main([*command, "--images", "magnitude"])
    assert "unpacked already" in capsys.readouterr().out


def test_complex_images_and_going_on(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    command = [str(archives), "--output", str(out), "--size", "40", "--images", "complex"]
    real, seen = open_scan, []

    def interrupted(path: Path) -> object:
        seen.append(path)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(path, coil_maps="none")

    monkeypatch.setattr("data_scripts.mr_images.open_scan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(command)
    main(command)
    # 4 files, one of which was begun twice.
    assert len(seen) == 5
    settings = read_settings(out / "train_fastmri-complex.yaml")
    assert settings.representation["complex"]
    with h5py.File(settings.images[0].file) as file:
        images = file["images"][:]
    assert images.dtype == np.complex64
    # What is smaller has zeros around it.
    assert images.shape == (6, 40, 40)
    assert not images[:, :4].any()
    assert images[:, 20, 20].all()
    assert not list(out.glob(".images*"))


def test_archives_that_are_cut_off_go_on(archives: Path, tmp_path: Path) -> None:
    archive = archives / "multicoil_val.tar"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match=r"error: .*multicoil_val\.tar: expected a whole archive"):
        main([str(archives), "--output", str(tmp_path / "out")])
    # The other archive was done, and is not unpacked again.
    before = (tmp_path / "out" / "multicoil_train" / "file1.h5").stat().st_mtime_ns
    assert not list((tmp_path / "out").rglob("*.part*"))
    archive.write_bytes(whole)
    main([str(archives), "--output", str(tmp_path / "out")])
    assert (tmp_path / "out" / "multicoil_val" / "file9.h5").exists()
    assert (tmp_path / "out" / "multicoil_train" / "file1.h5").stat().st_mtime_ns == before


def test_patients_are_on_one_side_of_a_split(tmp_path: Path) -> None:
    files = []
    for k in range(24):
        (tmp_path / "all").mkdir(exist_ok=True)
        files.append(tmp_path / "all" / f"{k}.h5")
        with h5py.File(files[-1], "w") as file:
            file.attrs["patient_id"] = f"patient {k // 2}"
    training, validation = split(files)
    assert sorted(training + validation) == sorted(files)
    assert 0 < len(validation) < 12
    assert {int(file.stem) // 2 for file in training}.isdisjoint(int(file.stem) // 2 for file in validation)
    assert split([tmp_path / "multicoil_test" / "a.h5"]) == ([], [])


def test_faint_slices_are_left_out() -> None:
    import torch

    images = torch.ones(3, 8, 8) * torch.tensor([1.0, 0.1, 4.0])[:, None, None]
    assert scaled(images, 8)[:, 4, 4].tolist() == [0.25, 1.0]
    with pytest.raises(ValueError, match="expected images with a signal, found none"):
        scaled(0 * images, 8)


def test_errors_are_one_line(archives: Path, tmp_path: Path) -> None:
    sums = tmp_path / "sums.txt"
    for content, message in (
        (f"{'0' * 64} multicoil_val.tar", "expected the SHA256 0000.*, found .*; obtain it again"),
        ("nonsense", "line 1: expected a SHA-256 or MD5 and a name, found 'nonsense'"),
    ):
        sums.write_text(content)
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            main([str(archives), "--output", str(tmp_path / "out"), "--checksums", str(sums)])
    for folder, message in (("empty", "found none"), ("nowhere", "expected a folder of archives")):
        if folder == "empty":
            (tmp_path / folder).mkdir()
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            main([str(tmp_path / folder), "--output", str(tmp_path / "out")])
