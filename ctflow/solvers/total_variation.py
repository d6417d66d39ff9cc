"""Total-variation reconstruction by a preconditioned primal-dual iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.data_duals import DataDual, ImageDual
from ctflow.solvers.noise_gain import noise_gain
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators

# Between 1, the plain iteration, and 2, its limit; close to 2 saves a third of the iterations.
_RELAXATION = 1.9
# Dual steps over primal steps, for an image of brightness 1 in units of the noise: found by experiment on
# scans of 30 to 120 views and 10^3 to 10^6 photons, and of phases on undersampled k-space. They change how
# fast, not what.
_BALANCE = 7.0
_BALANCE_OF_PHASES = 3.5
_BALANCE_OF_GRADIENT = 0.7


@dataclass(frozen=True)
class TV:
    r"""Isotropic total variation: argmin_x |A x + background - y|_W^2 / 2 + weight kappa TV(x).

    W is the noise's precision, and TV(x) = sum_ij sqrt((x_{i+1,j} - x_ij)^2 + (x_{i,j+1} - x_ij)^2), in
    pixel units, with no difference across the border (Rudin, Osher and Fatemi, Physica D 60 (1992)); of a
    volume, with the third difference under the root; of a complex image, with squared magnitudes, so that
    edges of both parts fall together. Differences along axes with wider spacing than the finest are divided
    by the ratio of the two.

    kappa makes the weight a pure number: kappa^2 = (1/n) sum_ij W_i |A_ij|^2 is the variance, averaged
    over the n pixels, that noise alone gives to the gradient of the data term, A^H W (A x - y). The
    penalty thus has to hold off `weight` times the noise, whatever the units of image and measurement,
    the dose or the number of views; rescaling operator, image and noise rescales the result and
    nothing else. For denoising, A = I with noise of standard deviation s, it is the usual
    |x - y|^2 / 2 + weight s TV(x).

    Attributes
    ----------
    weight
        Regularisation; 0.3 keeps more texture, 1 is smoother. About right from 30 to 120 views and from
        10^3 to 10^6 photons as it is, and for parallel imaging.
    nonnegative
        Keep a real image at or above zero; of no meaning for a complex one.
    iterations
        At most this many.
    tolerance
        A sample is done once an iteration changes its image by less than this, relative to the image. None:
        1e-5, and 1e-3 for complex images, whose problems are far better conditioned than those of rays.

    Notes
    -----
    Chambolle and Pock, J. Math. Imaging Vis. 40 (2011), on kappa x, with the diagonal preconditioning of
    Pock and Chambolle, ICCV 2011, and the over-relaxation of Condat, J. Optim. Theory Appl. 158 (2013).
    """

    needs_prior: ClassVar[bool] = False
    weight: float = 0.6
    nonnegative: bool = True
    iterations: int = 400
    tolerance: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        tolerance = self.tolerance
        must_be(
            self,
            weight=(self.weight, self.weight >= 0, "at least 0"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            tolerance=(tolerance, tolerance is None or tolerance >= 0, "at least 0 or none"),
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
        """Reconstruct `problem`; ValueError unless its unknowns are images or volumes. See `Solver`."""
        operator = problem.operator
        if len(operator.domain_shape) not in (2, 3):
            raise ValueError(f"tv: expected an operator on images or volumes, found {operator!r}")
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            kappa = problem.per_sample(noise_gain("tv", problem))
            per_axis = axis_weights(operator.domain_spacing)
            dual, gradient_step, primal_step = _prepared(problem, kappa, per_axis)
            tolerance = self.tolerance
            if tolerance is None:
                tolerance = 1e-3 if problem.image_dtype.is_complex else 1e-5
            size = partial(_size, dims=len(per_axis))
            # u = kappa x, and the dual variable of TV.
            u = torch.zeros_like(primal_step, dtype=problem.image_dtype).expand(problem.image_shape).clone()
            q = u.new_zeros((len(per_axis), *u.shape))
            answer, active = u, torch.ones(problem.batch_shape, dtype=torch.bool, device=u.device)
            for k in range(self.iterations):
                following = u - primal_step * (dual.pull() + gradient_adjoint(q, per_axis))
                if self.nonnegative and not following.is_complex():
                    following.clamp_(min=0)
                ahead = 2 * following - u
                fit = dual.advance(ahead, following)
                q_next = _within(gradient(ahead, per_axis).mul_(gradient_step).add_(q), self.weight)
                answer = torch.where(problem.per_sample(active), following, answer)
                # The dual variables start at zero, so that the first iteration never moves.
                if k > 0:
                    active = active & (size(following - u) > tolerance * size(following))
                if record.step(partial(torch.div, answer, kappa), fit) or not bool(active.any()):
                    break
                dual.relax(_RELAXATION)
                for variable, target in ((u, following), (q, q_next)):
                    variable.lerp_(target, _RELAXATION)
            return record.finish(answer / kappa)


def axis_weights(spacing: Sequence[float]) -> tuple[float, ...]:
    """Return what a difference along each axis counts: 1 along the finest, less where steps are longer."""
    return tuple(min(spacing) / distance for distance in spacing)


def total_variation(image: Tensor, weights: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """TV(x) as in `TV`: shape (*batch, *image_shape) to (*batch,)."""
    lengths = torch.linalg.vector_norm(gradient(image, weights), dim=0)
    return lengths.sum(tuple(range(-len(weights), 0)))


def gradient(image: Tensor, weights: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """Differences along the last axes, times a weight for each, zero at the border.

    Shape (*batch, *image_shape) to (axes, *batch, *image_shape).
    """
    differences = image.new_zeros((len(weights), *image.shape))
    for field, axis, weight in zip(differences, range(-len(weights), 0), weights, strict=True):
        inner = field.narrow(axis, 0, image.shape[axis] - 1)
        torch.sub(
            image.narrow(axis, 1, inner.shape[axis]), image.narrow(axis, 0, inner.shape[axis]), out=inner
        )
        if weight != 1:
            inner *= weight
    return differences


def gradient_adjoint(field: Tensor, weights: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """Transpose of `gradient`: (axes, *batch, *image_shape) to (*batch, *image_shape)."""
    image = field.new_zeros(field.shape[1:])
    for part, axis, weight in zip(field, range(-len(weights), 0), weights, strict=True):
        inner = part.narrow(axis, 0, part.shape[axis] - 1)
        image.narrow(axis, 1, inner.shape[axis]).add_(inner, alpha=weight)
        image.narrow(axis, 0, inner.shape[axis]).sub_(inner, alpha=weight)
    return image


def _prepared(
    problem: InverseProblem, kappa: Tensor, per_axis: Sequence[float]
) -> tuple[DataDual | ImageDual, Tensor, Tensor]:
    """The data term's dual variable, and the step sizes for that of TV and for the image."""
    operator, y = problem.operator, problem.measurement
    if problem.background is not None:
        y = y - problem.background
    weights = problem.precision().expand(y.shape)
    image_dims, data_dims = (
        tuple(range(-len(shape), 0)) for shape in (operator.domain_shape, operator.range_shape)
    )
    ones = y.new_ones(operator.batch_shape + operator.domain_shape, dtype=problem.image_dtype)
    rows = operator(ones).abs()
    # The brightness of the uniform image that is as bright to the detector as the measurement.
    measured, uniform = ((weights * values.abs().square()).sum(data_dims) for values in (y, rows))
    brightness = (measured / uniform.clamp_min(torch.finfo(weights.dtype).tiny)).sqrt() * kappa.reshape(
        measured.shape
    )
    known, usual = (measured > 0) & (uniform > 0), _BALANCE_OF_PHASES if y.is_complex() else _BALANCE
    balance = usual / torch.where(known, brightness, usual)
    of_data, balance = (balance.reshape(balance.shape + (1,) * len(dims)) for dims in (data_dims, image_dims))
    dual: DataDual | ImageDual
    if y.is_complex():
        # Phases cancel in sums, which then say nothing of the entries' size: one step for all.
        dual, columns = ImageDual(problem, kappa, balance), torch.ones_like(kappa)
    else:
        roots, rows = weights.sqrt(), rows / kappa.reshape(of_data.shape)
        data_step = of_data * roots / rows.clamp_min(1e-3 * rows.amax(data_dims, keepdim=True))
        columns = operator.adjoint(roots).abs() / kappa
        dual = DataDual(problem, y, weights, kappa, data_step)
    gradient_step = _BALANCE_OF_GRADIENT * balance / 2
    primal_step = 1 / (balance * columns + 4 * sum(w**2 for w in per_axis) * gradient_step)
    # These steps converge for an operator without negative entries; others may need shorter ones.
    image = torch.randn(operator.domain_shape, generator=torch.Generator().manual_seed(0)).to(ones)
    image = image.expand(problem.image_shape)
    norm = partial(torch.linalg.vector_norm, dim=image_dims, keepdim=True)
    size = norm(image)
    for _ in range(15):
        scaled = primal_step.sqrt() * (image / size)
        smooth = gradient_adjoint(gradient_step * gradient(scaled, per_axis), per_axis)
        image = primal_step.sqrt() * (dual.round_trip(scaled) + smooth)
        size = norm(image)
    return dual, gradient_step, primal_step / (1.05 * size).clamp_min(1)


def _size(image: Tensor, dims: int) -> Tensor:
    """The norm of an image with so many dimensions, shape (*batch,)."""
    # Of complex numbers as pairs of real ones, which is several times faster.
    parts = torch.view_as_real(image) if image.is_complex() else image
    return torch.linalg.vector_norm(parts, dim=tuple(range(image.ndim - dims, parts.ndim)))


def _within(field: Tensor, radius: float) -> Tensor:
    """The field with no vector longer than `radius`, in place."""
    floor = max(radius, torch.finfo(field.dtype).tiny)
    if not field.is_complex():
        return field.mul_(radius / torch.linalg.vector_norm(field, dim=0).clamp_min_(floor))
    parts = torch.view_as_real(field)
    squares = parts.square().sum(0)
    length = (squares[..., 0] + squares[..., 1]).sqrt_()
    parts.mul_((radius / length.clamp_min_(floor)).unsqueeze(-1))
    return field
