"""LoDoPaB-CT files: their fixed geometry and scale, and what is no such file."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.formats.lodopab import read_ground_truth
from ctflow.io.scan import open_scan
from operators import RayTransform, filtered_backprojection
from tests.ctflow.io.measured import write_lodopab


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "observation_test_000.hdf5"


def test_scale_shape_and_noise(path: Path) -> None:
    sinograms = write_lodopab(path)
    scan = open_scan(path)
    assert (len(scan), scan.unit) == (2, "1/mm")
    assert scan.operator.domain_shape == (362, 362)
    torch.testing.assert_close(scan[0:2].measurement, sinograms, rtol=1e-5, atol=1e-6)
    assert (scan[0].noise.photons, scan[0].noise.smallest_count) == (4096.0, 0.1)
    assert open_scan(path, photons=1000.0)[1].noise.photons == 1000.0
    torch.testing.assert_close(open_scan(path, views=250)[1].measurement, sinograms[1, ::4])


def test_the_geometry_is_the_published_one(path: Path) -> None:
    odl, tomo = import_module("odl"), import_module("odl.applications.tomo")
    write_lodopab(path, 1)
    space = odl.uniform_discr([-130, -130], [130, 130], (362, 362), dtype="float32")
    reach = 130 * math.sqrt(2)
    geometry = tomo.Parallel2dGeometry(
        odl.uniform_partition(0, math.pi, 1000), odl.uniform_partition(-reach, reach, 513)
    )
    published = RayTransform.from_odl(tomo.RayTransform(space, geometry, impl="astra_cpu"))
    ours = open_scan(path).operator
    np.testing.assert_allclose(ours.geometry.angles, published.geometry.angles, atol=1e-12)
    assert ours.geometry.detector.pitch == pytest.approx(published.geometry.detector.pitch, rel=1e-12)
    assert ours.geometry.detector.offset == pytest.approx(0, abs=1e-9)
    assert ours.grid.extent == pytest.approx(published.grid.extent)
    assert ours.grid.shape == published.grid.shape


def test_a_disc_lands_where_it_is_in_the_stored_images(path: Path) -> None:
    write_lodopab(path, 1)
    scan = open_scan(path)
    image = filtered_backprojection(scan.operator, scan[0].measurement)
    # The first axis of a stored image is x, the second y, each from -130 mm.
    at = (torch.arange(362) - 180.5) * 260 / 362
    inside = (at[:, None] - 40) ** 2 + (at[None, :] + 25) ** 2 < 27**2
    outside = (at[:, None] - 40) ** 2 + (at[None, :] + 25) ** 2 > 34**2
    assert float(image[inside].mean()) == pytest.approx(0.02, rel=5e-3)
    assert float(image[outside].abs().mean()) < 2e-4


def test_ground_truth(path: Path) -> None:
    stored = np.random.default_rng(0).random((3, 362, 362), dtype=np.float32)
    with h5py.File(path, "w") as file:
        file["data"] = stored
    images = read_ground_truth(path, 1, 3)
    # 3071 HU is 81.35858 / m.
    np.testing.assert_allclose(images.numpy(), stored[1:] * 0.08135858, rtol=1e-5)
    with pytest.raises(ScanError, match=r"slices: expected a range within 0:3, found 2:4"):
        read_ground_truth(path, 2, 4)
    with pytest.raises(ScanError, match=r"which are images .*; open the observation_\*\.hdf5 file"):
        open_scan(path)


def test_errors(path: Path) -> None:
    write_lodopab(path, 1)
    with pytest.raises(ScanError, match="angles of LoDoPaB-CT are fixed"):
        open_scan(path, angles_unit="degrees")
    with pytest.raises(ScanError, match="which are measurements"):
        read_ground_truth(path)
    with h5py.File(path, "r+") as file:
        file["data"][0, 5, 6] = np.inf
    with pytest.raises(ScanError, match="inf in slice 0 at view 5, bin 6"):
        _ = open_scan(path)[0]
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((1, 513, 1000), np.float32)
    with pytest.raises(ScanError, match=r"expected LoDoPaB-CT's shape \(n, 1000, 513\), found shape"):
        open_scan(path)
