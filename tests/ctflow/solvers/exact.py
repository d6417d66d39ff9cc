"""A Gaussian problem with a dense operator, its posterior, and the laws of affine recursions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from operators.linear import Identity, Matrix
from operators.noise import GaussianNoise, standard_normal
from tests.operators.examples import random

PARTICLES = 20000
SIZE = 4
MATRIX, STD = random((3, SIZE), torch.float64, 0), 0.4
DATA = random((3,), torch.float64, 1)
MEAN = random((SIZE,), torch.float64, 2)
SPREAD = torch.tensor([4.0, 1.0, 0.25, 0.04], dtype=torch.float64)
EYE = torch.eye(SIZE, dtype=torch.float64)
UNEVEN = torch.diag(SPREAD)
# Of the data term in units of unit curvature, |A|^2 = 1 and std = 1.
CURVATURE = torch.linalg.matrix_norm(MATRIX, 2) ** 2 / STD**2


def problem(batch: int) -> InverseProblem:
    """The same measurement `batch` times."""
    return InverseProblem(Matrix(MATRIX), DATA.expand(batch, 3), GaussianNoise(STD))


def posterior(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance given DATA, for the prior N(MEAN, covariance)."""
    gain = covariance @ MATRIX.mT @ torch.linalg.inv(MATRIX @ covariance @ MATRIX.mT + STD**2 * torch.eye(3))
    return MEAN + gain @ (DATA - MATRIX @ MEAN), covariance - gain @ MATRIX @ covariance


@dataclass(frozen=True)
class Affine:
    """x -> matrix x + shift."""

    matrix: Tensor
    shift: Tensor

    def __matmul__(self, other: Affine) -> Affine:
        return Affine(self.matrix @ other.matrix, self.matrix @ other.shift + self.shift)

    def __add__(self, other: Affine) -> Affine:
        return Affine(self.matrix + other.matrix, self.shift + other.shift)

    def __sub__(self, other: Affine) -> Affine:
        return self + -1.0 * other

    def __rmul__(self, factor: float | Tensor) -> Affine:
        if isinstance(factor, Tensor) and factor.ndim == 2:
            return Affine(factor @ self.matrix, factor @ self.shift)
        return Affine(factor * self.matrix, factor * self.shift)


SAME = Affine(EYE, torch.zeros(SIZE, dtype=torch.float64))


def destination(covariance: Tensor, t: float) -> Affine:
    """E[x1 | x_t] of the linear path."""
    gain = t * covariance @ torch.linalg.inv(t**2 * covariance + (1 - t) ** 2 * EYE)
    return Affine(gain, MEAN - t * gain @ MEAN)


def source(covariance: Tensor, t: float) -> Affine:
    """E[x0 | x_t] of the linear path."""
    gain = (1 - t) * torch.linalg.inv(t**2 * covariance + (1 - t) ** 2 * EYE)
    return Affine(gain, -t * gain @ MEAN)


def proximal(strength: float) -> Affine:
    """v -> the proximal of the data term at v."""
    inverse = torch.linalg.inv(EYE / strength + MATRIX.mT @ MATRIX / STD**2)
    return Affine(inverse / strength, inverse @ MATRIX.mT @ DATA / STD**2)


def unit_variance(t: float) -> float:
    """nu_t^2."""
    return (1 - t) ** 2 / (t**2 + (1 - t) ** 2)


@dataclass(frozen=True)
class Law:
    """N(mean, covariance), carried along by affine maps and added noise."""

    mean: Tensor
    covariance: Tensor

    def after(self, step: Affine, noise: float | Tensor = 0.0) -> Law:
        """The law of step(x) plus noise of that variance."""
        covariance = step.matrix @ self.covariance @ step.matrix.mT
        return Law(step.matrix @ self.mean + step.shift, covariance + noise * EYE)


NOISE = Law(SAME.shift, EYE)


def assert_law(samples: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Within 4.5 standard errors, elementwise; a particle of no spread must be at the mean."""
    count, variances = len(samples), covariance.diagonal()
    assert bool(((samples.mean(0) - mean).abs() <= 4.5 * (variances / count).sqrt() + 1e-7).all())
    error = ((variances[:, None] * variances + covariance.square()) / count).sqrt()
    assert bool(((samples.mT.cov() - covariance).abs() <= 4.5 * error + 1e-7).all())


class Blind(Matrix):
    """An operator that sees nothing, with a first image all the same: solvers end where they start."""

    def __init__(self, first: Tensor) -> None:
        super().__init__(torch.zeros_like(MATRIX))
        self.first = first

    def approximate_inverse(self, y: Tensor) -> Tensor:
        return self.first.expand(*y.shape[:-1], SIZE)


def blended_start(first: Tensor, batch: int, blend: float, seed: int) -> Tensor:
    """The image of sqrt(blend) of the first one's noise and sqrt(1 - blend) of fresh, for N(MEAN, UNEVEN)."""
    noise = standard_normal((batch, SIZE), torch.Generator().manual_seed(seed), dtype=torch.float64)
    return MEAN + blend**0.5 * (first - MEAN) + (1 - blend) ** 0.5 * noise * SPREAD.sqrt()


def image_prior(complex_images: bool = False) -> FlowPrior:
    """A Gaussian prior in network units, 0.02 +- 0.014 per mm."""
    shape = (2 if complex_images else 1, 4, 4)
    gaussian = GaussianFlow(torch.zeros(shape), torch.full(shape, 0.5))
    representation = Representation(
        0.02, 0.0 if complex_images else 0.02, complex_images, calibration="fixed"
    )
    return FlowPrior(gaussian.velocity, gaussian.path, representation, name="test")


def image_problem(batch: tuple[int, ...] = (2,)) -> InverseProblem:
    """Noisy images of 4 x 4 pixels."""
    return InverseProblem(
        Identity((4, 4)), 0.02 + 0.01 * random((*batch, 4, 4), torch.float32, 0), GaussianNoise(0.005)
    )
