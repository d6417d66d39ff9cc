"""Fourier samples of an image at any frequencies, seen through receive coils or not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from operators.linear import LinearOperator
from operators.mri.broadcasting import check_coil_maps
from operators.mri.finufft_sums import FinufftSums
from operators.mri.frequencies import check_trajectory
from operators.mri.gridding import ERROR, Gridding
from operators.mri.products import Block, blocks, combining, expanding, frame_table
from operators.normal_equations import Solution, conjugate_gradients

_BYTES_AT_ONCE = 2**26  # of coil images on a CPU
_COMPLEX = (torch.complex64, torch.complex128)
_ENGINES = ("auto", "gridding", "finufft")


class NonuniformFourier(LinearOperator):
    """Samples of an image along a trajectory: y_cj = sum_n S_c(n) x(n) exp(-2 pi i k_j n / N) / sqrt(N).

    Maps a complex image, shape (*batch, *image_shape), to samples, shape (*batch, coils, *frames, *samples)
    with coil maps and (*batch, *frames, *samples) without. Pixels n count from -(N // 2) on, and the scale is
    unitary: on the grid of frequencies it equals `CartesianFourier`. The adjoint is the conjugate transpose,
    to rounding; no density compensation is inside.

    Parameters
    ----------
    image_shape
        (*frames, *N), with as many N as the trajectory has axes.
    trajectory
        Frequencies in cycles per field of view, -N / 2 to N / 2, shape (*frames, *samples, axes); the last
        axis is in the order of the image's axes. An axis of `frames` may have length 1: the same for all.
    coil_maps
        Complex sensitivities, shape (*batch_shape, coils, *image_shape) with 1 allowed in `frames`.
    tolerance
        Relative error of the sums, 1e-4 in single precision and 1e-12 in double unless given.
    engine
        "finufft", "gridding" (ours, 2-D and complex64 on the CPU, error 5e-5), or "auto": gridding where it
        can, FINUFFT elsewhere, and cuFINUFFT on a GPU.
    any_extent
        Accept trajectories that stay in the middle of k-space, as those in another unit do.

    Notes
    -----
    The derivative by the trajectory is that of `nonuniform_fourier`. `gram` is a `ToeplitzGram`.
    """

    trajectory: Tensor
    _maps: Tensor | None

    def __init__(
        self,
        image_shape: Sequence[int],
        trajectory: Tensor,
        coil_maps: Tensor | None = None,
        *,
        tolerance: float | None = None,
        engine: str = "auto",
        any_extent: bool = False,
    ) -> None:
        shape = tuple(int(n) for n in image_shape)
        axes = check_trajectory(trajectory, shape, any_extent=any_extent)
        frames = shape[: len(shape) - axes]
        given = tuple(trajectory.shape[: len(frames)])
        if trajectory.ndim < len(frames) + 2 or any(
            n not in (1, m) for n, m in zip(given, frames, strict=True)
        ):
            raise ValueError(
                f"trajectory: expected shape (frames, samples, axes) with frames {frames} or ones, found "
                f"{tuple(trajectory.shape)}"
            )
        if engine not in _ENGINES:
            raise ValueError(f"engine: expected one of {', '.join(_ENGINES)}, found {engine!r}")
        if engine == "gridding" and axes != 2:
            raise ValueError(f'engine: "gridding" expects trajectories of 2 axes, found {axes}')
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(f"tolerance: expected a number between 0 and 1, found {tolerance}")
        batch = () if coil_maps is None else check_coil_maps(coil_maps, shape)
        coils = () if coil_maps is None else (coil_maps.shape[len(batch)],)
        samples = tuple(trajectory.shape[len(frames) : -1])
        super().__init__(
            shape,
            coils + frames + samples,
            domain_dtype=torch.complex64,
            accepts=(torch.complex64,) if engine == "gridding" else _COMPLEX,
            batch_shape=batch,
        )
        self.axes, self.tolerance, self.engine = axes, tolerance, engine
        self.register_buffer("trajectory", trajectory.detach().double())
        maps = None
        if coil_maps is not None:
            full = coil_maps.expand(*coil_maps.shape[: coil_maps.ndim - axes], *shape[len(frames) :])
            maps = full.reshape(-1, *full.shape[len(batch) :]).contiguous()
        self.register_buffer("_maps", maps)
        self._cast: dict[torch.dtype, Tensor] = {}
        self._sums: dict[str, list[Any]] = {}
        self._gram: LinearOperator | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> NonuniformFourier:
        # Casting a module must not round frequencies: they keep their precision and follow the device.
        trajectory = self.trajectory
        # The Gram operator holds this one, and would be moved by it for ever.
        self._gram = None
        super()._apply(fn, recurse)
        self.trajectory = trajectory.to(self.trajectory.device)
        for cache in (self._cast, self._sums, self._norms):
            cache.clear()
        return self

    @property
    def coil_maps(self) -> Tensor | None:
        """The sensitivities, shape (*batch_shape, coils, *image_shape); None for an operator without."""
        return None if self._maps is None else self._maps.reshape(*self.batch_shape, *self._maps.shape[1:])

    @property
    def gram(self) -> LinearOperator:
        """A^H A, by fast convolution; made once."""
        from operators.mri.toeplitz import ToeplitzGram

        if self._gram is None:
            self._gram = ToeplitzGram(self)
        return self._gram

    def sums(self, dtype: torch.dtype) -> list[Any]:
        """The Fourier sums without coils, one for each frame that the trajectory has, in a precision.

        Each has ``forward``, images (count, *N) to samples (count, samples), and ``adjoint``.
        """
        device = self.trajectory.device
        gridding = self.engine == "gridding" or (
            self.engine == "auto"
            and self.axes == 2
            and device.type == "cpu"
            and dtype == torch.complex64
            and (self.tolerance is None or self.tolerance >= ERROR)
        )
        name = "gridding" if gridding else "finufft"
        if name not in self._sums:
            if gridding and device.type != "cpu":
                raise ValueError(f'engine: "gridding" works on the CPU, found a trajectory on {device}')
            shape = self.domain_shape[-self.axes :]
            frames = self.trajectory.reshape(-1, *self._samples, self.axes).flatten(1, -2)
            self._sums[name] = [
                Gridding(shape, frame) if gridding else FinufftSums(shape, frame, self.tolerance)
                for frame in frames
            ]
        return self._sums[name]

    @property
    def _samples(self) -> tuple[int, ...]:
        return tuple(self.trajectory.shape[len(self.domain_shape) - self.axes : -1])

    def maps(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The sensitivities, or ones, in a precision: (1 or prod(batch_shape), coils, *image_shape)."""
        if dtype not in self._cast:
            ones = torch.ones((), dtype=dtype, device=device)
            shape = self.domain_shape[-self.axes :]
            event = (1,) * (len(self.domain_shape) - self.axes) + shape
            maps = ones.expand(1, 1, *event) if self._maps is None else self._maps.to(dtype)
            self._cast[dtype] = maps.contiguous()
        return self._cast[dtype]

    def stack(self, x: Tensor) -> Tensor:
        """Images as (outer, inner, *image_shape), contiguous."""
        return x.reshape(-1, math.prod(self.batch_shape), *self.domain_shape).resolve_conj().contiguous()

    def _forward(self, x: Tensor) -> Tensor:
        images, maps = self.stack(x), self.maps(x.dtype, x.device)
        y = x.new_empty((*images.shape[:2], maps.shape[1], self._frames, math.prod(self._samples)))
        expand = expanding(images, maps, self.axes)
        for block in self._blocks(y):
            z = expand(block).reshape(math.prod(block.size), self._frames, *self.domain_shape[-self.axes :])
            for sums, frames in self._by_trajectory(x.dtype):
                values = sums.forward(z[:, frames].flatten(0, 1))
                y[block][..., frames, :] = values.reshape(*block.size, -1, values.shape[-1])
        return y.reshape(x.shape[: x.ndim - len(self.domain_shape)] + self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        maps = self.maps(y.dtype, y.device)
        kspace = y.reshape(
            -1, math.prod(self.batch_shape), maps.shape[1], self._frames, math.prod(self._samples)
        )
        images = y.new_zeros((*kspace.shape[:2], *self.domain_shape))
        combine = combining(maps, images, self.axes)
        for block in self._blocks(kspace):
            shape = self.domain_shape[-self.axes :]
            z = y.new_empty((math.prod(block.size), self._frames, *shape))
            for sums, frames in self._by_trajectory(y.dtype):
                values = sums.adjoint(kspace[block][..., frames, :].flatten(0, 3))
                z[:, frames] = values.reshape(len(z), -1, *shape)
            combine(z.reshape(*block.size, *self.domain_shape), block)
        return images.reshape(y.shape[: y.ndim - len(self.range_shape)] + self.domain_shape)

    @property
    def _frames(self) -> int:
        return math.prod(self.domain_shape[: -self.axes])

    def _by_trajectory(self, dtype: torch.dtype) -> Iterator[tuple[Any, slice | list[int]]]:
        """Fourier sums, and the frames that they are of."""
        sums = self.sums(dtype)
        if len(sums) == 1:
            yield sums[0], slice(None)
            return
        table = self.frame_table
        for i, one in enumerate(sums):
            yield one, [frame for frame, own in enumerate(table) if own == i]

    @property
    def frame_table(self) -> list[int]:
        """Which of the trajectory's frames, flattened, each frame of an image is sampled by."""
        frames = self.domain_shape[: -self.axes]
        return [int(i) for i in frame_table(self.trajectory.shape[: len(frames)], frames)]

    def _blocks(self, kspace: Tensor) -> Iterator[Block]:
        at_once = _BYTES_AT_ONCE if kspace.device.type == "cpu" else None
        return blocks(kspace.shape[:3], self.domain_shape, kspace, at_once=at_once)

    def solve(
        self,
        y: Tensor,
        *,
        weights: Tensor | None = None,
        damping: float | Tensor = 0.0,
        start: Tensor | None = None,
        max_iterations: int = 50,
        rtol: float = 1e-5,
    ) -> Solution:
        """As `LinearOperator.solve`: weights that all coils and images share join the Toeplitz Gram."""
        event = len(self.range_shape) - (self._maps is not None)
        shared = weights is not None and weights.numel() == math.prod(weights.shape[-event:])
        if weights is None or not shared or weights.numel() == 1:
            return super().solve(
                y, weights=weights, damping=damping, start=start, max_iterations=max_iterations, rtol=rtol
            )
        from operators.mri.toeplitz import ToeplitzGram

        gram = ToeplitzGram(self, weights.reshape(weights.shape[-event:]))
        factor = torch.as_tensor(damping, dtype=y.dtype.to_real(), device=y.device)
        return conjugate_gradients(
            lambda x: torch.addcmul(gram(x), factor, x),
            self.adjoint(weights * y),
            event_dims=len(self.domain_shape),
            start=start,
            max_iterations=max_iterations,
            rtol=rtol,
        )

    def _describe(self) -> str:
        parts = [f"{self.range_shape[0]} coils" if self._maps is not None else "one coil"]
        parts.append(f"{math.prod(self._samples)} samples of {self.axes} axes")
        return ", ".join(parts)
