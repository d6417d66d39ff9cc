"""Total-variation reconstruction by a preconditioned primal-dual iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.linear import LinearOperator
from operators.noise import Generators

# Between 1, the plain iteration, and 2, its limit; close to 2 saves a third of the iterations.
_RELAXATION = 1.9
# Dual steps over primal steps, for an image of brightness 1 in units of the noise: found by experiment on
# scans of 30 to 120 views and 10^3 to 10^6 photons. They change how fast, not what.
_BALANCE = 7.0
_BALANCE_OF_GRADIENT = 0.7


@dataclass(frozen=True)
class TV:
    r"""Isotropic total variation: argmin_x |A x + background - y|_W^2 / 2 + weight kappa TV(x).

    W is the noise's precision, and TV(x) = sum_ij sqrt((x_{i+1,j} - x_ij)^2 + (x_{i,j+1} - x_ij)^2), in
    pixel units, with no difference across the border (Rudin, Osher and Fatemi, Physica D 60 (1992)); of a
    volume, with the third difference under the root. Differences along axes with wider spacing than the
    finest are divided by the ratio of the two.

    kappa makes the weight a pure number: kappa^2 = (1/n) sum_ij W_i A_ij^2 is the variance, averaged
    over the n pixels, that noise alone gives to the gradient of the data term, A^T W (A x - y). The
    penalty thus has to hold off `weight` times the noise, whatever the units of image and measurement,
    the dose or the number of views; rescaling operator, image and noise rescales the result and
    nothing else. For denoising, A = I with noise of standard deviation s, it is the usual
    |x - y|^2 / 2 + weight s TV(x).

    Attributes
    ----------
    weight
        Regularisation; 0.3 keeps more texture, 1 is smoother. About right from 30 to 120 views and from
        10^3 to 10^6 photons as it is.
    nonnegative
        Keep the image at or above zero.
    iterations
        At most this many.
    tolerance
        A sample is done once an iteration changes its image by less than this, relative to the image.

    Notes
    -----
    Chambolle and Pock, J. Math. Imaging Vis. 40 (2011), on kappa x, with the diagonal preconditioning of
    Pock and Chambolle, ICCV 2011, and the over-relaxation of Condat, J. Optim. Theory Appl. 158 (2013).
    """

    weight: float = 0.6
    nonnegative: bool = True
    iterations: int = 400
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            weight=(self.weight, self.weight >= 0, "at least 0"),
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            tolerance=(self.tolerance, self.tolerance >= 0, "at least 0"),
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
        """Reconstruct `problem`; ValueError unless its unknowns are real images or volumes. See `Solver`."""
        operator = problem.operator
        if (
            operator.domain_dtype.is_complex
            or operator.range_dtype.is_complex
            or len(operator.domain_shape) not in (2, 3)
        ):
            raise ValueError(f"tv: expected an operator on real images or volumes, found {operator!r}")
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            y = problem.measurement
            if problem.background is not None:
                y = y - problem.background
            weights = problem.precision().expand(y.shape)
            kappa = problem.per_sample(noise_gain(operator, weights))
            per_axis = axis_weights(operator.domain_spacing)
            data_step, gradient_step, primal_step = _steps(problem, y, weights, kappa, per_axis)
            norm = partial(torch.linalg.vector_norm, dim=tuple(range(-len(per_axis), 0)))
            shrink = torch.where(weights > 0, weights / (weights + data_step), 0)
            # u = kappa x, its projection A x, and the dual variables of the data term and of TV.
            u = y.new_zeros(problem.image_shape)
            projection, p, q = (
                torch.zeros_like(y),
                torch.zeros_like(y),
                u.new_zeros((len(per_axis), *u.shape)),
            )
            answer, active = u, torch.ones(problem.batch_shape, dtype=torch.bool, device=y.device)
            for k in range(self.iterations):
                following = u - primal_step * (operator.adjoint(p) / kappa + gradient_adjoint(q, per_axis))
                if self.nonnegative:
                    following.clamp_(min=0)
                ahead = 2 * following - u
                ahead_projection = operator(ahead / kappa)
                p_next = (p + data_step * (ahead_projection - y)).mul_(shrink)
                q_next = _within(gradient(ahead, per_axis).mul_(gradient_step).add_(q), self.weight)
                # A x of the new image, known by linearity.
                following_projection = (ahead_projection + projection) / 2
                fit = problem.weighted_rms(following_projection - y, weights)
                answer = torch.where(problem.per_sample(active), following, answer)
                # The dual variables start at zero, so that the first iteration never moves.
                if k > 0:
                    active = active & (norm(following - u) > self.tolerance * norm(following))
                if record.step(partial(torch.div, answer, kappa), fit) or not bool(active.any()):
                    break
                for variable, target in (
                    (u, following),
                    (projection, following_projection),
                    (p, p_next),
                    (q, q_next),
                ):
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


def noise_gain(operator: LinearOperator, weights: Tensor) -> Tensor:
    """Kappa of `TV`: the standard deviation of A^H W^(1/2) n for unit noise n, shape (*batch,).

    Averaged over the image, so that one fixed draw of random signs is as good as many. `weights` has
    shape (*batch, *range_shape).
    """
    signs = torch.randint(0, 2, operator.range_shape, generator=torch.Generator().manual_seed(0))
    seen = operator.adjoint(weights.sqrt() * (2 * signs - 1).to(weights))
    gain = seen.square().mean(tuple(range(-len(operator.domain_shape), 0))).sqrt()
    if not bool((gain > 0).all()):
        raise ValueError("tv: expected measurements of some precision, found none above zero in a sample")
    return gain


def _steps(
    problem: InverseProblem, y: Tensor, weights: Tensor, kappa: Tensor, per_axis: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Step sizes for the data term's dual variable, for that of TV, and for the image."""
    operator = problem.operator
    image_dims, data_dims = (
        tuple(range(-len(shape), 0)) for shape in (operator.domain_shape, operator.range_shape)
    )
    roots, ones = weights.sqrt(), y.new_ones(operator.domain_shape)
    rows = operator(ones)
    # The brightness of the uniform image that is as bright to the detector as the measurement.
    measured, uniform = ((weights * values.square()).sum(data_dims) for values in (y, rows))
    brightness = (measured / uniform.clamp_min(torch.finfo(y.dtype).tiny)).sqrt() * kappa.reshape(
        measured.shape
    )
    balance = _BALANCE / torch.where((measured > 0) & (uniform > 0), brightness, _BALANCE)
    of_data, balance = (balance.reshape(balance.shape + (1,) * len(dims)) for dims in (data_dims, image_dims))
    rows, columns = rows.abs() / kappa.reshape(of_data.shape), operator.adjoint(roots).abs() / kappa
    data_step = of_data * roots / rows.clamp_min(1e-3 * rows.amax(data_dims, keepdim=True))
    gradient_step = _BALANCE_OF_GRADIENT * balance / 2
    primal_step = 1 / (balance * columns + 4 * sum(w**2 for w in per_axis) * gradient_step)
    # These steps converge for an operator without negative entries; others may need shorter ones.
    image = (
        torch.randn(ones.shape, generator=torch.Generator().manual_seed(0)).to(ones).expand(primal_step.shape)
    )
    norm = partial(torch.linalg.vector_norm, dim=image_dims, keepdim=True)
    size = norm(image)
    for _ in range(15):
        scaled = primal_step.sqrt() * (image / size)
        seen = operator.adjoint(data_step * operator(scaled / kappa)) / kappa
        smooth = gradient_adjoint(gradient_step * gradient(scaled, per_axis), per_axis)
        image = primal_step.sqrt() * (seen + smooth)
        size = norm(image)
    return data_step, gradient_step, primal_step / (1.05 * size).clamp_min(1)


def _within(field: Tensor, radius: float) -> Tensor:
    """The field with no vector longer than `radius`, in place."""
    length = torch.linalg.vector_norm(field, dim=0)
    return field.mul_(radius / length.clamp_min_(max(radius, torch.finfo(field.dtype).tiny)))
