"""Problems through a decoder: against the affine problem where the decoder is linear, and its own minimum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctflow.latent_representation import LatentRepresentation
from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from operators.linear import LinearOperator
from operators.noise import ComplexGaussianNoise, GaussianNoise, NoiseModel
from tests.ctflow import latents
from tests.ctflow.test_latent_representation import Folding
from tests.operators.examples import random


class OfImages(LinearOperator):
    """A dense matrix on flattened images."""

    def __init__(self, matrix: Tensor, shape: tuple[int, int]) -> None:
        super().__init__(shape, matrix.shape[:1], domain_dtype=matrix.dtype)
        self.matrix = matrix

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(-2) @ self.matrix.mT

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.conj()).unflatten(-1, self.domain_shape)


PIXELS = Representation(0.5, 0.25, calibration="fixed")


def problem(batch: int = 2, complex_images: bool = False) -> InverseProblem:
    dtype = torch.complex128 if complex_images else torch.float64
    noise: NoiseModel = ComplexGaussianNoise(0.3) if complex_images else GaussianNoise(0.3)
    return InverseProblem(OfImages(random((9, 16), dtype, 0), (4, 4)), random((batch, 9), dtype, 1), noise)


def folded(posed: InverseProblem) -> LatentRepresentation:
    pixels = (
        Representation(0.5, complex=True, calibration="fixed") if posed.image_dtype.is_complex else PIXELS
    )
    return LatentRepresentation(Folding().double(), 2, 1, pixels).fitted(posed)


@pytest.mark.parametrize("complex_images", [False, True])
def test_residual_and_its_gradient_are_those_of_the_decoded_image(complex_images: bool) -> None:
    posed = problem(complex_images=complex_images)
    representation = folded(posed)
    through = posed.through(representation)
    latent = random((2, *representation.latent_shape), torch.float64, 2)
    image = representation.decode(latent)
    assert through.image_shape == tuple(latent.shape)
    assert through.event_dims == 3
    assert torch.allclose(through.residual(latent), posed.residual(image))
    assert torch.allclose(through.data_fit(latent), posed.data_fit(image))
    pixels = posed.on(representation.pixels)
    assert torch.allclose(through.curvature(), pixels.curvature())
    normal = through.normal_residual(latent)
    assert torch.allclose(normal, pixels.normal_residual(representation.decode_pixels(latent)))


def test_the_proximal_is_the_dense_solution_for_a_linear_decoder() -> None:
    posed = problem()
    representation = folded(posed)
    through = posed.through(representation)
    v = random((2, *representation.latent_shape), torch.float64, 3)
    near = through.proximal(v, 0.7, max_iterations=200, rtol=1e-9)
    units = torch.eye(48, dtype=torch.float64).reshape(48, *representation.latent_shape)
    origin = posed.prediction(representation.decode(torch.zeros_like(units[0])))
    matrix = (posed.prediction(representation.decode(units)) - origin).mT
    hessian = matrix.mT @ matrix / 0.3**2 + torch.eye(48, dtype=torch.float64) / 0.7
    right = (posed.measurement - origin) @ matrix / 0.3**2 + v.flatten(1) / 0.7
    expected = torch.linalg.solve(hessian, right.mT).mT
    assert torch.allclose(near.x.flatten(1), expected, atol=1e-6)
    assert near.method == "L-BFGS through the decoder"
    assert bool((near.iterations > 0).all())
    again = through.proximal(v, 0.7, near.x, max_iterations=200, rtol=1e-9)
    assert torch.allclose(again.x, near.x, atol=1e-6)


def test_the_proximal_of_a_real_decoder_is_stationary_for_each_sample_by_itself() -> None:
    posed = problem()
    decoder = latents.autoencoder().double().eval().requires_grad_(False)
    representation = LatentRepresentation(decoder, 2, 1, PIXELS).fitted(posed)
    through = posed.through(representation)
    v = random((2, *representation.latent_shape), torch.float64, 3)
    near = through.proximal(v, 0.01, max_iterations=40, rtol=1e-3)
    z = near.x.detach().requires_grad_()
    energy = through.weighted_energy(through.residual(z)).sum() + (z - v).square().sum() / 0.02
    (gradient,) = torch.autograd.grad(energy, z)
    point = v.clone().requires_grad_()
    (first,) = torch.autograd.grad(through.weighted_energy(through.residual(point)).sum(), point)
    assert float(gradient.abs().max()) < 1e-3 * float(first.abs().max())
    alone = problem(1)
    alone = InverseProblem(posed.operator, posed.measurement[1:], posed.noise)
    single = alone.through(representation).proximal(v[1:], 0.01, max_iterations=40, rtol=1e-3)
    assert torch.allclose(single.x[0], near.x[1], atol=1e-8)


def test_an_affine_representation_gives_the_affine_problem() -> None:
    posed = problem()
    v = random((2, 1, 4, 4), torch.float64, 3)
    assert torch.equal(posed.through(PIXELS).proximal(v, 0.5).x, posed.on(PIXELS).proximal(v, 0.5).x)


def test_errors() -> None:
    posed = problem()
    representation = folded(posed)
    with pytest.raises(ValueError, match="expected a prior with an affine representation"):
        posed.on(representation)
    latent = torch.zeros(2, *representation.latent_shape, dtype=torch.float64)
    with pytest.raises(ValueError, match="affine representation to draw from, found a latent one"):
        posed.through(representation).proximal_sample(latent, 1.0, torch.Generator())
