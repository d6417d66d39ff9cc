"""TIFF, read back by tifffile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tifffile import TiffFile

from ctflow.io.export import export_result
from tests.ctflow.io.export.phantom import ball, write_ball


@pytest.mark.parametrize("failed", [(), (3,)])
def test_values_and_resolution_come_back(tmp_path: Path, failed: tuple[int, ...]) -> None:
    path = tmp_path / "recon.h5"
    images = write_ball(path, failed=failed)
    done = export_result(path, tmp_path / "out.tif")
    assert any("written as NaN" in note for note in done.notes) == bool(failed)
    with TiffFile(done.target) as file:
        np.testing.assert_array_equal(file.asarray(), images)
        assert len(file.pages) == 9
        assert file.series[0].axes == "ZYX"
        for page in file.pages:
            tags = page.aspage().tags
            assert page.dtype == np.float32
            assert tags["ResolutionUnit"].value == 3  # centimetres
            across, down = (tags[name].value for name in ("XResolution", "YResolution"))
            assert across[0] / across[1] == pytest.approx(12.5)
            assert down[0] / down[1] == pytest.approx(10.0)
        described = file.ome_metadata
        assert 'PhysicalSizeZ="2.0"' in described
        assert "reconstruction in 1/mm" in described


def test_samples_and_unknown_sizes(tmp_path: Path) -> None:
    path, samples = tmp_path / "recon.h5", np.stack((ball(), 2 * ball()))
    write_ball(path, samples=samples, unit="1/pixel", pixel_size=None, slice_distance=None, grid=None)
    done = export_result(path, tmp_path / "out.tiff", what="samples")
    with TiffFile(done.target) as file:
        np.testing.assert_array_equal(file.asarray(), samples)
        assert file.pages[0].tags["ResolutionUnit"].value == 1  # none
        assert "PhysicalSize" not in file.ome_metadata


def test_large_files_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recon.h5"
    images = write_ball(path)
    monkeypatch.setattr("ctflow.io.export.tiff._LARGEST", 100)
    with TiffFile(export_result(path, tmp_path / "out.tif").target) as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), images)
