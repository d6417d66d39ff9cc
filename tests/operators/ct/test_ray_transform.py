"""RayTransform: shapes, batches, dtypes, derivatives, ODL's conventions and what it refuses."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import ConeBeam, Detector, Identity, ImageGrid, ParallelBeam, RayTransform
from operators.ct import ray_transform

GEOMETRY = ParallelBeam.uniform(7, Detector(13, 0.9))
GRID = ImageGrid((8, 9))


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_auto_is_joseph_on_the_cpu() -> None:
    image = random(8, 9)
    auto, joseph = RayTransform(GEOMETRY, GRID), RayTransform(GEOMETRY, GRID, "joseph")
    assert auto.projector == "auto"
    torch.testing.assert_close(auto(image), joseph(image), rtol=0, atol=0)


@pytest.mark.parametrize("projector", ["auto", "joseph", "astra", "odl"])
def test_any_leading_dimensions_are_a_batch(projector: str) -> None:
    operator = RayTransform(GEOMETRY, GRID, projector)
    images = random(2, 3, 8, 9)
    sinograms = operator(images)
    assert sinograms.shape == (2, 3, 7, 13)
    torch.testing.assert_close(sinograms[1, 2], operator(images[1, 2]))
    assert operator.adjoint(sinograms).shape == (2, 3, 8, 9)


@pytest.mark.parametrize("projector", ["joseph", "astra", "odl"])
def test_memory_layout_does_not_matter(projector: str) -> None:
    operator = RayTransform(GEOMETRY, GRID, projector)
    images, sinograms = random(3, 8, 9), random(3, 7, 13)
    turned = images.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    torch.testing.assert_close(operator(turned), operator(images), rtol=0, atol=0)
    spread = torch.zeros(3, 7, 26)[..., ::2].copy_(sinograms)
    torch.testing.assert_close(operator.adjoint(spread), operator.adjoint(sinograms), rtol=0, atol=0)
    torch.testing.assert_close(operator(images[:1].expand(3, -1, -1))[2], operator(images[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype: torch.dtype) -> None:
    operator = RayTransform(GEOMETRY, GRID)
    assert operator(random(8, 9, dtype=dtype)).dtype == dtype
    assert operator.adjoint(random(7, 13, dtype=dtype)).dtype == dtype


def test_inputs_are_left_alone() -> None:
    operator = RayTransform(GEOMETRY, GRID)
    image, sinogram = random(8, 9), random(7, 13)
    before = image.clone(), sinogram.clone()
    operator(image), operator.adjoint(sinogram)
    torch.testing.assert_close((image, sinogram), before, rtol=0, atol=0)


def test_gradient_is_the_adjoint() -> None:
    operator = RayTransform(GEOMETRY, GRID)
    image = random(2, 8, 9, dtype=torch.float64).requires_grad_()
    weights = random(2, 7, 13, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((operator(image) * weights).sum(), image)
    torch.testing.assert_close(gradient, operator.adjoint(weights))


def test_the_length_unit_is_the_millimetre() -> None:
    """A ray along a row of 10 pixels of 0.5 mm with attenuation 0.02/mm has the line integral 0.1."""
    operator = RayTransform(ParallelBeam([0.0, math.pi / 2], Detector(10, 0.5)), ImageGrid((10, 10), 0.5))
    torch.testing.assert_close(operator(torch.full((10, 10), 0.02)), torch.full((2, 10), 0.1))


def test_subset_is_some_rows_of_the_sinogram() -> None:
    operator, image = RayTransform(GEOMETRY, GRID), random(8, 9)
    torch.testing.assert_close(operator.subset(slice(1, None, 3))(image), operator(image)[1::3])
    assert operator.subset([0]).range_shape == (1, 13)


def test_repr_tells_what_it_is() -> None:
    text = repr(RayTransform(GEOMETRY, GRID))
    assert text.startswith("RayTransform: (7, 13) <- (8, 9), parallel beam, 7 views")
    assert text.endswith("8 x 9 pixels of 1 mm, projector auto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (GEOMETRY, GRID, "siddon"),
            "expected one of auto, joseph, astra, odl, sparse, triton, found 'siddon'",
        ),
        ((GRID, GEOMETRY), "geometry: expected a geometry, such as ParallelBeam, found ImageGrid"),
        ((GEOMETRY, (8, 9)), "grid: expected an ImageGrid, found tuple"),
        ((GEOMETRY, ImageGrid((4, 8, 9))), "expected 2 dimensions for a ParallelBeam, found 4 x 8 x 9"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RayTransform(*arguments)


def test_bad_inputs_are_named() -> None:
    operator = RayTransform(GEOMETRY, GRID)
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., 8, 9\), found \(9, 8\)"):
        operator(torch.zeros(9, 8))
    with pytest.raises(ValueError, match=r"adjoint input: expected shape \(\.\.\., 7, 13\), found \(13, 7\)"):
        operator.adjoint(torch.zeros(13, 7))
    with pytest.raises(
        ValueError, match=r"expected dtype torch\.float32 or torch\.float64, found torch\.float16"
    ):
        operator(torch.zeros(8, 9, dtype=torch.float16))


def odl_transform(views: int = 12, **kwargs: Any) -> Any:
    odl, tomo = import_module("odl"), import_module("odl.applications.tomo")

    space = odl.uniform_discr([-20, -10], [20, 30], (40, 40), dtype="float32")
    geometry = tomo.Parallel2dGeometry(
        odl.uniform_partition(0, math.pi, views), odl.uniform_partition(-35, 35, 50), **kwargs
    )
    return tomo.RayTransform(space, geometry, impl="astra_cpu")


def test_from_odl_gives_equal_sinograms_of_equal_arrays() -> None:
    theirs = odl_transform()
    ours = RayTransform.from_odl(theirs)
    image = random(40, 40)
    expected = torch.from_numpy(np.array(theirs(theirs.domain.element(image.numpy())).asarray()))
    assert (ours(image) - expected).norm() <= 1e-5 * expected.norm()
    np.testing.assert_allclose(ours.geometry.angles, theirs.geometry.angles - math.pi / 2)
    assert ours.projector == "auto"


def test_from_odl_follows_the_initial_detector_axis() -> None:
    turned = RayTransform.from_odl(odl_transform(det_pos_init=(-1, 0)))
    plain = RayTransform.from_odl(odl_transform())
    np.testing.assert_allclose(turned.geometry.angles, plain.geometry.angles + math.pi / 2)


def test_odl_adjoint_is_ours_with_weights() -> None:
    theirs = odl_transform()
    sinogram = random(12, 50)
    weighted = theirs.adjoint(theirs.range.element(sinogram.numpy())).asarray()
    factor = theirs.range.weighting.const / theirs.domain.weighting.const
    ours = RayTransform.from_odl(theirs).adjoint(sinogram).numpy() * factor
    np.testing.assert_allclose(weighted, ours, rtol=1e-4, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize(
    "angles",
    [GEOMETRY.angles, [0.3], [0.0, 0.1, 0.5, 0.6]],
    ids=["uniform", "one view", "uneven"],
)
def test_to_odl_and_back_is_the_same_scan(angles: Any) -> None:
    grid = ImageGrid((8, 9), 0.7, center=(2.0, -3.0))
    ours = RayTransform(ParallelBeam(angles, Detector(13, 0.9)), grid)
    theirs = ours.to_odl()
    image = random(8, 9)
    expected = np.array(theirs(theirs.domain.element(image.numpy())).asarray())
    np.testing.assert_allclose(ours(image).numpy(), expected, rtol=1e-4, atol=1e-5)
    back = RayTransform.from_odl(theirs)
    np.testing.assert_allclose(back.geometry.angles, ours.geometry.angles, atol=1e-12)
    assert back.geometry.detector.bins == 13
    assert back.geometry.detector.pitch == pytest.approx(0.9)
    assert back.grid.shape == grid.shape
    np.testing.assert_allclose(back.grid.pixel_size, grid.pixel_size)
    np.testing.assert_allclose(back.grid.center, grid.center)


def test_a_detector_that_is_not_centred_is_read_but_not_written() -> None:
    odl, tomo = import_module("odl"), import_module("odl.applications.tomo")

    space = odl.uniform_discr([-4, -4], [4, 4], (8, 8))
    geometry = tomo.Parallel2dGeometry(odl.uniform_partition(0, math.pi, 4), odl.uniform_partition(-5, 7, 12))
    ours = RayTransform.from_odl(tomo.RayTransform(space, geometry, impl="astra_cpu"))
    assert ours.geometry.detector == Detector(12, 1.0, offset=1.0)
    with pytest.raises(ValueError, match="expected a centred detector, found offset 1 mm"):
        ours.to_odl()


def test_what_odl_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="expected angles that grow from view to view"):
        RayTransform(ParallelBeam([1.0, 0.0], Detector(5, 1.0)), ImageGrid((4, 4))).to_odl()
    with pytest.raises(ValueError, match=r"expected an odl\.applications\.tomo\.RayTransform, found int"):
        RayTransform.from_odl(3)
    with pytest.raises(ValueError, match="turns around the origin, found a translated one"):
        RayTransform.from_odl(odl_transform(translation=(1, 0)))


def test_the_spacing_of_pixels_goes_through_the_algebra() -> None:
    operator = RayTransform(GEOMETRY, ImageGrid((8, 9), (1.5, 0.5)))
    assert operator.domain_spacing == (1.5, 0.5)
    for composed in (2 * operator, operator - 3 * operator, Identity((7, 13)) @ operator, operator.gram):
        assert composed.domain_spacing == (1.5, 0.5)
    assert operator.H.domain_spacing == (1.0, 1.0)


def test_auto_on_cuda_is_exact_where_it_can_be(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector((4, 5), 2.0)
    cone = ConeBeam.circular(3, source_to_axis=20.0, source_to_detector=30.0, detector=detector)
    for present, engine in ((True, "JosephTritonVolumeProjector"), (False, "AstraVolumeProjector")):
        monkeypatch.setattr(ray_transform, "find_spec", lambda name, present=present: present or None)
        operator = RayTransform(cone, ImageGrid((2, 3, 4), 1.0))
        assert type(operator._choose(torch.device("cuda"))).__name__ == engine
        assert type(operator._choose(torch.device("cuda"))).__name__ == engine
        assert type(operator._choose(torch.device("cpu"))).__name__ == "JosephVolumeProjector"
    # What is approximate is said, once.
    assert [record.getMessage() for record in caplog.records] == [
        'projector "auto": Triton is not installed; ASTRA computes ConeBeam on CUDA, and its adjoint is '
        "approximate"
    ]
