"""Nonuniform Fourier sampling as a function of image and trajectory, differentiable in both."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from operators.mri.nonuniform import NonuniformFourier


def nonuniform_fourier(
    image: Tensor, trajectory: Tensor, coil_maps: Tensor | None = None, **settings: Any
) -> Tensor:
    """The samples of `NonuniformFourier`, with derivatives by the trajectory too, of any order.

    Parameters
    ----------
    image
        Complex, shape (*batch, *image_shape), with as many axes of space as the trajectory has, after any
        axes of `batch`; there are no frames here.
    trajectory
        Cycles per field of view, shape (*samples, axes).
    coil_maps
        Shape (*batch_shape, coils, *image_shape); no derivative is taken by them.
    settings
        `tolerance`, `engine`, `any_extent` of `NonuniformFourier`.

    Returns
    -------
    Shape (*batch, coils, *samples), or (*batch, *samples) without maps.

    Notes
    -----
    d y_j / d k_j = -2 pi i A(n x / N)_j: the derivative along each axis costs one more sampling, of the image
    times its ramp of pixels n, which count from -(N // 2) on for odd and even sizes.
    """
    axes = trajectory.shape[-1]
    operator = NonuniformFourier(image.shape[image.ndim - axes :], trajectory, coil_maps, **settings)
    operator._check(image, operator.domain_shape, operator.accepts, "input")
    return _Sample.apply(image, trajectory, operator)


class _Sample(torch.autograd.Function):
    """y = A(k) x."""

    @staticmethod
    def forward(image: Tensor, trajectory: Tensor, operator: NonuniformFourier) -> Tensor:
        return operator._forward(image)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, trajectory, ctx.operator = inputs
        ctx.save_for_backward(image, trajectory)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        image, trajectory = ctx.saved_tensors
        (gradient,), operator = gradients, ctx.operator
        by_image = by_trajectory = None
        if ctx.needs_input_grad[0]:
            by_image = _SampleBack.apply(gradient, trajectory, operator)
        if ctx.needs_input_grad[1]:
            ramped = [_Sample.apply(ramp * image, trajectory, operator) for ramp in _ramps(operator, image)]
            by_trajectory = _collect([gradient.conj() * sample for sample in ramped], operator, trajectory)
        return by_image, by_trajectory, None


class _SampleBack(torch.autograd.Function):
    """x = A(k)^H y."""

    @staticmethod
    def forward(samples: Tensor, trajectory: Tensor, operator: NonuniformFourier) -> Tensor:
        return operator._adjoint(samples)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        samples, trajectory, ctx.operator = inputs
        ctx.save_for_backward(samples, trajectory)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        samples, trajectory = ctx.saved_tensors
        (gradient,), operator = gradients, ctx.operator
        by_samples = by_trajectory = None
        if ctx.needs_input_grad[0]:
            by_samples = _Sample.apply(gradient, trajectory, operator)
        if ctx.needs_input_grad[1]:
            ramped = [
                _Sample.apply(ramp * gradient, trajectory, operator) for ramp in _ramps(operator, gradient)
            ]
            by_trajectory = _collect([samples.conj() * sample for sample in ramped], operator, trajectory)
        return by_samples, by_trajectory, None


def _ramps(operator: NonuniformFourier, image: Tensor) -> list[Tensor]:
    """Pixels n / N along each axis, in shapes that broadcast against an image."""
    ramps = []
    for axis, n in enumerate(operator.domain_shape):
        ramp = torch.arange(-(n // 2), n - n // 2, dtype=image.dtype.to_real(), device=image.device) / n
        ramps.append(ramp.reshape(-1, *(1,) * (len(operator.domain_shape) - axis - 1)))
    return ramps


def _collect(products: list[Tensor], operator: NonuniformFourier, trajectory: Tensor) -> Tensor:
    """Re(-2 pi i product), summed over batch and coils, for each axis."""
    columns = []
    for product in products:
        samples = trajectory.ndim - 1
        share = 2 * math.pi * product.imag
        columns.append(share.sum(tuple(range(share.ndim - samples))) if share.ndim > samples else share)
    return torch.stack(columns, -1).to(trajectory.dtype)
