"""LDCT-and-Projection-data, from a server that breaks off to a scan and to training images."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ctflow.flows.training_settings import read_settings
from ctflow.io.scan import open_scan
from data_scripts.fetch_mayo_ldct import COLLECTION, main
from tests.ctflow.io.test_dicom_ct_pd import VIEWS, write_views
from tests.data_scripts.served import Served, packed


def archive(files: Mapping[str, bytes]) -> bytes:
    """As the archive packs a series, with the checksums of its files."""
    rows = [f"{name},{hashlib.md5(content).hexdigest()}" for name, content in files.items()]
    return packed(
        {**files, "LICENSE": b"CC BY", "md5hashes.csv": "\n".join(["Filename,MD5Hash", *rows]).encode()}
    )


def image() -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Rows = data.Columns = 4
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.PixelData = np.arange(16, dtype=np.uint16).tobytes()
    content = io.BytesIO()
    data.save_as(content, enforce_file_format=True)
    return content.getvalue()


@pytest.fixture
def collection(served: Served, tmp_path: Path) -> Served:
    write_views(tmp_path / "views")
    projections = {file.name: file.read_bytes() for file in sorted((tmp_path / "views").iterdir())}
    series = [
        ("L014", "Full dose projections", "1.1", projections),
        ("L014", "Low dose projections", "1.2", {}),
        ("L014", "Full Dose Images", "1.3", {"1-001.dcm": image(), "1-002.dcm": image()}),
        ("C012", "Full dose projections", "1.4", {}),
    ]
    listed = []
    for patient, description, uid, files in series:
        size = sum(len(content) for content in files.values())
        listed.append(
            {
                "PatientID": patient,
                "SeriesDescription": description,
                "SeriesInstanceUID": uid,
                "FileSize": size,
            }
        )
        served.content[f"/v1/getImageWithMD5Hash?SeriesInstanceUID={uid}"] = archive(files)
    served.content[f"/v1/getSeries?Collection={COLLECTION}"] = json.dumps(listed).encode()
    return served


def command(served: Served, folder: Path, *more: str) -> list[str]:
    return ["--output", str(folder), "--server", f"{served.url}/v1", *more]


def test_projections(collection: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/v1/getImageWithMD5Hash?SeriesInstanceUID=1.1"
    collection.breaks[path] = 1
    collection.ranges = False
    out = tmp_path / "out"
    main(command(collection, out, "--list"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["C012/full-projections", "L014/full-projections"]
    assert not out.exists()
    main(command(collection, out, "--patients", "L014"))
    assert "the connection broke" in capsys.readouterr().out
    scan = open_scan(out / "L014" / "full-projections")
    assert (scan.describe()["format"], scan.geometry.views) == ("DICOM-CT-PD", VIEWS)
    assert not list(out.glob("*.zip*"))
    main(command(collection, out, "--patients", "L014"))
    assert [asked for asked, _ in collection.asked].count(path) == 2


def test_training_images(collection: Served, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(command(collection, out, "--patients", "L014", "--kinds", "full-images"))
    settings = read_settings(out / "train_full-images.yaml")
    assert settings.images[0].unit == "HU"
    with h5py.File(settings.images[0].file) as file:
        images = file[settings.images[0].dataset][:]
    assert images.shape == (2, 4, 4)
    assert images[1].ravel().tolist() == list(range(-1024, -1008))


def test_errors_are_one_line(collection: Served, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"error: --patients: expected names from the list, such as L014, found"
    ):
        main(command(collection, tmp_path / "out"))
    with pytest.raises(SystemExit, match="error: LDCT-and-Projection-data: no full-projections of N001"):
        main(command(collection, tmp_path / "out", "--patients", "N001"))
    uid = "/v1/getImageWithMD5Hash?SeriesInstanceUID=1.3"
    whole = collection.content[uid]
    wrong = {"1-001.dcm": b"other", "md5hashes.csv": b"Filename,MD5Hash\n1-001.dcm,00\n"}
    for content, message in (
        (
            packed(wrong),
            r"1-001\.dcm: expected the MD5 00, found .*; what was fetched is deleted, start again",
        ),
        (packed({"md5hashes.csv": wrong["md5hashes.csv"]}), "expected 1 files, found 0; what was fetched is"),
        (
            packed({"1-001.dcm": b"other"}),
            r"expected md5hashes\.csv, found none; what was fetched is deleted",
        ),
        (whole[: len(whole) // 2], "expected a whole ZIP file .*; what was fetched is deleted, start again"),
    ):
        collection.content[uid] = content
        with pytest.raises(SystemExit, match=message):
            main(command(collection, tmp_path / "out", "--patients", "L014", "--kinds", "full-images"))
        assert not list((tmp_path / "out").rglob("*.zip*"))
        assert not list((tmp_path / "out").rglob("*.complete"))
