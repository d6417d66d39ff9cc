"""The `ctflow` command on k-space: simulated, looked at, reconstructed, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from ctflow.cli import main
from ctflow.io.formats.native_kspace import write_kspace_scan
from ctflow.io.results import read_result
from ctflow.io.scan import open_scan
from ctflow.volume_metrics import volume_quality
from tests.ctflow.io.measured_kspace import FastMRI, complex_noise, head_image, smooth_maps, to_kspace

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command; exit code, and the lines that it wrote to standard output and standard error."""

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return int(caught.value.code or 0), written.out.splitlines(), written.err.splitlines()

    return call


@pytest.fixture
def simulated(run: Run, tmp_path: Path) -> Path:
    options = ("-n", 2, "--size", 128, "--coils", 4, "--acceleration", 2, "--noise-std", 0.01)
    code, lines, _ = run("simulate", "mri-equispaced-4x", "-o", tmp_path / "sim.h5", *options)
    assert (code, lines) == (0, [f"{tmp_path / 'sim.h5'}: 2 slices of 128 x 128 pixels, 4 coils"])
    return tmp_path / "sim.h5"


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Two slices of 48 x 40 pixels and 4 coils, every second column and the centre."""
    truth, columns = head_image(48, 40, 2), np.arange(40)
    kspace = to_kspace(truth[:, None] * smooth_maps(4, 48, 40))
    kspace = kspace + 0.005 * complex_noise(kspace.shape)
    mask = (columns % 2 == 0) | (abs(columns - 20) < 8)
    settings = {"noise_std": 0.005, "truth": truth, "pixel_size": 3.6, "metadata": {"of": "tests"}}
    write_kspace_scan(tmp_path / "scan.h5", kspace, mask, **settings)
    return tmp_path / "scan.h5"


def test_info_names_what_kspace_has(run: Run, simulated: Path) -> None:
    code, lines, errors = run("info", simulated)
    assert (code, errors) == (0, [])
    said = {line[:34].strip(): line[34:].strip() for line in lines}
    assert said["format"] == "ctflow k-space"
    assert said["matrix"] == "128, 128"
    assert said["coils"] == "4"
    assert said["calibration"] == "128, 12"
    assert float(said["acceleration"]) == pytest.approx(2, abs=0.1)
    assert said["noise"] == "complex Gaussian, standard deviation 0.01, as the file has it"
    assert said["pixel size"] == "1.8"
    _, lines, _ = run("info", simulated, "--json", "--coils", 3, "--noise-std", 0.5, "--coil-maps", "none")
    described = json.loads("\n".join(lines))
    assert (described["virtual_coils"], described["coil_maps"]) == (3, "none")
    assert described["noise"].endswith("0.5, given")


def test_reconstruction_is_complex_with_a_magnitude_to_be_shown(
    run: Run, measured: Path, tmp_path: Path
) -> None:
    output = tmp_path / "recon.h5"
    settings = ("--solver", "cgls", "--set", "iterations=12", "--coil-maps", "espirit")
    code, lines, errors = run("reconstruct", measured, "-o", output, *settings)
    assert (code, errors) == (0, [])
    assert lines[0].startswith(f"{output}: 2 slices in ")
    assert imread(tmp_path / "recon.png").size
    result = read_result(output)
    assert result.images.dtype == torch.complex64
    truth = open_scan(measured).truth(slice(0, 2))
    assert truth is not None
    error = (result.images.abs() - truth.abs()).norm() / truth.norm()
    assert float(error) < 0.12
    quality = result.attributes["volume_quality"]
    assert quality == pytest.approx(asdict(volume_quality(result.images, truth)), rel=1e-6)
    assert quality["nmse"] == pytest.approx(float(error) ** 2, rel=1e-3)
    with h5py.File(output) as file:
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_allclose(file["reconstruction"][:], np.abs(file["complex"][:]), rtol=1e-6)
        assert file["reconstruction"].attrs["units"] == "arbitrary"
        assert file["reconstruction"].attrs["pixel_size_mm"] == pytest.approx(3.6)
    assert result.attributes["reading"] == {"coil_maps": "espirit"}
    assert result.attributes["scan"]["coils"] == 4
    assert result.attributes["metadata"] == {"of": "tests"}


def test_the_prior_follows_the_modality(run: Run, measured: Path, tmp_path: Path) -> None:
    output = tmp_path / "recon.h5"
    code, _, errors = run("reconstruct", measured, "-o", output, "--steps", 2, "--slices", "1")
    assert code == 0, errors
    found = read_result(output).attributes
    assert (found["prior"], found["solver"]["name"]) == ("mr-small", "flower")
    assert found["representation"]["complex"]


def test_fastmri_at_its_own_scale_cropped_as_its_target(run: Run, tmp_path: Path) -> None:
    target = FastMRI(std=0.002).write(tmp_path / "knee.h5")
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        # of the matrix without readout oversampling
        file["coil_maps"] = smooth_maps(4, 64, 46)[:, 16:48]
    output = tmp_path / "recon.h5"
    options = ("--solver", "cgls", "--set", "iterations=10", "--coil-maps", tmp_path / "maps.h5")
    code, _, errors = run("reconstruct", tmp_path / "knee.h5", "-o", output, *options)
    assert (code, errors) == (0, [])
    images = read_result(output).images
    assert images.shape == (2, 32, 32)
    np.testing.assert_allclose(images.abs(), target, atol=0.1 * target.max())
    assert float(np.linalg.norm(images.abs().numpy() - target) / np.linalg.norm(target)) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--coils", 9), "scan.h5: coils: expected a number from 1 to 4, found 9"),
        (("--coil-maps", "espirt"), "coil_maps: expected espirit, adaptive, none, or a file of maps, found"),
        (("--views", 9), "scan.h5: views: expected none for k-space, found 9"),
        (("--photons", 1e4), "scan.h5: photons: expected none for k-space, found 10000"),
        (("--noise-std", -1), "noise_std: expected greater than 0, found -1"),
    ],
)
def test_bad_usage(
    run: Run, measured: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    code, lines, errors = run("reconstruct", measured, "-o", tmp_path / "r.h5", "--solver", "cgls", *options)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert message in errors[0]
    assert not (tmp_path / "r.h5").exists()


def test_bad_simulations(run: Run, tmp_path: Path) -> None:
    for preset, option, message in (
        ("mri-random-4x", "--photons", "--photons: expected none for mri-random-4x, found 3.0"),
        ("sparse-view", "--noise-std", "--noise-std: expected none for sparse-view, found 3.0"),
        ("mri-rando", "--seed", "no preset 'mri-rando'"),
    ):
        code, _, errors = run("simulate", preset, option, 3, "-o", tmp_path / "a.h5")
        assert (code, len(errors)) == (2, 1)
        assert message in errors[0]


def test_a_slice_that_cannot_be_read_fails_alone(run: Run, measured: Path, tmp_path: Path) -> None:
    with h5py.File(measured, "a") as file:
        file["kspace"][0, 1, 2, 22] = np.nan
    options = ("--solver", "cgls", "--set", "iterations=2")
    code, _, errors = run("reconstruct", measured, "-o", tmp_path / "recon.h5", *options)
    assert (code, len(errors)) == (1, 2)
    assert "slice 0 failed: " in errors[0]
    assert "at slice 0, coil 1, y 2, x 22" in errors[0]
    result = read_result(tmp_path / "recon.h5")
    assert result.status[1] == "done"
    assert bool(result.images[0].isnan().all())
    assert 0 < result.attributes["volume_quality"]["nmse"] < 1
