"""Fourier samples of an object whose field is not uniform: the phase that builds up during readout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.linear import LinearOperator

_BINS = 512  # of the histogram of frequencies that interpolation is fitted to
_MOST = 100  # segments; more mean that times or frequencies are in another unit


class OffResonance(LinearOperator):
    """A Fourier operator that sees off-resonance: y_j = sum_n a_jn x_n exp(-2 pi i f_n t_j).

    The exponential is interpolated between segments of time, sum_l b_l(t) exp(-2 pi i f tau_l), with the b_l
    that fit the field's histogram best in the least-squares sense (Fessler et al., IEEE Trans. Signal
    Process. 53(9), 2005, sec. III; Noll et al., IEEE Trans. Med. Imaging 10(4), 1991). Forward and adjoint
    cost as many of the operator's as there are segments.

    Parameters
    ----------
    operator
        Samples of an image, shape (..., *image_shape), without off-resonance: a `NonuniformFourier` or a
        `CartesianFourier`.
    field_map
        Off-resonance frequencies f in Hz, real, broadcasts against the domain, with the operator's
        `batch_shape` before it if they differ over the batch.
    readout_times
        When samples are taken, in seconds after the excitation or echo, real, broadcasts against the range.
    segments
        Number of segments; as few as reach the tolerance unless given.
    tolerance
        Root-mean-square error over the field's histogram, at the worst time.
    """

    field_map: Tensor
    _weights: Tensor

    def __init__(
        self,
        operator: LinearOperator,
        field_map: Tensor,
        readout_times: Tensor,
        *,
        segments: int | None = None,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__(
            operator.domain_shape,
            operator.range_shape,
            domain_dtype=operator.domain_dtype,
            range_dtype=operator.range_dtype,
            accepts=operator.accepts,
            batch_shape=operator.batch_shape,
        )
        if not operator.domain_dtype.is_complex:
            raise ValueError(f"operator: expected one on complex images, found {operator.domain_dtype}")
        _must_broadcast("field_map", field_map, operator.batch_shape + operator.domain_shape)
        _must_broadcast("readout_times", readout_times, operator.range_shape)
        self.operator = operator
        frequencies = field_map.detach().double()
        times, where = torch.unique(readout_times.detach().double().cpu(), return_inverse=True)
        centres, weights, self.error = _segments(
            frequencies.cpu().numpy(), times.numpy(), segments, tolerance
        )
        self.times = tuple(centres.tolist())
        at_samples = torch.from_numpy(weights)[:, where.reshape(-1)].reshape(-1, *readout_times.shape)
        self.register_buffer("field_map", frequencies)
        self.register_buffer("_weights", at_samples.to(field_map.device))

    def _apply(self, fn: Any, recurse: bool = True) -> OffResonance:
        # Phases need their precision: casting a module moves them and no more.
        field_map, weights = self.field_map, self._weights
        super()._apply(fn, recurse)
        self.field_map = field_map.to(self.field_map.device)
        self._weights = weights.to(self._weights.device)
        self._norms.clear()
        return self

    def _forward(self, x: Tensor) -> Tensor:
        y = self._weights[0].to(x.dtype) * self.operator._forward(self._phase(0, x) * x)
        for i in range(1, len(self.times)):
            y.addcmul_(self._weights[i].to(x.dtype), self.operator._forward(self._phase(i, x) * x))
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        def share(i: int) -> Tensor:
            image = self.operator._adjoint(self._weights[i].conj().to(y.dtype) * y)
            return self._phase(i, y).conj() * image

        x = share(0)
        for i in range(1, len(self.times)):
            x += share(i)
        return x

    def _phase(self, i: int, like: Tensor) -> Tensor:
        return torch.polar(torch.ones_like(self.field_map), -2 * math.pi * self.times[i] * self.field_map).to(
            like.dtype
        )

    def _describe(self) -> str:
        return f"{len(self.times)} segments of [{self.operator!r}]"


def _segments(
    frequencies: NDArray[np.float64], times: NDArray[np.float64], count: int | None, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.complex128], float]:
    """Segment times (count,), weights (count, times), and the root-mean-square error at the worst time."""
    heights, edges = np.histogram(frequencies, bins=_BINS)
    sums, _ = np.histogram(frequencies, bins=edges, weights=frequencies)
    occupied = heights > 0
    centres = sums[occupied] / heights[occupied]
    share = np.sqrt(heights[occupied] / heights.sum())[:, None]
    exact = share * np.exp(-2j * np.pi * np.outer(centres, times))

    def fit(number: int) -> tuple[NDArray[np.float64], NDArray[np.complex128], float]:
        middles = np.linspace(times.min(), times.max(), number) if number > 1 else times.mean(keepdims=True)
        basis = share * np.exp(-2j * np.pi * np.outer(centres, middles))
        weights = np.linalg.lstsq(basis, exact, rcond=1e-10)[0]
        return middles, weights, float(np.linalg.norm(basis @ weights - exact, axis=0).max())

    if count is not None:
        if count < 1:
            raise ValueError(f"segments: expected at least 1, found {count}")
        return fit(count)
    number = 1
    while number <= _MOST:
        found = fit(number)
        if found[2] <= tolerance:
            return found
        number += 1 + number // 16
    raise ValueError(
        f"expected an error of {tolerance:g} with at most {_MOST} segments, found {found[2]:.2g}: field_map "
        f"spans {np.ptp(frequencies):.4g} Hz, readout_times span {np.ptp(times):.4g} s"
    )


def _must_broadcast(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(tensor, Tensor) or tensor.is_complex():
        found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{name}: expected a real torch.Tensor, found {found}")
    try:
        agrees = torch.broadcast_shapes(tensor.shape, shape) == torch.Size(shape)
    except RuntimeError:
        agrees = False
    if not agrees:
        expected = ", ".join(str(n) for n in shape)
        raise ValueError(
            f"{name}: expected a shape that broadcasts to ({expected}), found {tuple(tensor.shape)}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name}: expected finite numbers, found NaN or infinity")
