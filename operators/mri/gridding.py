"""Fourier sums at nonuniform frequencies by gridding on the CPU, many images at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.ct.projectors.threads import in_threads, spans
from operators.mri.kaiser_bessel import WIDTH, shape_parameter, window, window_transform
from operators.mri.products import as_array

ERROR = 5e-5  # relative, on images of noise
_OVERSAMPLING = 1.3
_SMALL = 64  # images up to here cost next to nothing on a grid of twice their size
_IMAGES = 8  # complex numbers in single precision that fill a 512-bit register
_ROWS = 8  # samples are sorted by strips of so many rows


class Gridding:
    """y_j = sum_n x_n exp(-2 pi i k_j n / N) / sqrt(N0 N1) for images (count, N0, N1), n from -(N // 2) on.

    The oversampled spectrum is interpolated with a Kaiser-Bessel window, seven points along each axis. On
    noise the relative error is below 5e-5, and less for small images. The adjoint uses the same weights, so
    that the two are transposes to rounding. Works in complex64, in ``torch.get_num_threads()`` threads; the
    values do not depend on their number.

    Parameters
    ----------
    image_shape
        (N0, N1).
    trajectory
        Frequencies k in cycles per field of view, float64, shape (samples, 2).
    """

    def __init__(self, image_shape: tuple[int, ...], trajectory: Tensor) -> None:
        self.image_shape = image_shape
        self._grid = tuple(_grid_size(n) for n in image_shape)
        frequencies = as_array(trajectory.double())
        corners = np.empty(frequencies.shape, np.int64)
        weights = np.empty((*frequencies.shape, WIDTH), np.float32)
        factors = []
        for axis, (n, size) in enumerate(zip(image_shape, self._grid, strict=True)):
            beta = shape_parameter(size / n)
            positions = frequencies[:, axis] * (size / n)
            first = np.ceil(positions - WIDTH / 2)
            distances = first[:, None] + np.arange(WIDTH) - positions[:, None]
            weights[:, axis] = window(distances, beta)
            corners[:, axis] = first.astype(np.int64) % size
            factors.append(1 / window_transform((np.arange(n) - n // 2) / size, beta) / np.sqrt(n))
        order = np.lexsort((corners[:, 1], corners[:, 0] // _ROWS))
        self._order, self._corners, self._weights = order, corners[order], weights[order]
        self._strips = self._corners[:, 0] // _ROWS
        self._apodisation = np.outer(*factors).astype(np.float32)

    def forward(self, images: Tensor) -> Tensor:
        """Images (count, N0, N1) to samples (count, samples), complex64."""
        from operators.mri import gridding_kernels as kernels

        samples = images.new_empty((len(images), len(self._order)))
        for begin in range(0, len(images), _IMAGES):
            some = images[begin : begin + _IMAGES]
            spectra = [self._spectrum(as_array(image)) for image in some]
            lanes = _lanes(len(some))
            # Lanes without an image of their own repeat the last one; nobody reads them.
            grids = tuple(spectra + spectra[-1:] * (lanes - len(spectra)))
            packed = _empty(self._packed_shape(lanes))
            in_threads(kernels.pack, [(grids, packed, *part) for part in _shares(len(packed))])
            values = _empty((len(self._order), lanes))
            fixed = (_flat(packed), 2 * lanes * packed.shape[1], self._corners, self._weights)
            ends = (_flat(values), (0,) * (2 * lanes))
            parts = _shares(len(self._order))
            in_threads(kernels.interpolate, [(*fixed, *ends, *part) for part in parts])
            sorted_back = (values, self._order, samples[begin : begin + len(some)].numpy())
            in_threads(kernels.scatter, [(*sorted_back, *part) for part in _shares(len(some))])
        return samples

    def adjoint(self, samples: Tensor) -> Tensor:
        """The conjugate transpose of forward: (count, samples) to (count, N0, N1)."""
        from operators.mri import gridding_kernels as kernels

        images = samples.new_empty((len(samples), *self.image_shape))
        for begin in range(0, len(samples), _IMAGES):
            some = samples[begin : begin + _IMAGES]
            lanes = _lanes(len(some))
            values = _empty((len(self._order), lanes))
            fixed_gather = (as_array(some), self._order, values)
            in_threads(kernels.gather, [(*fixed_gather, *part) for part in _shares(len(self._order))])
            packed = _empty(self._packed_shape(lanes))
            packed.fill(0)
            fixed = (_flat(values), self._corners, self._weights, _flat(packed))
            ends = (2 * lanes * packed.shape[1], (0,) * (2 * lanes))
            in_threads(kernels.spread, [(*fixed, *ends, *part) for part in self._bands(len(packed))])
            grids = tuple(_empty(self._grid) for _ in range(lanes))
            in_threads(kernels.unpack, [(packed, grids, *part) for part in _shares(self._grid[0])])
            for i in range(len(some)):
                image = torch.fft.ifft2(torch.from_numpy(grids[i]), norm="forward").numpy()
                fixed_cut = (image, self._apodisation, images[begin + i].numpy())
                in_threads(kernels.cut, [(*fixed_cut, *part) for part in _shares(self.image_shape[0])])
        return images

    def _spectrum(self, image: NDArray[Any]) -> NDArray[Any]:
        from operators.mri import gridding_kernels as kernels

        grid = torch.empty(self._grid, dtype=torch.complex64)
        fixed = (image, self._apodisation, grid.numpy())
        in_threads(kernels.place, [(*fixed, *part) for part in _shares(self._grid[0])])
        return torch.fft.fft2(grid).numpy()

    def _packed_shape(self, lanes: int) -> tuple[int, int, int]:
        height, width = self._grid
        return height + WIDTH, width + WIDTH, lanes

    def _bands(self, rows: int) -> list[tuple[int, int, int, int]]:
        """For each band of rows (top, bottom), the range of samples that may reach into it."""
        bands = []
        for top, bottom in _shares(rows):
            begin = np.searchsorted(self._strips, (top - WIDTH + 1) // _ROWS, side="left")
            end = np.searchsorted(self._strips, (bottom - 1) // _ROWS, side="right")
            bands.append((int(begin), int(end), top, bottom))
        return bands


def _grid_size(n: int) -> int:
    """The smallest even number without prime factors above 7 that oversamples n pixels enough."""
    size = max(2 * n if n <= _SMALL else math.ceil(_OVERSAMPLING * n), 2 * WIDTH)
    size += size % 2
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def _lanes(images: int) -> int:
    return next(count for count in (1, 2, 4, 8) if count >= images)


def _shares(size: int) -> list[tuple[int, int]]:
    threads = torch.get_num_threads()
    return [(0, size)] if threads == 1 else spans(size, threads)


def _flat(complex_array: NDArray[Any]) -> NDArray[np.float32]:
    return complex_array.reshape(-1).view(np.float32)


def _empty(shape: tuple[int, ...]) -> NDArray[np.complex64]:
    # torch's memory comes from the heap, where it is used again; numpy's would be new pages each time.
    return torch.empty(shape, dtype=torch.complex64).numpy()
