"""Fourier transforms of those columns of k-space alone that were sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.projectors.threads import in_threads, spans
from operators.mri.products import Block, Scratch, as_array

_WORTHWHILE = 0.6  # of the columns; with more of them, one transform of all is quicker
_ROWS_A_THREAD = 64


class SampledColumns:
    """Transforms, without a scale, between coil images and those columns of k-space that were sampled.

    Along the rows everything is transformed, along the columns only those `which`: what is left out is what
    the mask would make zero. Columns are lines, shape (outer, inner, coils, *frames, len(which), *axes before
    the last one). On the CPU.
    """

    def __init__(self, which: Tensor, shape: Sequence[int]) -> None:
        self.which, self._shape = which.cpu().numpy().astype(np.int64), tuple(shape)
        self._rows, self._axes = math.prod(shape[:-1]), tuple(range(1 - len(shape), 0))

    @staticmethod
    def of(mask: Tensor | None, image_shape: Sequence[int], dimensions: int) -> SampledColumns | None:
        """Those in which a mask has a sample, or None where it is not worth while."""
        if mask is None or mask.ndim == 0 or dimensions < 2 or mask.shape[-1] != image_shape[-1]:
            return None
        which = mask.reshape(-1, mask.shape[-1]).any(0).nonzero().flatten()
        if len(which) > _WORTHWHILE * image_shape[-1]:
            return None
        return SampledColumns(which, image_shape[-dimensions:])

    def forward(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """What makes lines of coil images (outer, inner, coils, *frames, *shape) of the dtype of `like`."""
        scratch, rows = self._scratch(like, lines=True), self._by_rows(_kernels().pick)

        def forward(z: Tensor) -> Tensor:
            lines, out = scratch(z.shape[: -len(self._shape)])
            rows(self._planes(torch.fft.fft(z)), self.which, out)
            return torch.fft.fftn(lines, dim=self._axes)

        return forward

    def adjoint(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """The transpose of what forward gives."""
        scratch, rows = self._scratch(like, lines=False), self._by_rows(_kernels().put)

        def adjoint(lines: Tensor) -> Tensor:
            lines = torch.fft.ifftn(lines, dim=self._axes, norm="forward")
            z, out = scratch(lines.shape[: -len(self._shape)])
            rows(self._flat(lines), self.which, out)
            return torch.fft.ifft(z, norm="forward")

        return adjoint

    def taking(self, kspace: Tensor, factor: Tensor) -> Callable[[Block], Tensor]:
        """What gives, for a block of k-space, its lines times the conjugate of a factor.

        They are good until the next block is asked for. kspace (outer, inner, coils, *frames, *shape); factor
        as lines, its axes of length 1 for all.
        """
        scratch, rows = self._scratch(kspace, lines=True), self._by_rows(_kernels().take)
        planes, factors = self._planes(kspace), self._flat(factor)
        lead = tuple(kspace.shape[: -len(self._shape)])
        index, own = _places(lead, lead), _places(tuple(factor.shape[: -len(self._shape)]), lead)

        def take(block: Block) -> Tensor:
            lines, out = scratch(block.size + lead[3:])
            which = (index[block].reshape(-1), self.which, factors, own[block].reshape(-1))
            rows(planes, *which, out)
            return lines

        return take

    def filling(self, factor: Tensor, kspace: Tensor) -> Callable[[Tensor, Block], None]:
        """What writes a block of k-space, a factor times lines and zeros between them; as in `taking`."""
        rows = self._by_rows(_kernels().fill)
        planes, factors = self._planes(kspace), self._flat(factor)
        lead = tuple(kspace.shape[: -len(self._shape)])
        index, own = _places(lead, lead), _places(tuple(factor.shape[: -len(self._shape)]), lead)

        def fill(lines: Tensor, block: Block) -> None:
            where = (own[block].reshape(-1), planes, index[block].reshape(-1))
            rows(self._flat(lines), self.which, factors, *where)

        return fill

    def factor(self, spectrum: Tensor) -> Tensor:
        """A spectrum of k-space's shape as one of lines."""
        some = spectrum[..., torch.from_numpy(self.which).to(spectrum.device)]
        return some.movedim(-1, -len(self._shape)).contiguous()

    def _scratch(self, like: Tensor, *, lines: bool) -> Scratch:
        if lines:
            return Scratch(like, (len(self.which), *self._shape[:-1]), (-1, len(self.which), self._rows))
        return Scratch(like, self._shape, (-1, self._rows, self._shape[-1]))

    def _planes(self, tensor: Tensor) -> Any:
        return as_array(tensor).reshape(-1, self._rows, self._shape[-1])

    def _flat(self, lines: Tensor) -> Any:
        return as_array(lines).reshape(-1, len(self.which), self._rows)

    def _by_rows(self, kernel: Any) -> Callable[..., None]:
        """A kernel as what works on all rows, in threads where that is worth while."""
        number = min(torch.get_num_threads(), max(self._rows // _ROWS_A_THREAD, 1))
        if number == 1:
            return lambda *arguments: kernel(*arguments, 0, self._rows)
        parts = spans(self._rows, number)
        return lambda *arguments: in_threads(kernel, [(*arguments, *part) for part in parts])


@cache
def _kernels() -> Any:
    """The module of compiled kernels, which takes a while to load."""
    return import_module("operators.mri.column_kernels")


def _places(given: Sequence[int], wanted: Sequence[int]) -> Any:
    """For every plane of leading axes `wanted`, which one of those of `given`, flattened, it takes."""
    if math.prod(given) == 1:
        return np.zeros(wanted, np.int64)
    places = np.arange(math.prod(given)).reshape(given)
    return places if given == wanted else np.broadcast_to(places, wanted)
