"""ASTRA and ODL on fan beams: against Joseph's method and each other, ODL's conventions, what is refused."""

from __future__ import annotations

import math
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import Detector, FanBeam, ImageGrid, ParallelBeam, RayTransform
from operators.ct.projectors.astra_engine import slice_geometry
from operators.ct.projectors.odl_geometry import geometry_from_odl
from tests.operators.ct.ellipses import phantom_image, phantom_sinogram


def circular(
    views: int = 12, bins: int = 91, pitch: float = 1.2, *, tilt: float = 0.0, **detector: Any
) -> FanBeam:
    """A scan whose fan holds the phantom."""
    return FanBeam.circular(
        views,
        source_to_axis=60.0,
        source_to_detector=100.0,
        detector=Detector(bins, pitch, **detector),
        tilt=tilt,
        start=0.1,
    )


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("engine", "scan"),
    [
        ("astra", circular()),
        ("astra", circular(offset=1.3)),
        ("astra", circular(tilt=0.3)),
        ("odl", circular()),
        ("odl", circular(offset=1.3)),
    ],
    ids=["astra", "astra shifted", "astra tilted", "odl", "odl shifted"],
)
def test_sinograms_come_together_with_josephs_as_pixels_shrink(engine: str, scan: FanBeam) -> None:
    """Lengths in pixels and interpolation between pixels are two rules for one integral."""
    apart, wrong = [], []
    for size in (48, 96, 192):
        grid = ImageGrid((size, size), pixel_size=48 / size)
        image = phantom_image(grid).float()
        theirs, ours = (RayTransform(scan, grid, name)(image) for name in (engine, "joseph"))
        apart.append(distance(theirs, ours))
        wrong.append(distance(theirs.double(), phantom_sinogram(scan)))
    for errors in (apart, wrong):
        assert all(later < 0.65 * sooner for sooner, later in pairwise(errors))
    assert apart[-1] < 0.005
    assert wrong[-1] < 0.01


@pytest.mark.parametrize("engine", ["astra", "odl"])
@pytest.mark.parametrize("shape", [(24, 24), (17, 22)])
def test_adjoints_are_the_transpose(engine: str, shape: tuple[int, int]) -> None:
    operator = RayTransform(circular(7, 40, 2.0, offset=0.7), ImageGrid(shape, 1.5), engine)
    image, sinogram = random(2, *shape) - 0.5, random(2, 7, 40) - 0.5
    forward, back = operator(image).double(), operator.adjoint(sinogram).double()
    apart = abs((forward * sinogram).sum() - (image * back).sum())
    assert apart <= 1e-6 * forward.norm() * sinogram.norm()


def test_a_ray_through_the_axis_is_as_long_as_the_image() -> None:
    scan = FanBeam.circular(
        4, source_to_axis=60.0, source_to_detector=100.0, detector=Detector(1, 1.0), start=1e-4
    )
    image = torch.full((10, 10), 0.02)
    for engine in ("joseph", "astra", "odl"):
        sinogram = RayTransform(scan, ImageGrid((10, 10), 0.5), engine)(image)
        torch.testing.assert_close(sinogram, torch.full((4, 1), 0.1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("changes", [{}, {"offset": 0.5}, {"tilt": 0.2}])
def test_fans_on_a_gpu_are_seen_where_our_images_are(changes: dict[str, float]) -> None:
    """The CUDA path cannot run here; its geometry can: source, bins and pixels of one slice, y mirrored."""
    scan, grid = circular(5, 9, 2.0, **changes), ImageGrid((4, 6), 0.5, center=(1.0, -2.0))
    projection, volume = slice_geometry(scan, grid, slices=1)
    assert projection["type"] == "cone_vec"
    assert (projection["DetectorRowCount"], projection["DetectorColCount"]) == (1, 9)
    window = volume["option"]
    left, right, bottom, top = grid.extent
    assert [window[f"WindowM{end}"] for end in ("inX", "axX", "inY", "axY")] == [left, right, -top, -bottom]
    numbers = projection["Vectors"].reshape(-1, 4, 3)
    mirrored = numbers[:, :, :2] * (1, -1)
    np.testing.assert_array_equal(mirrored[:, :3].reshape(-1, 6), scan.vectors())
    assert not numbers[:, :3, 2].any()
    np.testing.assert_array_equal(numbers[:, 3], [[0, 0, 0.5]] * 5)


def odl_fan(**changes: Any) -> Any:
    """ODL's ray transform of a fan with a shifted detector, and what its bins are."""
    odl, tomo = import_module("odl"), import_module("odl.applications.tomo")
    bins = changes.pop("bins", (-60, 66))
    geometry = tomo.FanBeamGeometry(
        odl.uniform_partition(0, 2 * math.pi, 11),
        odl.uniform_partition(*bins, 50),
        src_radius=50,
        det_radius=40,
        **changes,
    )
    space = odl.uniform_discr([-20, -10], [20, 30], (40, 40), dtype="float32")
    return tomo.RayTransform(space, geometry, impl="astra_cpu")


FANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "translated": {"translation": (3, -2)},
    "turned": {"src_to_det_init": (1, 0)},
    "mirrored": {"src_to_det_init": (1, 0), "det_axis_init": (0, -1)},
    "shifted source": {"src_shift_func": lambda angle: np.full((np.size(angle), 2), (1.5, 0.3))},
    "arc": {"bins": (-0.6, 0.7), "det_curvature_radius": 90},
}


@pytest.mark.parametrize("name", FANS)
def test_from_odl_has_odls_rays(name: str) -> None:
    theirs = odl_fan(**FANS[name])
    geometry, grid = geometry_from_odl(theirs)
    angles, bins = theirs.geometry.angles, theirs.geometry.det_partition.meshgrid[0].ravel()
    sources = theirs.geometry.src_position(angles)
    screen = np.stack([theirs.geometry.det_point_position(angles, float(place)) for place in bins], axis=1)
    rays = screen - sources[:, None]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    _, directions = geometry.rays()
    # The same array lies in ODL with its rows along x: our (x, y) are its (y, -x).
    np.testing.assert_allclose(directions, np.stack((rays[..., 1], -rays[..., 0]), axis=-1), atol=1e-12)
    np.testing.assert_allclose(geometry.sources, np.stack((sources[:, 1], -sources[:, 0]), axis=-1))
    assert geometry.detector.curved == (name == "arc")
    assert grid == ImageGrid((40, 40), 1.0, center=(10.0, 0.0))


@pytest.mark.parametrize("name", [name for name in FANS if name != "arc"])
def test_from_odl_gives_equal_sinograms_of_equal_arrays(name: str) -> None:
    theirs = odl_fan(**FANS[name])
    image = random(40, 40)
    expected = torch.from_numpy(np.array(theirs(theirs.domain.element(image.numpy())).asarray()))
    assert distance(RayTransform.from_odl(theirs, "astra")(image), expected) < 1e-6
    assert distance(RayTransform.from_odl(theirs)(image), expected) < 0.03


@pytest.mark.parametrize(
    "scan",
    [
        circular(),
        circular(offset=-1.7),
        circular().subset(slice(2, 9)),
        circular().subset([3]),
        circular().subset([0, 1, 5, 7, 8]),
    ],
    ids=["whole", "shifted", "short", "one view", "uneven"],
)
def test_to_odl_and_back_is_the_same_scan(scan: FanBeam) -> None:
    grid = ImageGrid((30, 26), 1.5, center=(2.0, -3.0))
    theirs = RayTransform(scan, grid).to_odl()
    image = random(30, 26)
    expected = np.array(theirs(theirs.domain.element(image.numpy())).asarray())
    found = RayTransform(scan, grid, "astra")(image).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    back = RayTransform.from_odl(theirs)
    np.testing.assert_allclose(back.geometry.vectors(), scan.vectors(), atol=1e-9)
    assert back.geometry.detector.offset == pytest.approx(scan.detector.offset, abs=1e-9)
    np.testing.assert_allclose(back.grid.extent, grid.extent)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RayTransform(circular(curved=True), ImageGrid((4, 4)), "astra"),
            r'expected a flat detector, found a curved one, which projector "joseph" takes',
        ),
        (
            lambda: RayTransform(circular(), ImageGrid((4, 4), (1.0, 2.0)), "astra"),
            r'projector "astra": expected square pixels, found 1 x 2 mm; projector "joseph" takes others',
        ),
        (lambda: RayTransform(circular(), ImageGrid((4, 4), (1.0, 2.0))).to_odl(), "expected square pixels"),
        (
            lambda: RayTransform(circular(curved=True), ImageGrid((4, 4))).to_odl(),
            "expected a source on a circle about the axis before a flat detector at right angles, found",
        ),
        (
            lambda: RayTransform(circular(tilt=0.2), ImageGrid((4, 4)), "odl"),
            "expected a source on a circle about the axis before a flat detector at right angles, found",
        ),
        (
            lambda: RayTransform(circular().subset([3, 1]), ImageGrid((4, 4))).to_odl(),
            "expected angles that grow from view to view",
        ),
        (
            lambda: RayTransform.from_odl(odl_fan(bins=(-0.6, 0.7), det_curvature_radius=70)),
            "from_odl: expected an arc around the source, of radius 90 mm, found radius 70 mm",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_double_precision_and_other_devices_are_refused() -> None:
    operator = RayTransform(circular(), ImageGrid((4, 4)), "astra")
    with pytest.raises(ValueError, match=r"expected dtype torch\.float32, found torch\.float64"):
        operator(torch.zeros(4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r'projector "odl": expected torch\.float32 on cpu, found'):
        RayTransform(circular(), ImageGrid((4, 4)), "odl")(torch.zeros(4, 4, device="meta"))


def test_a_distant_source_makes_astras_parallel_rays() -> None:
    """Two ASTRA geometries, two discretisations, one place of the image."""
    angles, grid, far = [0.03, 0.4, 2.0, 3.5], ImageGrid((64, 64), 0.75), 1e6
    detector = Detector(61, 1.1, 0.7)
    fan = FanBeam.circular(angles=angles, source_to_axis=far, source_to_detector=far + 30, detector=detector)
    image = phantom_image(grid).float()
    parallel = RayTransform(ParallelBeam(angles, detector), grid, "astra")(image)
    assert distance(RayTransform(fan, grid, "astra")(image), parallel) < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize(
    "scan", [circular(), circular(offset=1.3), ParallelBeam.uniform(12, Detector(91, 0.7))]
)
def test_astra_on_a_gpu_is_close_to_josephs(scan: FanBeam | ParallelBeam) -> None:
    grid = ImageGrid((96, 96), 0.5)
    image = phantom_image(grid).float().expand(3, -1, -1).contiguous()
    ours, theirs = RayTransform(scan, grid, "joseph"), RayTransform(scan, grid, "astra")
    sinogram = ours(image)
    assert distance(theirs(image.cuda()).cpu(), sinogram) < 0.02
    assert distance(theirs.adjoint(sinogram.cuda()).cpu(), ours.adjoint(sinogram)) < 0.15
