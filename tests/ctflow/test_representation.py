"""The map between images and network tensors."""

from __future__ import annotations

import json

import pytest
import torch

from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from operators.ct.geometry import Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.linear import Identity
from operators.noise import GaussianNoise
from tests.operators.examples import random

CASES = [
    Representation(0.02, 0.02),
    Representation(torch.tensor([0.5, 2.0]), torch.tensor([0.1, -1.0])),
    Representation(3.0, complex=True),
    Representation.identity(),
]
each_case = pytest.mark.parametrize("representation", CASES, ids=["ct", "each sample", "mr", "identity"])


@each_case
def test_decode_undoes_encode(representation: Representation) -> None:
    image = random((2, 4, 3), torch.complex128 if representation.complex else torch.float64, 0)
    tensor = representation.encode(image)
    if representation.channels:
        assert tensor.shape == (2, 2 if representation.complex else 1, 4, 3)
    assert tensor.dtype == torch.float64 or not representation.channels
    assert torch.allclose(representation.decode(tensor), image)


@each_case
def test_linear_and_background_are_its_two_parts(representation: Representation) -> None:
    dtype = torch.complex64 if representation.complex else torch.float32
    linear = representation.linear((4, 3), dtype=dtype)
    tensor = random((2, *linear.domain_shape), linear.domain_dtype, 1)
    background = representation.background((4, 3), like=tensor)
    assert torch.allclose(linear(tensor) + background, representation.decode(tensor))


@each_case
def test_volumes_are_stacks_of_images(representation: Representation) -> None:
    dtype = torch.complex64 if representation.complex else torch.float32
    volume = random((3, 2, 4, 3), dtype, 2)
    tensor = representation.encode(volume)
    assert torch.allclose(tensor[1], representation.encode(volume[1]))
    assert torch.allclose(representation.decode(tensor), volume)
    linear = representation.linear((2, 4, 3), dtype=dtype)
    assert torch.allclose(
        linear(tensor) + representation.background((2, 4, 3), like=tensor), volume, atol=1e-6
    )
    problem = InverseProblem(Identity((2, 4, 3), dtype=dtype), volume, GaussianNoise(1.0)).on(representation)
    v = 0.5 * tensor
    scale = torch.as_tensor(representation.scale)
    scale = scale.reshape(*scale.shape, 1, 1, 1) if representation.channels and scale.ndim else scale
    expected = (v + 0.3 * scale**2 * tensor) / (1 + 0.3 * scale**2)
    assert torch.allclose(problem.proximal(v, 0.3, rtol=1e-6).x, expected, rtol=1e-4)


@each_case
def test_survives_a_file(representation: Representation) -> None:
    again = Representation.from_dict(json.loads(json.dumps(representation.to_dict())))
    assert again.to_dict() == representation.to_dict()
    tensor = random((2, 2, 4, 3), torch.float32, 1)
    if representation.channels:
        tensor = tensor[:, : 2 if representation.complex else 1]
    assert torch.allclose(again.decode(tensor), representation.decode(tensor))


def test_ct_landmarks() -> None:
    assert torch.allclose(
        CASES[0].encode(torch.tensor([[0.0, 0.02, 0.04]])), torch.tensor([[[-1.0, 0.0, 1.0]]])
    )


def scan(unit: float) -> InverseProblem:
    operator = RayTransform(ParallelBeam.uniform(40, Detector(45, 1.0)), ImageGrid((32, 32)))
    image = torch.zeros(1, 32, 32)
    image[:, 8:24, 8:24] = 0.04 * unit
    return InverseProblem(operator, operator(image), GaussianNoise(0.01))


def test_a_scale_that_fits_is_kept_and_one_that_does_not_is_estimated() -> None:
    automatic = Representation(0.02, 0.02)
    assert (automatic.fitted(scan(1.0)).scale, automatic.fitted(scan(1.0)).calibration) == (0.02, "fixed")
    strange = automatic.fitted(scan(250.0))
    assert strange.scale == pytest.approx(0.02 * 250, rel=0.25)
    assert strange.offset == pytest.approx(strange.scale)
    estimated = Representation(0.02, 0.02, calibration="data").fitted(scan(1.0))
    assert estimated.scale == pytest.approx(0.02, rel=0.25)
    assert Representation(0.02, 0.02, calibration="fixed").fitted(scan(250.0)).scale == 0.02


def test_the_estimate_follows_the_unit() -> None:
    one, other = (
        Representation(0.02, 0.02, calibration="data").fitted(scan(unit)).scale for unit in (1.0, 1e3)
    )
    assert other == pytest.approx(1e3 * one, rel=1e-4)


def test_nothing_measured_leaves_the_scale() -> None:
    empty = InverseProblem(Identity((8, 8)), torch.zeros(1, 8, 8), GaussianNoise(0.1))
    assert Representation(0.02, 0.02).fitted(empty).scale == 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.0}, "scale: expected a positive value, found 0"),
        ({"offset": 0.1, "complex": True}, r"offset: expected 0 for complex images, found 0\.1"),
        ({"calibration": "guess"}, "calibration: expected auto, fixed or data, found 'guess'"),
    ],
)
def test_errors(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Representation(**settings)
