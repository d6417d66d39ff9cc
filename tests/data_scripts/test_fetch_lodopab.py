"""LoDoPaB-CT, from a server that breaks off to a scan and to training images."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.flows.training_settings import read_settings
from ctflow.io.scan import open_scan
from data_scripts.fetch_lodopab import RECORD, main
from tests.data_scripts.served import Served, packed


def hdf5(shape: tuple[int, ...], seed: int) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["data"] = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return content.getvalue()


@pytest.fixture
def record(served: Served) -> Served:
    truth = {f"ground_truth_test_00{k}.hdf5": hdf5((2, 362, 362), k) for k in range(2)}
    files = {
        "observation_test.zip": packed({"observation_test_000.hdf5": hdf5((1, 1000, 513), 9)}),
        "ground_truth_test.zip": packed(truth),
    }
    served.add_record(RECORD, {**files, "patient_ids_rand_test.csv": b"1\n2\n"})
    return served


def test_fetched_unpacked_and_converted(
    record: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("observation_test.zip", "ground_truth_test.zip"):
        record.breaks[record.path_of(RECORD, name)] = 1
    command = ["--output", str(tmp_path / "out"), "--server", record.url, "--images", "3"]
    main(command)
    printed = capsys.readouterr().out
    assert "observation_test.zip" in printed
    assert "to fetch" in printed
    assert "the connection broke" in printed
    assert any(start > 0 for _, start in record.asked)
    out = tmp_path / "out"
    scan = open_scan(out / "observation_test_000.hdf5")
    assert (scan.describe()["format"], len(scan)) == ("LoDoPaB-CT", 1)
    settings = read_settings(out / "train_test.yaml")
    with h5py.File(settings.images[0].file) as file:
        images = file[settings.images[0].dataset][:]
    stored = np.random.default_rng(0).random((2, 362, 362), dtype=np.float32)
    assert images.shape == (3, 362, 362)
    np.testing.assert_allclose(images[:2], stored * 0.08135858, rtol=1e-3, atol=1e-7)
    assert not list(out.glob("*.zip")) + list(out.glob("*.part"))
    asked = len(record.asked)
    main(command)
    assert len(record.asked) == asked


def test_a_list_fetches_nothing(record: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--output", str(tmp_path / "out"), "--server", record.url, "--kinds", "observation", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("MB  observation_test.zip")
    assert lines[1].endswith("MB  to fetch")
    assert len(record.asked) == 1
    assert not (tmp_path / "out").exists()


def test_errors_are_one_line(record: Served, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: expected observation_train\.zip, ground_truth_tra"):
        main(["--output", str(tmp_path), "--server", record.url, "--parts", "train"])
    command = ["--output", str(tmp_path), "--server", record.url, "--kinds", "observation", "--images", "1"]
    with pytest.raises(SystemExit, match=r"error: .*: expected ground_truth_test_\*\.hdf5, found none"):
        main(command)
