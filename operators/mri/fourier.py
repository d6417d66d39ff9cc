"""Cartesian Fourier sampling of an image, seen through receive coils or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators.linear import LinearOperator, uniform_within
from operators.mri.broadcasting import broadcast_batch, check_coil_maps, check_mask, with_axes
from operators.mri.products import blocks, combining, expanding, large_empty, weighing
from operators.mri.sampled_columns import SampledColumns
from operators.normal_equations import Solution, conjugate_gradients

_COMPLEX = (torch.complex64, torch.complex128)


def centred_fft(image: Tensor, dimensions: int = 2) -> Tensor:
    """Unitary Fourier transform of the last axes, with frequency 0 and the image's centre at n // 2."""
    axes = tuple(range(-dimensions, 0))
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(image, axes), dim=axes, norm="ortho"), axes)


def centred_ifft(kspace: Tensor, dimensions: int = 2) -> Tensor:
    """The inverse of `centred_fft`."""
    axes = tuple(range(-dimensions, 0))
    return torch.fft.fftshift(
        torch.fft.ifftn(torch.fft.ifftshift(kspace, axes), dim=axes, norm="ortho"), axes
    )


class CartesianFourier(LinearOperator):
    """Samples on the Cartesian grid of k-space of an image: y = M F S x.

    Maps a complex image, shape (*batch, *image_shape), to k-space on its full grid, shape
    (*batch, coils, *image_shape) with coil maps and (*batch, *image_shape) without. Undersampled k-space is
    kept zero-filled, as files have it: forward writes zeros where nothing was measured, and adjoint does
    not read there. The noise model must know the same: `ComplexGaussianNoise(std, operator.sampled)`.

    F is unitary and centred: frequency 0, and the image's centre, are at index n // 2 of each axis, odd or
    even, as in fftshift(fft(ifftshift(x), norm="ortho")).

    Parameters
    ----------
    image_shape
        Of one image; leading axes that are not transformed (frames, slices) come first.
    mask
        Where k-space was sampled: bool, or zeros and ones. Broadcasts against (*batch_shape, *image_shape): a
        mask of shape (width,) selects columns, (frames, 1, width) selects columns of each frame.
    coil_maps
        Complex sensitivities, shape (*batch_shape, coils, *image_shape) with 1 allowed in `image_shape` for
        axes that they do not depend on.
    dimensions
        How many trailing axes are transformed; all of `image_shape` unless given.

    Notes
    -----
    With c = n // 2 and p_k = exp(2 pi i c k / n) the centred transform is q p fft(p x), where q = exp(-2 pi i
    c c / n): one p goes into the maps and the other into the mask, so that nothing is shifted in memory.
    Batch elements with maps or masks of their own make `batch_shape`. Coils are worked on a few at a time, so
    that what is needed beyond input and output stays small.
    """

    mask: Tensor | None
    _maps: Tensor
    _spectrum: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        mask: Tensor | None = None,
        coil_maps: Tensor | None = None,
        *,
        dimensions: int | None = None,
    ) -> None:
        shape = tuple(int(n) for n in image_shape)
        dimensions = len(shape) if dimensions is None else dimensions
        if not 1 <= dimensions <= len(shape):
            raise ValueError(
                f"dimensions: expected 1 to {len(shape)} for images of {shape}, found {dimensions}"
            )
        batch: tuple[int, ...] = ()
        if mask is not None:
            mask, batch = check_mask(mask, shape)
        if coil_maps is not None:
            batch = broadcast_batch(batch, check_coil_maps(coil_maps, shape))
        coils = () if coil_maps is None else (coil_maps.shape[-len(shape) - 1],)
        super().__init__(
            shape, coils + shape, domain_dtype=torch.complex64, accepts=_COMPLEX, batch_shape=batch
        )
        self.dimensions, self._has_maps = dimensions, coil_maps is not None
        p, q = _centring(shape, dimensions)
        p = p.to(next((t.device for t in (coil_maps, mask) if t is not None), p.device))
        # Exactly real for even sizes. The scale joins it, so that transforms need none.
        spectrum = (q * p if bool(p.imag.any()) else (q * p).real) * self._scale
        if mask is not None:
            spectrum = spectrum * mask
        maps = p.unsqueeze(0) if coil_maps is None else coil_maps * p.to(coil_maps)
        self.register_buffer("mask", mask)
        self.register_buffer("_maps", _lined_up(maps, batch, len(shape) + 1))
        spectrum = _lined_up(with_axes(spectrum, len(shape)), batch, len(shape))
        self.register_buffer("_spectrum", spectrum.unsqueeze(0).unsqueeze(2))
        self._columns = SampledColumns.of(mask, shape, dimensions)
        self._cast: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def _apply(self, *args: Any, **kwargs: Any) -> CartesianFourier:
        super()._apply(*args, **kwargs)
        self._cast.clear()
        self._norms.clear()
        return self

    @property
    def coil_maps(self) -> Tensor | None:
        """The sensitivities, shape (*batch_shape, coils, *image_shape); None for an operator without."""
        if not self._has_maps:
            return None
        p, _ = _centring(self.domain_shape, self.dimensions)
        maps = self._maps * p.conj().to(self._maps)
        return maps[0] if len(maps) == 1 else maps.unflatten(0, self.batch_shape)

    @property
    def sampled(self) -> Tensor | None:
        """Where a measurement says something: bool, broadcasts against it; None for everywhere."""
        if self.mask is None or not self._has_maps:
            return self.mask
        event = len(self.domain_shape)
        return with_axes(self.mask, event).unsqueeze(-event - 1)

    @property
    def gram(self) -> LinearOperator:
        """A^H A, with one multiplication in k-space."""
        return _Gram(self)

    def coil_images(self, y: Tensor) -> Tensor:
        """F^H M y: the zero-filled image of each coil, in the shape of the measurement."""
        return centred_ifft(y if self.sampled is None else y * self.sampled, self.dimensions)

    def approximate_inverse(self, y: Tensor) -> Tensor:
        """The zero-filled image: A^H y over the sum of the squared sensitivities."""
        if not self._has_maps:
            return self.adjoint(y)
        power = self._maps.abs().square().sum(1).to(y.dtype.to_real())
        power = power[0] if len(power) == 1 else power.unflatten(0, self.batch_shape)
        return self.adjoint(y) / torch.where(power > 0, power, 1)

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
        """As `LinearOperator.solve`: a closed form without coil maps, conjugate gradients with them."""
        event, real = len(self.domain_shape), y.dtype.to_real()
        kept = torch.ones((), dtype=real, device=y.device) if weights is None else weights.to(real)
        if self.sampled is not None:
            kept = kept * self.sampled
        factor = torch.as_tensor(damping, dtype=real, device=y.device)
        if not self._has_maps and uniform_within(factor, event) is not None:
            x = self._in_closed_form(y, kept, factor, start)
            at_once = torch.zeros(x.shape[: x.ndim - event], dtype=real, device=y.device)
            return Solution(x, at_once.to(torch.int64), at_once, "closed form")
        # The weights join the mask, so that an iteration costs two transforms and no more.
        lined_up = self._weights(kept, tuple(y.shape[: y.ndim - len(self.range_shape)]))

        def normal(x: Tensor) -> Tensor:
            return torch.addcmul(self._normal(x, lined_up), factor, x)

        return conjugate_gradients(
            normal,
            self.adjoint(y if weights is None else weights * y),
            event_dims=event,
            start=start,
            max_iterations=max_iterations,
            rtol=rtol,
        )

    def _in_closed_form(self, y: Tensor, kept: Tensor, damping: Tensor, start: Tensor | None) -> Tensor:
        total = kept + damping
        spectrum = kept / torch.where(total > 0, total, 1) * y
        if start is None:
            return self.adjoint(spectrum)
        # Frequencies that are neither weighed nor damped stay as they were.
        spectrum = torch.where(total > 0, spectrum, centred_fft(start, self.dimensions))
        return centred_ifft(spectrum, self.dimensions)

    def _forward(self, x: Tensor) -> Tensor:
        maps, spectrum = self._factors(x.dtype)
        images, columns = self._images(x), self._columns_on(x.device)
        y = large_empty((*images.shape[:2], maps.shape[1], *self.domain_shape), x)
        expand = expanding(images, maps, self.dimensions)
        parts = blocks(y.shape[:3], self.domain_shape, y)
        if columns is not None:
            fill, forward = columns.filling(spectrum, y), columns.forward(x)
            for block in parts:
                fill(forward(expand(block)), block)
        else:
            weigh = self._weighing(spectrum)
            for block in parts:
                weigh(self._transform(expand(block)), y, block)
        return y.reshape(x.shape[: x.ndim - len(self.domain_shape)] + self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        maps, spectrum = self._factors(y.dtype)
        kspace = y.reshape(-1, math.prod(self.batch_shape), maps.shape[1], *self.domain_shape).contiguous()
        images, columns = y.new_zeros((*kspace.shape[:2], *self.domain_shape)), self._columns_on(y.device)
        combine = combining(maps, images, self.dimensions)
        parts = blocks(kspace.shape[:3], self.domain_shape, y)
        if columns is not None:
            take, adjoint = columns.taking(kspace, spectrum), columns.adjoint(y)
            for block in parts:
                combine(adjoint(take(block)), block)
        else:
            weigh, z = self._weighing(spectrum, conjugate=True), y.new_empty(0)
            for block in parts:
                if tuple(z.shape[:3]) != block.size:
                    z = y.new_empty((*block.size, *self.domain_shape))
                combine(self._transform(weigh(kspace, z, block), inverse=True), block)
        return images.reshape(y.shape[: y.ndim - len(self.range_shape)] + self.domain_shape)

    def _normal(self, x: Tensor, weights: Tensor) -> Tensor:
        """S^H F^H W F S x for W of `_weights`."""
        maps, _ = self._factors(x.dtype)
        images, columns = self._images(x), self._columns_on(x.device)
        result = torch.zeros_like(images)
        expand, weigh = expanding(images, maps, self.dimensions), self._weighing(weights)
        combine = combining(maps, result, self.dimensions)
        forward: Callable[[Tensor], Tensor] = self._transform
        inverse: Callable[[Tensor], Tensor] = partial(self._transform, inverse=True)
        if columns is not None:
            forward, inverse = columns.forward(x), columns.adjoint(x)
        for block in blocks((*images.shape[:2], maps.shape[1]), self.domain_shape, x):
            z = forward(expand(block))
            combine(inverse(weigh(z, z, block)), block)
        return result.reshape(x.shape)

    def _weighing(self, spectrum: Tensor, *, conjugate: bool = False) -> Callable[..., Tensor]:
        frames = self.domain_shape[: len(self.domain_shape) - self.dimensions]
        return weighing(spectrum, frames, conjugate=conjugate)

    def _images(self, x: Tensor) -> Tensor:
        """Images as (outer, inner, *image_shape), contiguous."""
        return x.reshape(-1, math.prod(self.batch_shape), *self.domain_shape).contiguous()

    def _weights(self, weights: Tensor, batch: tuple[int, ...]) -> Tensor:
        """W of `_normal` for real weights of a measurement, zero where nothing was sampled.

        Shape (outer, inner, coils, *image_shape), or 1 where they can; the scale of both transforms is in it.
        """
        event = len(self.domain_shape)
        weights = with_axes(weights * self._scale**2, len(self.range_shape))
        if not self._has_maps:
            weights = weights.unsqueeze(-event - 1)
        transformed = self.domain_shape[event - self.dimensions :]
        weights = weights.expand(weights.shape[: weights.ndim - self.dimensions] + transformed)
        lead, own = weights.shape[: -event - 1], weights.shape[-event - 1 :]
        if math.prod(lead) == 1:
            weights = weights.reshape(1, 1, *own)
        else:
            weights = weights.expand(batch + own).reshape(-1, math.prod(self.batch_shape), *own)
        columns = self._columns_on(weights.device)
        return weights.contiguous() if columns is None else columns.factor(weights)

    @property
    def _scale(self) -> float:
        """What makes a transform unitary."""
        return 1 / math.sqrt(math.prod(self.domain_shape[-self.dimensions :]))

    def _transform(self, z: Tensor, *, inverse: bool = False) -> Tensor:
        """Without a scale, in either direction."""
        axes = tuple(range(-self.dimensions, 0))
        return torch.fft.ifftn(z, dim=axes, norm="forward") if inverse else torch.fft.fftn(z, dim=axes)

    def _columns_on(self, device: torch.device) -> SampledColumns | None:
        return self._columns if device.type == "cpu" else None

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Maps, and the spectrum of k-space or of its sampled columns, in a precision."""
        if dtype not in self._cast:
            kind = dtype if self._spectrum.is_complex() else dtype.to_real()
            columns = self._columns_on(self._spectrum.device)
            spectrum = self._spectrum if columns is None else columns.factor(self._spectrum)
            self._cast[dtype] = self._maps.to(dtype), spectrum.to(kind)
        return self._cast[dtype]

    def _describe(self) -> str:
        parts = [f"{self.range_shape[0]} coils" if self._has_maps else "one coil"]
        if self.dimensions < len(self.domain_shape):
            parts.append(f"{self.dimensions}-D transforms")
        if self.mask is not None:
            parts.append(f"{100 * float(self.mask.float().mean()):.3g} % sampled")
        return ", ".join(parts)


class _Gram(LinearOperator):
    """A^H A of a `CartesianFourier`."""

    def __init__(self, operator: CartesianFourier) -> None:
        super().__init__(
            operator.domain_shape,
            operator.domain_shape,
            domain_dtype=operator.domain_dtype,
            accepts=operator.accepts,
            batch_shape=operator.batch_shape,
        )
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        sampled = self.operator.sampled
        kept = torch.ones((), device=x.device) if sampled is None else sampled
        batch = tuple(x.shape[: x.ndim - len(self.domain_shape)])
        return self.operator._normal(x, self.operator._weights(kept.to(x.dtype.to_real()), batch))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _describe(self) -> str:
        return f"Gram of [{self.operator!r}]"


def _centring(shape: Sequence[int], dimensions: int) -> tuple[Tensor, complex]:
    """p, shape (..., *transformed axes), and the number q of `CartesianFourier`, complex128."""
    p, q = torch.ones((), dtype=torch.complex128), 1.0 + 0.0j
    first = len(shape) - dimensions
    for axis, n in enumerate(shape):
        # Whole turns taken out first, in integers: even sizes give exactly 1 and -1.
        turns = [(n // 2 * k) % n / n if axis >= first else 0.0 for k in (*range(n), n // 2)]
        phase = torch.tensor([_turn(t) for t in turns], dtype=torch.complex128)
        line = phase[:-1] if axis >= first else phase[:1]
        p = p.unsqueeze(-1) * line
        q *= complex(phase[-1].conj())
    return p, q


def _turn(fraction: float) -> complex:
    exact = {0.0: 1.0 + 0.0j, 0.5: -1.0 + 0.0j}
    angle = 2 * math.pi * fraction
    return exact.get(fraction, complex(math.cos(angle), math.sin(angle)))


def _lined_up(tensor: Tensor, batch: tuple[int, ...], event: int) -> Tensor:
    """Leading axes as one: its length is 1, or that of the whole batch."""
    lead, shape = tensor.shape[: tensor.ndim - event], tensor.shape[tensor.ndim - event :]
    if math.prod(lead) == 1:
        return tensor.reshape(1, *shape)
    return tensor.expand(batch + shape).reshape(-1, *shape)
