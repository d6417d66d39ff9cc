"""Iterations towards least squares, regularised by stopping early: CGLS and SIRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class CGLS:
    """Conjugate gradients on |A x + background - y|_W^2 from zero (Hestenes and Stiefel, 1952).

    W is the noise's precision. Every iterate is the least-squares solution in a Krylov space that grows
    by one dimension, so the number of iterations is the regularisation; the best is smaller for noisier
    data (Hansen, Rank-deficient and discrete ill-posed problems, SIAM 1998, chapter 6).

    Attributes
    ----------
    iterations
        Where to stop.
    discrepancy
        When given, a sample stops as soon as its data fit, the root mean square of its residual over
        the noise's standard deviation, is at most this; 1 is Morozov's discrepancy principle.
    """

    needs_prior: ClassVar[bool] = False
    iterations: int = 15
    discrepancy: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        discrepancy = self.discrepancy
        must_be(
            self,
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            discrepancy=(discrepancy, discrepancy is None or discrepancy > 0, "a positive number or none"),
        )

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct `problem`; see `Solver`."""
        operator, weights = problem.operator, problem.precision()
        image_dims, data_dims = len(operator.domain_shape), len(operator.range_shape)
        goal = 0.0 if self.discrepancy is None else self.discrepancy
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            x = problem.measurement.new_zeros(problem.image_shape, dtype=problem.image_dtype)
            residual = _without_background(problem)
            gradient = operator.adjoint(weights * residual)
            direction, energy = gradient, _energy(gradient, image_dims)
            fit = problem.weighted_rms(residual, weights)
            active = (fit > goal) & (energy.reshape(fit.shape) > 0)
            for _ in range(self.iterations):
                if not bool(active.any()):
                    break
                image = operator(direction)
                # Zero where the direction is in the null space: the sample is done.
                curvature = _energy(image, data_dims, weights)
                active = active & (curvature.reshape(fit.shape) > 0)
                step = torch.where(_to(active, energy), energy / curvature.reshape(energy.shape), 0)
                x = torch.addcmul(x, step, direction)
                residual = torch.addcmul(residual, -step.reshape(curvature.shape), image)
                gradient = operator.adjoint(weights * residual)
                renewed = _energy(gradient, image_dims)
                ratio = torch.where(_to(active, energy), renewed / energy, 0)
                direction, energy = torch.addcmul(gradient, ratio, direction), renewed
                fit = problem.weighted_rms(residual, weights)
                active = active & (fit > goal) & (energy.reshape(fit.shape) > 0)
                if record.step(x, fit):
                    break
            return record.finish(x)


@dataclass(frozen=True)
class SIRT:
    """Simultaneous iterative reconstruction: x <- x + relaxation C A^T R (y - background - A x), from zero.

    R and C are one over the sums of A's rows and columns, which makes the iteration converge for any
    relaxation below 2 (van der Sluis and van der Vorst, Linear Algebra Appl. 130 (1990); Gregor and
    Benson, IEEE Trans. Med. Imaging 27 (2008)). Measurements whose precision is zero are left out. For
    operators without negative entries, such as ray transforms.

    Attributes
    ----------
    iterations
        Where to stop: the regularisation.
    relaxation
        Length of the steps, between 0 and 2.
    nonnegative
        Clip negative values after each iteration.
    """

    needs_prior: ClassVar[bool] = False
    iterations: int = 100
    relaxation: float = 1.0
    nonnegative: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            relaxation=(self.relaxation, 0 < self.relaxation < 2, "between 0 and 2"),
        )

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct; ValueError for a complex operator or one with negative sums. See `Solver`."""
        operator, weights = problem.operator, problem.precision()
        if operator.domain_dtype.is_complex or operator.range_dtype.is_complex:
            raise ValueError(f"sirt: expected a real operator without negative entries, found {operator!r}")
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            y = _without_background(problem)
            # Where every weight is positive this has no batch axes, and one adjoint serves all samples.
            used = torch.ones_like(y[(0,) * len(problem.batch_shape)])
            if not bool((weights > 0).all()):
                used = (weights > 0).to(y.dtype).expand(y.shape)
            row_sums = operator(y.new_ones(operator.domain_shape))
            row_scale = used * _reciprocal(row_sums)
            column_scale = self.relaxation * _reciprocal(operator.adjoint(used * (row_scale > 0)))
            x = y.new_zeros(problem.image_shape)
            residual = y
            for _ in range(self.iterations):
                x = x + column_scale * operator.adjoint(row_scale * residual)
                if self.nonnegative:
                    x.clamp_(min=0)
                residual = y - operator(x)
                if record.step(x, problem.weighted_rms(residual, weights)):
                    break
            return record.finish(x)


def _without_background(problem: InverseProblem) -> Tensor:
    y = problem.measurement
    return y if problem.background is None else y - problem.background


def _energy(x: Tensor, event_dims: int, weights: Tensor | None = None) -> Tensor:
    """|x|_W^2, shape (*batch, 1, ...)."""
    squares = x.abs().square() if x.is_complex() else x.square()
    if weights is not None:
        squares = squares * weights
    return squares.sum(tuple(range(-event_dims, 0)), keepdim=True)


def _to(flag: Tensor, like: Tensor) -> Tensor:
    return flag.reshape(like.shape)


def _reciprocal(sums: Tensor) -> Tensor:
    """One over each sum, and zero where rounding is all there is."""
    if bool((sums < 0).any()):
        raise ValueError(
            f"sirt: expected an operator without negative entries, found a sum of {float(sums.min()):g}"
        )
    floor = 1e-6 * sums.max()
    return torch.where(sums > floor, 1 / sums, 0)
