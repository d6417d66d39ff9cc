"""The normal operator of nonuniform Fourier samples, by fast convolution."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from operators.ct.projectors.threads import in_threads, spans
from operators.linear import LinearOperator
from operators.mri.finufft_sums import FinufftSums
from operators.mri.products import as_array, blocks, combining, expanding, frame_table

if TYPE_CHECKING:
    from operators.mri.nonuniform import NonuniformFourier

_TOLERANCE = 1e-11  # of the point-spread function, which is worked out once, in double precision


class ToeplitzGram(LinearOperator):
    """A^H W A of a `NonuniformFourier`, without its sums: x -> sum_c conj(S_c) T (S_c x).

    T convolves with the trajectory's point-spread function, twice as wide as the image, so it is a circulant
    of twice the size (Fessler et al., IEEE Trans. Signal Process. 53(9), 2005). Its frequencies are taken
    apart into whole and half ones along each axis, so that 2^axes transforms of the image's own size do the
    work of one on the padded image, which is larger than a core's cache. The spectrum is real: T is Hermitian
    to rounding.

    Parameters
    ----------
    operator
        A.
    weights
        W >= 0, real, the same for all coils: broadcasts against (*frames, *samples); ones unless given.
    """

    _spectrum: Tensor

    def __init__(self, operator: NonuniformFourier, weights: Tensor | None = None) -> None:
        super().__init__(
            operator.domain_shape,
            operator.domain_shape,
            domain_dtype=operator.domain_dtype,
            accepts=operator.accepts,
            batch_shape=operator.batch_shape,
        )
        self.operator = operator
        axes = operator.axes
        self._shape = operator.domain_shape[-axes:]
        frames = operator.domain_shape[:-axes]
        trajectory, table = operator.trajectory, operator.frame_table
        if weights is None:
            kept = torch.ones((), dtype=torch.float64, device=trajectory.device)
        else:
            kept = weights.detach().double()
        samples = trajectory.shape[len(frames) : -1]
        if math.prod(kept.shape[: max(kept.ndim - len(samples), 0)]) > 1:
            trajectory = trajectory.expand(*frames, *trajectory.shape[len(frames) :])
            table = list(range(math.prod(frames)))
        self._table = table
        kept = kept.expand(trajectory.shape[:-1]).reshape(-1, math.prod(samples))
        paths = trajectory.reshape(-1, math.prod(samples), axes)
        spectra = [self._of(path, weight) for path, weight in zip(paths, kept, strict=True)]
        self.register_buffer("_spectrum", torch.stack(spectra))
        self._cast: dict[torch.dtype, Tensor] = {}

    def _apply(self, fn: Any, recurse: bool = True) -> ToeplitzGram:
        super()._apply(fn, recurse)
        self._cast.clear()
        self._norms.clear()
        return self

    def _of(self, path: Tensor, weights: Tensor) -> Tensor:
        """Real spectrum of the circulant, shape (2 for each axis, *N), float64."""
        double = tuple(2 * n for n in self._shape)
        sums = FinufftSums(double, 2 * path, _TOLERANCE)
        spread = sums.adjoint(weights.to(torch.complex128).unsqueeze(0))[0]
        spread = spread * (math.sqrt(math.prod(double)) / math.prod(self._shape))
        for axis in range(len(double)):
            spread.select(axis, 0).zero_()  # lags of -N never meet: any Hermitian value serves
        spectrum = torch.fft.fftn(torch.fft.ifftshift(spread)).real / 2 ** len(double)
        taken_apart = spectrum.reshape(*(m for n in self._shape for m in (n, 2)))
        axes = range(len(double))
        return taken_apart.permute(*(2 * i + 1 for i in axes), *(2 * i for i in axes)).contiguous()

    def _forward(self, x: Tensor) -> Tensor:
        images = self.operator.stack(x)
        maps = self.operator.maps(x.dtype, x.device)
        result = torch.zeros_like(images)
        if x.device.type == "cpu":
            self._one_by_one(images, maps, result)
        else:
            self._together(images, maps, result)
        return result.reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _together(self, images: Tensor, maps: Tensor, result: Tensor) -> None:
        """Add to result, many coil images at once: for devices with memory to spare."""
        axes = tuple(range(-len(self._shape), 0))
        frames = self.domain_shape[: -len(axes)]
        spectra = self._spectra(images.dtype)[self._table]
        spectra = spectra.movedim(0, len(axes)).reshape(*(2,) * len(axes), *frames, *self._shape)
        expand, combine = expanding(images, maps, len(axes)), combining(maps, result, len(axes))
        for block in blocks((*images.shape[:2], maps.shape[1]), self.domain_shape, images):
            z = expand(block)
            total = torch.zeros_like(z)
            for half in itertools.product((0, 1), repeat=len(axes)):
                turn = _turns(self._shape, half).to(z)
                share = torch.fft.fftn(z * turn, dim=axes).mul_(spectra[half])
                total += torch.fft.ifftn(share, dim=axes).mul_(turn.conj())
            combine(total, block)

    def _one_by_one(self, images: Tensor, maps: Tensor, result: Tensor) -> None:
        """Add to result, a coil image after the other, so that each stays in a core's cache."""
        from operators.mri import toeplitz_kernels as kernels

        axes, columns = len(self._shape), self._shape[-1]
        rows = math.prod(self._shape[:-1])
        lead = self.domain_shape[:-axes]
        frames = math.prod(lead)
        spectra = as_array(self._spectra(images.dtype)).reshape(-1, 2 ** (axes - 1), 2, rows, columns)
        across = as_array(_turns(self._shape[-1:], (1,)).to(images))
        halves = list(itertools.product((0, 1), repeat=axes - 1))
        along = torch.stack([_turns(self._shape[:-1], half) for half in halves]).to(images)
        along = as_array(along.reshape(len(halves), rows))
        table = frame_table(maps.shape[2 : maps.ndim - axes], lead)
        given, shares, out = (
            as_array(t).reshape(*t.shape[:2], -1, rows, columns) for t in (images, maps, result)
        )
        family = images.new_empty((2**axes, *self._shape))
        shape, dims = spectra.shape[1:], tuple(range(-axes, 0))
        parts = spans(rows, torch.get_num_threads())
        every = (range(n) for n in (*images.shape[:2], maps.shape[1], frames))
        for i, j, k, frame in itertools.product(*every):
            turns = (shares[j if len(maps) > 1 else 0, k, table[frame]], along, across)
            image, total = given[i, j, frame], out[i, j, frame]
            fixed = (image, *turns, family.numpy().reshape(shape))
            in_threads(kernels.modulate, [(*fixed, *part) for part in parts])
            # z = FFT(S x exp(-i pi p n / N)): frequencies 2 k + p of the padded image, p = 0 or 1.
            z = torch.fft.fftn(family, dim=dims)
            weighed = (z.numpy().reshape(shape), spectra[self._table[frame]])
            in_threads(kernels.weigh, [(*weighed, *part) for part in parts])
            back = torch.fft.ifftn(z, dim=dims).numpy().reshape(shape)
            in_threads(kernels.demodulate, [(back, *turns, total, *part) for part in parts])

    def _spectra(self, dtype: torch.dtype) -> Tensor:
        if dtype not in self._cast:
            self._cast[dtype] = self._spectrum.to(dtype.to_real())
        return self._cast[dtype]

    def _describe(self) -> str:
        return f"Gram of [{self.operator!r}]"


def _turns(shape: tuple[int, ...], half: tuple[int, ...]) -> Tensor:
    """exp(-i pi p n / N) over the axes of `shape`, p = 0 or 1 of each, complex128."""
    turns = torch.ones((), dtype=torch.complex128)
    for n, p in zip(shape, half, strict=True):
        turns = turns.unsqueeze(-1) * torch.exp(-1j * math.pi * p / n * torch.arange(n, dtype=torch.float64))
    return turns
