"""What the scanner adds to a clean measurement, how unlikely a measurement is, and how solvers weigh it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]


@runtime_checkable
class NoiseModel(Protocol):
    """The statistics of a measurement.

    All tensors broadcast against the measurement; every method is elementwise. `precision` holds the
    weights W of the quadratic model (prediction - measurement)^2 W / 2 that proximal steps use; zero
    means that the entry says nothing.
    """

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """A noisy measurement of `clean`."""
        ...

    def negative_log_likelihood(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """-log p(measurement | prediction) up to a constant, elementwise and real."""
        ...

    def gradient(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Derivative of the negative log-likelihood with respect to the prediction, elementwise."""
        ...

    def curvature(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Second derivative of the negative log-likelihood by the prediction, broadcastable against it."""
        ...

    def precision(self, measurement: Tensor) -> Tensor:
        """Weights W >= 0 of the quadratic model, broadcastable against the measurement."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same model with its tensors on a device."""
        ...


def standard_normal(
    shape: Sequence[int],
    generator: Generators,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Independent N(0, 1) numbers; complex dtypes get E|n|^2 = 1.

    A sequence of generators, one for each entry of the first axis, draws every sample from its own,
    so that a sample's noise does not depend on its batch. Numbers are drawn on the generator's device.
    """
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device).to(device)
    if not shape or len(generator) != shape[0]:
        raise ValueError(
            f"expected {shape[0] if shape else 1} generators, one a sample, found {len(generator)}"
        )
    return torch.stack([standard_normal(shape[1:], g, dtype=dtype, device=device) for g in generator])


@dataclass(frozen=True)
class _Moved:
    def to(self, device: torch.device | str) -> Self:
        """The same model with its tensors on a device."""
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class GaussianNoise(_Moved):
    """Additive Gaussian noise on real measurements.

    Parameters
    ----------
    std
        Standard deviation in the measurement's unit; a positive number or a tensor that broadcasts
        against the measurement.
    """

    std: float | Tensor

    def __post_init__(self) -> None:
        """Refuse a standard deviation that is not positive."""
        _must_be_positive("std", self.std)

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """`clean` plus noise."""
        return clean + self.std * standard_normal(
            clean.shape, generator, dtype=clean.dtype, device=clean.device
        )

    def negative_log_likelihood(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """(prediction - measurement)^2 / (2 std^2)."""
        return ((prediction - measurement) / self.std).square() / 2

    def gradient(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """(prediction - measurement) / std^2."""
        return (prediction - measurement) / self.std**2

    def curvature(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """1 / std^2."""
        return self.precision(measurement)

    def precision(self, measurement: Tensor) -> Tensor:
        """1 / std^2."""
        return _as_real_tensor(self.std, measurement) ** -2


@dataclass(frozen=True)
class ComplexGaussianNoise(_Moved):
    """Circular complex Gaussian noise, CN(0, std^2).

    Parameters
    ----------
    std
        Standard deviation of the complex number: E|n|^2 = std^2, so std / sqrt(2) for each of the real
        and imaginary parts.
    sampled
        True where there is a measurement, broadcasts against it; everywhere unless given. Elsewhere, as
        between the lines of undersampled k-space on its full grid, there is no noise and no likelihood.
    """

    std: float | Tensor
    sampled: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse a standard deviation that is not positive, and a mask that is not one."""
        _must_be_positive("std", self.std)
        if self.sampled is not None and self.sampled.dtype != torch.bool:
            raise ValueError(f"sampled: expected dtype torch.bool, found {self.sampled.dtype}")

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """`clean` plus noise."""
        return clean + self._where_sampled(
            self.std * standard_normal(clean.shape, generator, dtype=clean.dtype, device=clean.device)
        )

    def negative_log_likelihood(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """|prediction - measurement|^2 / std^2."""
        return self._where_sampled(((prediction - measurement).abs() / self.std).square())

    def gradient(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """2 (prediction - measurement) / std^2: the derivatives by real and imaginary part as one number."""
        return self._where_sampled((prediction - measurement) * (2 / self.std**2))

    def curvature(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """2 / std^2, of each real component."""
        return self.precision(measurement)

    def precision(self, measurement: Tensor) -> Tensor:
        """2 / std^2, the precision of each real component."""
        return self._where_sampled(2 * _as_real_tensor(self.std, measurement) ** -2)

    def _where_sampled(self, values: Tensor) -> Tensor:
        return values if self.sampled is None else torch.where(self.sampled, values, 0)


@dataclass(frozen=True)
class PoissonTransmission(_Moved):
    """Photon counting behind an object, seen as line integrals.

    Counts are N ~ Poisson(photons exp(-p)) + Normal(0, electronic_std^2) for line integrals p, and the
    measurement is y = -log(max(N, smallest_count) / photons), dimensionless. The counts can be read
    back from y, so that the likelihood is that of the counts, while y is what every solver works on.

    Parameters
    ----------
    photons
        Expected count without an object, N0; a positive number or a tensor (one a bin, say).
    electronic_std
        Standard deviation of the electronic noise, in counts.
    smallest_count
        What a count of zero or below is taken for (LoDoPaB: 0.1).

    References
    ----------
    Electronic noise enters the likelihood through the shifted Poisson model of Snyder, Hammoud and
    White, J. Opt. Soc. Am. A 10 (1993). Weights: Sauer and Bouman, IEEE Trans. Signal Process. 41 (1993).
    """

    photons: float | Tensor
    electronic_std: float | Tensor = 0.0
    smallest_count: float = 0.1

    def __post_init__(self) -> None:
        """Refuse counts that are not positive."""
        _must_be_positive("photons", self.photons)
        _must_be_positive("smallest_count", self.smallest_count)
        electronic = torch.as_tensor(self.electronic_std)
        if not electronic.is_meta and not bool((electronic >= 0).all()):
            raise ValueError(f"electronic_std: expected a value of at least 0, found {self.electronic_std}")

    def line_integrals(self, counts: Tensor) -> Tensor:
        """Y of counts; counts below `smallest_count` are lifted to it."""
        return -torch.log(counts.clamp_min(self.smallest_count) / self.photons)

    def counts(self, measurement: Tensor) -> Tensor:
        """N of y."""
        return self.photons * torch.exp(-measurement)

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """Line integrals measured with counting noise around the clean ones."""
        counts = _poisson(self.counts(clean), generator)
        if isinstance(self.electronic_std, Tensor) or self.electronic_std > 0:
            noise = standard_normal(clean.shape, generator, dtype=clean.dtype, device=clean.device)
            counts = counts + self.electronic_std * noise
        return self.line_integrals(counts)

    def negative_log_likelihood(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Shifted Poisson: m - n log m, with m = photons exp(-p) + s^2 and n = N + s^2.

        The smallest value possible, at m = n, is subtracted.
        """
        expected = self.counts(prediction) + self.electronic_std**2
        found = self.counts(measurement) + self.electronic_std**2
        return expected - found - found * (torch.log(expected) - torch.log(found))

    def gradient(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Photons exp(-p) (n / m - 1)."""
        clean = self.counts(prediction)
        found = self.counts(measurement) + self.electronic_std**2
        return clean * (found / (clean + self.electronic_std**2) - 1)

    def curvature(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Photons exp(-p) (1 - n s^2 / m^2); with electronic noise negative where m is far below n."""
        clean, shift = self.counts(prediction), self.electronic_std**2
        found = self.counts(measurement) + shift
        return clean * (1 - found * shift / (clean + shift) ** 2)

    def precision(self, measurement: Tensor) -> Tensor:
        """N^2 / (N + s^2): the inverse variance of y to first order."""
        counts = self.counts(measurement)
        return counts.square() / (counts + self.electronic_std**2)


def _poisson(rates: Tensor, generator: Generators) -> Tensor:
    if isinstance(generator, torch.Generator):
        return torch.poisson(rates.to(generator.device), generator=generator).to(rates.device)
    if len(generator) != len(rates):
        raise ValueError(f"expected {len(rates)} generators, one a sample, found {len(generator)}")
    return torch.stack([_poisson(rate, g) for rate, g in zip(rates, generator, strict=True)])


def _as_real_tensor(value: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype.to_real(), device=like.device)


def _must_be_positive(name: str, value: float | Tensor) -> None:
    tensor = torch.as_tensor(value)
    # Tensors on the meta device have a shape, but no values to check.
    if not tensor.is_meta and not bool((tensor > 0).all()):
        raise ValueError(f"{name}: expected a positive value, found {value}")
