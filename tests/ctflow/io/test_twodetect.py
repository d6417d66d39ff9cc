"""2DeteCT: folders of TIFF files, their quirks, and what is said about folders that are not whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tifffile import imwrite

from ctflow.io.errors import ScanError
from ctflow.io.formats.twodetect import read_reconstruction
from ctflow.io.scan import open_scan
from operators import Detector, FanBeam, filtered_backprojection
from tests.ctflow.io.measured import ATTENUATION, write_2detect

PIXEL = 956 * 0.1496 * 431.019989 / 529.000488 / 1024


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Two slices of mode 2, of which the detector of the first stood aside, and a mode 1 of the second."""
    folder = tmp_path_factory.mktemp("2detect")
    clean = write_2detect(folder / "slice02830" / "mode2", shift=1)
    write_2detect(folder / "slice02831" / "mode2")
    low = folder / "slice02831" / "mode1"
    low.mkdir()
    for file in (folder / "slice02831" / "mode2").iterdir():
        (low / file.name).symlink_to(file)
    return folder, clean


def test_line_integrals_and_geometry(measured: tuple[Path, np.ndarray]) -> None:
    folder, clean = measured
    scan = open_scan(folder, mode=2)
    assert (len(scan), scan.unit) == (2, "1/mm")
    assert scan.metadata["slice_numbers"] == [2830, 2831]
    expected = FanBeam.circular(
        3600, source_to_axis=431.019989, source_to_detector=529.000488, detector=Detector(956, 0.1496)
    )
    assert scan.geometry == expected
    assert scan.grid.shape == (1024, 1024)
    assert scan.pixel_size == pytest.approx(PIXEL)
    assert scan.grid.center == pytest.approx((-PIXEL, PIXEL))
    some = open_scan(folder, views=36, mode=2)
    problem = some[0:2]
    truth = torch.from_numpy(clean[some.used_views]).float()
    # The first slice's detector stood one bin aside, and lacks its last bin now.
    torch.testing.assert_close(problem.measurement[0, :, :-1], truth[:, :-1], atol=2e-3, rtol=0)
    torch.testing.assert_close(problem.measurement[1], truth, atol=2e-3, rtol=0)
    photons = problem.noise.photons
    assert photons.shape == (2, 1, 956)
    assert float(photons[0, 0, -1]) < 1e-10
    assert float(photons[1].median()) == pytest.approx(2e4, rel=0.01)
    assert len(scan.files) == 8


def test_the_disc_lands_where_it_is(measured: tuple[Path, np.ndarray]) -> None:
    folder, _ = measured
    scan = open_scan(folder, mode=2, views=300, size=100, pixel_size=0.5)
    for problem in scan:
        image = filtered_backprojection(scan.operator, problem.measurement)
        x, y = (torch.as_tensor(values) for values in scan.grid.coordinates())
        distance = torch.hypot(x[None] - 5, y[:, None] + 3)
        assert float(image[distance < 11].mean()) == pytest.approx(ATTENUATION, rel=0.01)
        assert abs(float(image[(distance > 13) & (distance < 16)].mean())) < 1e-3


def test_slices_and_modes_by_path(measured: tuple[Path, np.ndarray]) -> None:
    folder, _ = measured
    one = open_scan(folder / "slice02831" / "mode2")
    assert (len(one), one.metadata["mode"], one.metadata["slice_numbers"]) == (1, 2, [2831])
    several = open_scan(folder / "slice02831")
    assert several.metadata["mode"] == 2
    assert "mode: 2 (high fidelity) of those there; pass mode= for 1" in several.recording.assumed
    assert len(open_scan(folder, mode=1)) == 1
    assert open_scan(folder, mode=1).metadata["mode_is"] == "low dose"
    assert open_scan(folder, mode=2, photons=500.0)[0].noise.photons[0, 0] == 500.0


def test_what_is_assumed_is_said(measured: tuple[Path, np.ndarray]) -> None:
    described = open_scan(measured[0], mode=2).describe()
    assert described["format"] == "2DeteCT (mode 2, high fidelity)"
    assert "detector: moved back by one bin in 1 of 2 slices" in described["assumed"]
    assert "counts: one for each photon" in described["assumed"]
    assert described["problems"] == []


@pytest.mark.parametrize("number", [3, 2830, 2831, 5520, 5521, 5870, 5871])
def test_in_which_slices_the_detector_stood_aside(tmp_path: Path, number: int) -> None:
    from ctflow.io.formats.twodetect import _Slice

    assert _Slice(tmp_path, number, 2).moved == (number in (3, 2830, 5521, 5870))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": 3}, "mode: expected 1 or 2, found 3"),
        ({"mode": 7}, "mode: expected 1, 2 or 3, found 7"),
        ({"angles_unit": "degrees"}, "angles_unit: expected none: the angles of 2DeteCT are fixed"),
    ],
)
def test_arguments(measured: tuple[Path, np.ndarray], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ScanError, match=message):
        open_scan(measured[0], **arguments)


def small(name: str, shape: tuple[int, ...]) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda images: images.update({name: np.ones(shape, np.uint16)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda images: images.pop("dark"), "slice 0, dark.tif: expected a TIFF file, found nothing"),
        (lambda images: images.pop("flat2"), "flat2.tif: expected a TIFF file, found nothing"),
        (small("flat1", (1, 956)), r"flat1.tif: image: expected real numbers of shape \(1, 1912\), found"),
        (small("sinogram", (3600, 1912)), r"expected real numbers of shape \(3601, 1912\), found uint16 of"),
    ],
)
def test_folders_that_are_not_whole(
    tmp_path: Path, edit: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    folder = tmp_path / "slice00001" / "mode2"
    write_2detect(folder, edit=edit)
    with pytest.raises(ScanError, match=message) as caught:
        open_scan(folder)
    assert "\n" not in str(caught.value)


def test_damage_and_other_folders(tmp_path: Path) -> None:
    folder = tmp_path / "slice00001" / "mode2"

    def spoil(images: dict[str, np.ndarray]) -> None:
        images["sinogram"] = images["sinogram"].astype(np.float32)
        images["sinogram"][5, 7] = np.nan

    write_2detect(folder, edit=spoil)
    with pytest.raises(ScanError, match=r"sinogram.tif: image: .* nan in slice 0 at view 5, bin 7"):
        _ = open_scan(folder)[0]
    dark = folder / "dark.tif"
    for content in (b"II*\x00", dark.read_bytes()[:3000]):
        dark.write_bytes(content)
        with pytest.raises(ScanError, match=r"dark.tif: image: expected a readable TIFF file, found a trunc"):
            open_scan(folder)
    named = folder.rename(tmp_path / "mine")
    with pytest.raises(ScanError, match="folders: expected folders named as slice00001/mode2"):
        open_scan(named)


def test_published_reconstructions_in_our_unit(tmp_path: Path) -> None:
    file = tmp_path / "reconstruction.tif"
    imwrite(file, np.full((1024, 1024), 0.05 * PIXEL, np.float32))
    torch.testing.assert_close(read_reconstruction(file), torch.full((1024, 1024), 0.05))
    imwrite(file, np.zeros((10, 10), np.float32))
    with pytest.raises(ScanError, match=r"image: expected real numbers of shape \(1024, 1024\), found"):
        read_reconstruction(file)
    with pytest.raises(ScanError, match="file: expected a TIFF file, found nothing"):
        read_reconstruction(tmp_path / "none.tif")


def test_other_formats_have_no_modes(tmp_path: Path) -> None:
    from tests.ctflow.io.measured import write_dxchange

    write_dxchange(tmp_path / "scan.h5")
    with pytest.raises(ScanError, match="mode: expected none: only scans of 2DeteCT have modes, found 2"):
        open_scan(tmp_path / "scan.h5", mode=2)
