"""Deep image prior: an untrained network, fitted to one measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.early_stopping import RunningVariance
from ctflow.solvers.solver import Callback, Recorder, must_be, need_generator
from operators.meter import measure
from operators.noise import Generators, standard_normal


@dataclass(frozen=True)
class DeepImagePrior:
    r"""Deep image prior (Ulyanov et al., arXiv 1711.10925, CVPR 2018), stopped as of arXiv 2112.06074.

    Fits the weights of an encoder-decoder with skip connections, fed with fixed noise, to the measurement by
    Adam. It needs no prior and no training: natural images are fitted before noise is, and the run stops
    at its calmest point in between. Every sample of a batch has a network of its own.

    The result is a point estimate; nothing about it is uncertainty.

    Attributes
    ----------
    iterations
        At most this many; 3000 in the paper's code.
    learning_rate
        0.01 in the paper.
    channels, skip_channels, levels
        128, 4 and 5 in the paper.
    input_channels, input_noise
        32, and 1/30: the standard deviation of noise added to the input in each iteration.
    window, patience
        Of the early stop, 100 and 1000 in arXiv 2112.06074.
    """

    name: ClassVar[str] = "deep-image-prior"
    needs_prior: ClassVar[bool] = False
    iterations: int = 3000
    learning_rate: float = 0.01
    channels: int = 128
    skip_channels: int = 4
    levels: int = 5
    input_channels: int = 32
    input_noise: float = 1 / 30
    window: int = 100
    patience: int = 1000

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            learning_rate=(self.learning_rate, self.learning_rate > 0, "a positive number"),
            channels=(self.channels, self.channels >= 1, "at least 1"),
            skip_channels=(self.skip_channels, self.skip_channels >= 1, "at least 1"),
            levels=(self.levels, self.levels >= 1, "at least 1"),
            input_channels=(self.input_channels, self.input_channels >= 1, "at least 1"),
            input_noise=(self.input_noise, self.input_noise >= 0, "at least 0"),
            window=(self.window, self.window >= 2, "at least 2"),
            patience=(self.patience, self.patience >= 1, "at least 1"),
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
        """Reconstruct; ValueError unless the images have two dimensions. See `Solver`."""
        generator, operator = need_generator(self, generator), problem.operator
        if len(operator.domain_shape) != 2:
            raise ValueError(
                f"{self.name}: expected an operator on images of two dimensions, found {operator!r}"
            )
        with Recorder(self, total=self.iterations, callback=callback, generator=generator) as record:
            network = _Hourglass(self, problem, generator)
            # The network's outputs are of order one; images come in all units.
            size = problem.initial().abs().square().mean((-2, -1)).sqrt()
            scale = problem.per_sample(torch.where(size > 0, size, 1))
            optimiser = torch.optim.Adam(network.weights, lr=self.learning_rate)
            stopping = RunningVariance(self.window, self.patience)

            def image(output: Tensor) -> Tensor:
                if problem.image_dtype.is_complex:
                    return scale * torch.complex(output.select(-3, 0), output.select(-3, 1))
                return scale * output.squeeze(-3)

            for _ in range(self.iterations):
                nudge = self.input_noise * _noise(network.input.shape, problem, generator)
                with torch.enable_grad():
                    with measure("network"):
                        output = network(network.input + nudge)
                    energy = problem.weighted_energy(problem.residual(image(output)))
                    gradients = torch.autograd.grad(energy.sum(), network.weights)
                for weight, gradient in zip(network.weights, gradients, strict=True):
                    weight.grad = gradient
                optimiser.step()
                active = stopping.update(output.detach(), 3)
                stopped = record.step(partial(image, output.detach()), problem.fit_of_energy(energy.detach()))
                if stopped or not bool(active.any()):
                    break
            return record.finish(image(stopping.best))


class _Hourglass:
    """One encoder-decoder for each sample of a batch, evaluated together by grouped convolutions.

    Input (*batch, input_channels, height, width), output (*batch, 1 or 2, *image shape). Normalisation is
    over each sample's map, as batch normalisation is for a batch of one.
    """

    def __init__(self, settings: DeepImagePrior, problem: InverseProblem, generator: Generators) -> None:
        self.batch, self.shape = problem.batch_shape, problem.operator.domain_shape
        self.levels, width, skip = settings.levels, settings.channels, settings.skip_channels
        outputs = 2 if problem.image_dtype.is_complex else 1
        # The deepest map keeps two pixels, which its normalisation needs.
        multiple = 2**self.levels
        padded = [max(-(-n // multiple), 2) * multiple for n in self.shape]
        shapes: list[tuple[int, int, int]] = []
        for level in range(self.levels):
            entering = settings.input_channels if level == 0 else width
            shapes += [(skip, entering, 1), (width, entering, 3), (width, width, 3)]
            shapes += [(width, width + skip, 3), (width, width, 1)]
        shapes.append((outputs, width, 1))
        self.weights: list[Tensor] = []
        for out, into, kernel in shapes:
            gain = (2 / (into * kernel**2)) ** 0.5
            kernels = gain * _noise((*self.batch, out, into, kernel, kernel), problem, generator)
            self.weights += [
                kernels,
                kernels.new_ones((*self.batch, out)),
                kernels.new_zeros((*self.batch, out)),
            ]
        for weight in self.weights:
            weight.requires_grad_()
        fixed = _noise((*self.batch, settings.input_channels, *padded), problem, generator)
        # Uniform between 0 and 0.1, as in the paper.
        self.input = 0.1 * torch.special.ndtr(fixed)

    def __call__(self, x: Tensor) -> Tensor:
        weights = iter(self.weights)
        flat = x.reshape(-1, *x.shape[-3:])
        features = self._level(flat, weights, self.levels)
        result = _Block(weights).linear(features)
        height, width = self.shape
        return result[..., :height, :width].reshape(*self.batch, -1, height, width)

    def _level(self, x: Tensor, weights: Iterator[Tensor], below: int) -> Tensor:
        skip, down = _Block(weights), (_Block(weights), _Block(weights))
        up = (_Block(weights), _Block(weights))
        deeper = down[1](down[0](x, stride=2))
        if below > 1:
            deeper = self._level(deeper, weights, below - 1)
        deeper = functional.interpolate(deeper, scale_factor=2, mode="bilinear")
        return up[1](up[0](torch.cat([skip(x), deeper], dim=1)))


class _Block:
    """Convolution, normalisation and activation, with weights of their own for each sample."""

    def __init__(self, weights: Iterator[Tensor]) -> None:
        kernels, gain, shift = next(weights), next(weights), next(weights)
        self.kernels = kernels.reshape(-1, *kernels.shape[-4:])
        self.gain, self.shift = (v.reshape(len(self.kernels), -1, 1, 1) for v in (gain, shift))

    def __call__(self, x: Tensor, stride: int = 1) -> Tensor:
        normal = functional.instance_norm(self._convolved(x, stride))
        return functional.leaky_relu(self.gain * normal + self.shift, 0.2)

    def linear(self, x: Tensor) -> Tensor:
        """Without normalisation and activation."""
        return self.gain * self._convolved(x, 1) + self.shift

    def _convolved(self, x: Tensor, stride: int) -> Tensor:
        count, outputs, inputs, size, _ = self.kernels.shape
        padding = (size // 2,) * 4
        padded = functional.pad(x, padding, mode="replicate")
        joined = padded.reshape(1, count * inputs, *padded.shape[-2:])
        kernels = self.kernels.reshape(count * outputs, inputs, size, size)
        result = functional.conv2d(joined, kernels, stride=stride, groups=count)
        return result.reshape(count, outputs, *result.shape[-2:])


def _noise(shape: tuple[int, ...] | torch.Size, problem: InverseProblem, generator: Generators) -> Tensor:
    y = problem.measurement
    return standard_normal(shape, generator, dtype=y.dtype.to_real(), device=y.device)
