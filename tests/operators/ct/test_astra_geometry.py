"""ASTRA's geometries and ours: round trips, equal sinograms where ASTRA has a CPU, equal places elsewhere."""

from __future__ import annotations

import copy
import math
import pickle
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from operators import (
    ConeBeam,
    Detector,
    FanBeam,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
    RayTransform,
)

ROW = Detector(21, 1.3, offset=0.7)
PANEL = Detector((5, 8), (1.3, 1.1), (0.4, -0.6))
ARC = Detector((5, 8), (1.3, 1.1), (0.4, -0.6), curved=True)
FAR: dict[str, Any] = {"source_to_axis": 30.0, "source_to_detector": 45.0}

PLANE = {
    "parallel": ParallelBeam([0.1, 0.8, 2.5, 3.9], ROW),
    "fan": FanBeam.circular(5, detector=ROW, **FAR),
    "fan tilted": FanBeam.circular(5, detector=ROW, tilt=0.3, **FAR),
}
SPACE = {
    "parallel": ParallelBeam3D.uniform(4, PANEL, start=0.2),
    "laminography": ParallelBeam3D.uniform(4, PANEL, start=0.2, tilt=0.5),
    "cone": ConeBeam.circular(5, detector=PANEL, **FAR),
    "cone leaning": ConeBeam.circular(5, detector=PANEL, rotation=0.1, tilt=0.2, **FAR),
    "cone curved": ConeBeam.circular(5, detector=ARC, **FAR),
    "helix": HelicalConeBeam.uniform(7, 2, detector=PANEL, pitch=3.0, z_start=-2.0, **FAR),
}
IMAGE = ImageGrid((12, 9), 1.5, center=(1.0, -2.0))
VOLUME = ImageGrid((3, 4, 5), (1.5, 0.9, 1.1), center=(1.0, -2.0, 0.5))


@pytest.mark.parametrize("name", PLANE)
def test_scans_in_the_plane_come_back_with_equal_sinograms(name: str) -> None:
    astra = import_module("astra")
    ours = RayTransform(PLANE[name], IMAGE, "astra")
    projection, volume = ours.to_astra()
    again = RayTransform.from_astra(projection, volume, "astra")
    np.testing.assert_allclose(again.geometry.vectors(), ours.geometry.vectors(), atol=1e-9)
    assert again.geometry.sinogram_shape == ours.geometry.sinogram_shape
    np.testing.assert_allclose(again.grid.extent, IMAGE.extent)
    assert (again.grid.shape, again.projector) == (IMAGE.shape, "astra")
    image = torch.rand(12, 9, generator=torch.Generator().manual_seed(0))
    kind = "linear" if name == "parallel" else "line_fanflat"
    number = astra.create_projector(kind, projection, volume)
    theirs = astra.create_sino(image.numpy(), number)[1].copy()
    astra.projector.delete(number)
    for transform in (ours, again):
        np.testing.assert_allclose(transform(image).numpy(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("standard", "ours"),
    [
        (("parallel", 0.8, 11, [0.0, 0.4, 2.0]), ParallelBeam([0.0, 0.4, 2.0], Detector(11, 0.8))),
        (
            ("fanflat", 0.8, 11, [0.0, 0.4, 2.0], 30.0, 15.0),
            FanBeam.circular(angles=[0.0, 0.4, 2.0], detector=Detector(11, 0.8), **FAR),
        ),
        (
            ("parallel3d", 0.8, 1.2, 4, 11, [0.0, 0.4, 2.0]),
            ParallelBeam3D([0.0, 0.4, 2.0], Detector((4, 11), (1.2, 0.8))),
        ),
        (
            ("cone", 0.8, 1.2, 4, 11, [0.0, 0.4, 2.0], 30.0, 15.0),
            ConeBeam.circular(angles=[0.0, 0.4, 2.0], detector=Detector((4, 11), (1.2, 0.8)), **FAR),
        ),
    ],
    ids=["parallel", "fanflat", "parallel3d", "cone"],
)
def test_standard_geometries_are_read(standard: tuple[Any, ...], ours: Any) -> None:
    astra = import_module("astra")
    projection = astra.create_proj_geom(*standard)
    volume = astra.create_vol_geom(*([6, 7, 8] if ours.dimensions == 3 else [6, 7]))
    read = RayTransform.from_astra(projection, volume)
    assert read.grid.shape == ((8, 6, 7) if ours.dimensions == 3 else (6, 7))
    expected = ours.vectors()
    if ours.dimensions == 3:
        # ASTRA's y grows with the row of a volume: seen from our side its scans turn clockwise.
        expected[:, 1::3] *= -1
    np.testing.assert_allclose(read.geometry.vectors(), expected, atol=1e-9)
    assert read.geometry.sinogram_shape == ours.sinogram_shape


@pytest.mark.parametrize("name", SPACE)
def test_scans_in_space_come_back(name: str) -> None:
    ours = RayTransform(SPACE[name], VOLUME, "joseph")
    again = RayTransform.from_astra(*ours.to_astra(), "joseph")
    np.testing.assert_allclose(again.geometry.vectors(), ours.geometry.vectors(), atol=1e-9)
    np.testing.assert_allclose(again.grid.extent, VOLUME.extent)
    image = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(image), ours(image), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SPACE)
def test_astra_sees_voxels_where_we_do(name: str) -> None:
    """ASTRA cannot project volumes here, but where its rays pass the voxels can be computed by hand."""
    geometry = SPACE[name]
    projection, volume = RayTransform(geometry, VOLUME).to_astra()
    window = volume["option"]
    assert (projection["DetectorRowCount"], projection["DetectorColCount"]) == (5, 8)
    sides = (("X", 5), ("Y", 4), ("Z", 3))
    assert [volume[f"Grid{n}Count"] for n in ("Col", "Row", "Slice")] == [n for _, n in sides]
    theirs = [
        window[f"WindowMin{axis}"]
        + (np.arange(number) + 0.5) * (window[f"WindowMax{axis}"] - window[f"WindowMin{axis}"]) / number
        for axis, number in sides
    ]

    def seen(vectors: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Steps of bins and rows from the detector's middle to where the ray through a place meets it."""
        start, middle, along, across = (vectors[:, i : i + 3] for i in (0, 3, 6, 9))
        ray = start if isinstance(geometry, ParallelBeam3D) else place - start
        system = np.stack((along, across, -ray), axis=-1)
        return np.linalg.solve(system, (place - middle)[..., None])[:, :2, 0]

    for column, row, slice_ in np.ndindex(5, 4, 3):
        index = (column, row, slice_)
        here, there = (
            np.array([axis[i] for axis, i in zip(axes, index, strict=True)])
            for axes in (VOLUME.coordinates(), theirs)
        )
        np.testing.assert_allclose(
            seen(geometry.vectors(), here), seen(projection["Vectors"], there), atol=1e-9
        )


@pytest.mark.parametrize("name", ["parallel", "cone", "helix", "cone curved"])
def test_volumes_on_a_cpu_are_refused_in_one_line(name: str) -> None:
    operator = RayTransform(SPACE[name], ImageGrid((3, 4, 5)), "astra")
    message = (
        r'^projector "astra": ASTRA computes volumes on CUDA only, found a tensor on cpu, '
        r'which projector "joseph" takes$'
    )
    for again in (operator, copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        with pytest.raises(ValueError, match=message):
            again(torch.zeros(3, 4, 5))
        with pytest.raises(ValueError, match=message):
            again.adjoint(torch.zeros(operator.range_shape))


def test_voxels_that_are_no_cubes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected voxels that are cubes, found 1\.5 x 0\.9 x 1\.1 mm"):
        RayTransform(SPACE["cone"], VOLUME, "astra")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["parallel", "laminography", "cone", "cone leaning", "helix"])
def test_volumes_on_a_gpu_are_close_to_josephs(name: str) -> None:
    grid = ImageGrid((20, 24, 28), 0.5)
    x, y, z = np.meshgrid(*grid.coordinates(), indexing="ij")
    ball = np.exp(-((x - 1) ** 2 + (y + 0.5) ** 2 + (z - 0.5) ** 2) / 4).transpose(2, 1, 0)
    image = torch.from_numpy(ball).float()
    geometry = SPACE[name]
    sinogram = RayTransform(geometry, grid, "joseph")(image)
    theirs = RayTransform(geometry, grid, "astra")
    assert float((theirs(image.cuda()).cpu() - sinogram).norm() / sinogram.norm()) < 0.02
    # Ours is spiky where views are few; on what is smooth both must be transposes of about the same.
    back = theirs.adjoint(sinogram.cuda()).cpu()
    assert float((image * back).sum()) == pytest.approx(float(sinogram.square().sum()), rel=0.05)


def test_parallel_vectors_make_the_same_scan() -> None:
    scan = PLANE["parallel"]
    again = ParallelBeam.from_vectors(scan.vectors(), 21)
    assert again.detector.offset == pytest.approx(0.7)
    assert again.detector.pitch == pytest.approx(1.3)
    np.testing.assert_allclose(again.angles, scan.angles, atol=1e-12)


def test_parallel_vectors_may_lean_reverse_and_stretch() -> None:
    """A ray has no sense and no length, and a leaning detector sees what its shadow sees."""
    scan = PLANE["parallel"]
    numbers = scan.vectors()
    numbers[:, 2:4] += 5.0 * numbers[:, 0:2]
    numbers[:, 4:6] += 0.4 * numbers[:, 0:2]
    numbers[:, 0:2] *= [[-3.0], [0.5], [-1.0], [2.0]]
    np.testing.assert_allclose(ParallelBeam.from_vectors(numbers, 21).vectors(), scan.vectors(), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:, :4], r"ParallelBeam vectors: expected shape \(views, 6\)"),
        (lambda v: v * [[0, 0, 1, 1, 1, 1]], "expected ray directions, found zero"),
        (lambda v: np.hstack((v[:, :4], v[:, :2])), "expected rays across the detector, found rays along it"),
        (
            lambda v: v * np.array([[1], [1], [1], [2]]),
            "expected the same pitch of the detector in all views",
        ),
        (
            lambda v: v + np.array([[0] * 6] * 3 + [[0, 0, math.cos(3.9), math.sin(3.9), 0, 0]]),
            r"expected the same offset of the detector in all views, found 0\.7 to 1\.7 mm",
        ),
    ],
)
def test_parallel_vectors_that_make_no_sense_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParallelBeam.from_vectors(change(PLANE["parallel"].vectors()), 21)


def test_what_astra_or_we_cannot_say_is_refused() -> None:
    astra = import_module("astra")
    curved = FanBeam.circular(5, detector=Detector(9, 1.0, curved=True), **FAR)
    with pytest.raises(ValueError, match="to_astra: expected a flat detector of a fan, found 9 curved bins"):
        RayTransform(curved, IMAGE).to_astra()
    projection, _ = RayTransform(PLANE["fan"], IMAGE).to_astra()
    with pytest.raises(ValueError, match="expected a volume geometry for fanflat_vec, found one of volumes"):
        RayTransform.from_astra(projection, astra.create_vol_geom(3, 4, 5))
    with pytest.raises(ValueError, match=r"expected a projection geometry parallel_vec.*found sparse_matrix"):
        RayTransform.from_astra({"type": "sparse_matrix"}, astra.create_vol_geom(3, 4))
