"""Every format of slices through the command: what `info` says, and an image from `reconstruct`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow.cli import main
from ctflow.io.formats.native import write_scan
from ctflow.io.results import files_sha256, read_result
from ctflow.io.scan import open_scan
from operators import Detector, FanBeam, GaussianNoise, ImageGrid
from tests.ctflow.io.measured import (
    fan_disc,
    write_2detect,
    write_dxchange,
    write_heltomo,
    write_lodopab,
    write_matlab,
    write_nxtomo,
)


def fips(path: Path) -> None:
    angles = np.pi / 2 - 2 * np.pi * np.arange(120)[::-1] / 120
    sinogram = fan_disc(angles, 82, 114.8, -0.279, 110.0, 300.0)
    write_matlab(path, {"m": sinogram[::-1, ::-1].T, "A": 1.0}, "7.3")


# Format, how it is written, what it lacks, and what is assumed about it.
FORMATS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "DXchange": (write_dxchange, [], "counts: "),
    "NXtomo": (write_nxtomo, ["beam monitor"], "beam: as strong as interpolated between the flat fields"),
    "LoDoPaB-CT": (write_lodopab, [], "geometry and photon count: those published with LoDoPaB-CT"),
    "HelTomo": (write_heltomo, ["photon counts"], "rotation axis: in the middle of the detector"),
    "FIPS": (fips, ["geometry", "photon counts"], "geometry: that published with the walnut data"),
    "2DeteCT (mode 2, high fidelity)": (
        lambda path: write_2detect(path / "slice00001" / "mode2", shift=1),
        ["geometry"],
        "geometry: that published with 2DeteCT",
    ),
}


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    written = capsys.readouterr()
    assert (caught.value.code or 0, written.err) == (0, "")
    return written.out


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, missing, assumed = FORMATS[name]
    path, output = tmp_path / "measured", tmp_path / "recon.h5"
    write(path)
    settings = ("--views", 20, "--size", 24)
    described = json.loads(call(capsys, "info", path, "--json", *settings))
    assert (described["format"], described["missing"], described["unit"]) == (name, missing, "1/mm")
    assert any(line.startswith(assumed) for line in described["assumed"])
    assert f"format         {name}" in call(capsys, "info", path)
    call(capsys, "reconstruct", path, "-o", output, "--solver", "fbp", "--slices", 0, *settings)
    result = read_result(output)
    assert result.images.shape == (1, 24, 24)
    assert bool(torch.isfinite(result.images).all())
    assert float(result.images.std()) > 0
    assert result.attributes["source_sha256"] == files_sha256(open_scan(path).files)


def test_modes_of_2detect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in (1, 3):
        write_2detect(tmp_path / "slice03000" / f"mode{mode}")
    folder = tmp_path / "slice03000"
    described = json.loads(call(capsys, "info", folder, "--json", "--mode", 3))
    assert described["format"] == "2DeteCT (mode 3, beam hardening)"
    output, settings = tmp_path / "recon.h5", ("--views", 20, "--size", 24, "--mode", 3)
    call(capsys, "reconstruct", folder, "-o", output, "--solver", "fbp", *settings)
    found = read_result(output).attributes
    assert (found["reading"]["mode"], found["metadata"]["mode_is"]) == (3, "beam hardening")


def test_bad_geometry_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "scan.h5", tmp_path / "recon.h5"
    distances = {"source_to_axis": 30.0, "source_to_detector": 60.0}

    def problems(grid: ImageGrid, span: float) -> list[str]:
        fan = FanBeam.circular(40, detector=Detector(30, 2.0), span=span, **distances)  # type: ignore[arg-type]
        write_scan(path, torch.zeros(1, 40, 30), fan, grid, GaussianNoise(0.1), overwrite=True)
        return list(json.loads(call(capsys, "info", path, "--json"))["problems"])

    turn = 2 * np.pi
    assert problems(ImageGrid((20, 20), 1.0), turn) == []
    (truncation,) = problems(ImageGrid((40, 40), 1.0), turn)
    assert truncation == "detector: too small for the inner 90 % of the image's circle"
    (angles,) = problems(ImageGrid((20, 20), 1.0), turn / 3)
    assert re.fullmatch(r"angles: 9\d(\.\d)? degrees too few to measure every line through the image", angles)
    (source,) = problems(ImageGrid((80, 80), 1.0), turn)
    assert source.startswith("FanBeam: expected sources outside the image, found the source of view 0 at")
    with pytest.raises(SystemExit) as caught:
        main(["reconstruct", str(path), "-o", str(output), "--solver", "fbp"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert "expected sources outside the image" in lines[-1]
    assert not output.exists()
