"""2DeteCT, from a server that breaks off to a scan and to training images."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from tifffile import imwrite

from ctflow.flows.training_settings import read_settings
from ctflow.io.scan import open_scan
from data_scripts.fetch_2detect import MEASUREMENTS, RECONSTRUCTIONS, main
from tests.ctflow.io.measured import write_2detect
from tests.data_scripts.served import Served, packed

NAME, IMAGES = "2DeteCT_slices1-1000.zip", "2DeteCT_slices1-1000_RecSeg.zip"


def test_measurements(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {}
    for number, mode in ((1, 1), (1, 2), (2, 2)):
        folder = tmp_path / f"slice{number:05}" / f"mode{mode}"
        write_2detect(folder, shift=1)
        for file in folder.iterdir():
            files[f"2DeteCT_slices1-1000/{file.relative_to(tmp_path)}"] = file.read_bytes()
    record = MEASUREMENTS["1-1000"]
    served.add_record(record, {NAME: packed(files)})
    served.breaks[served.path_of(record, NAME)] = 1
    out = tmp_path / "out"
    command = ["--output", str(out), "--server", served.url, "--slices", "1", "1"]
    main([*command, "--list"])
    assert not out.exists()
    main(command)
    assert "the connection broke" in capsys.readouterr().out
    assert sorted(entry.name for entry in (out / "slice00001" / "mode2").iterdir()) == [
        "dark.tif",
        "flat1.tif",
        "flat2.tif",
        "sinogram.tif",
    ]
    assert not (out / "slice00001" / "mode1").exists()
    assert not (out / "slice00002").exists()
    assert open_scan(out).metadata["slice_numbers"] == [1]
    asked = len(served.asked)
    main(command)
    assert len(served.asked) == asked
    with pytest.raises(SystemExit, match=r"error: .*: expected slices \[7, 9\], found none of them"):
        main([*command[:-2], "7", "9"])


def test_training_images(served: Served, tmp_path: Path) -> None:
    content = io.BytesIO()
    imwrite(content, np.full((1024, 1024), 0.01, np.float32))
    names = [f"slice{k:05}/mode{mode}/reconstruction.tif" for k in (1, 2) for mode in (1, 2)]
    members = {name: content.getvalue() for name in (*names, "slice00001/mode2/segmentation.tif")}
    record = RECONSTRUCTIONS["1-1000"]
    served.add_record(record, {IMAGES: packed(members)})
    served.breaks[served.path_of(record, IMAGES)] = 1
    out = tmp_path / "out"
    main(["--output", str(out), "--server", served.url, "--images"])
    settings = read_settings(out / "train_1-1000.yaml")
    with h5py.File(settings.images[0].file) as file:
        images = file[settings.images[0].dataset][:]
    assert images.shape == (2, 1024, 1024)
    pixel = 956 * 0.1496 * 431.019989 / 529.000488 / 1024
    np.testing.assert_allclose(images, 0.01 / pixel, rtol=1e-3)
    assert not list(out.glob("*.zip")) + list(out.glob("*.part"))
