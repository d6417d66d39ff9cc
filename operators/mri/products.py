"""Products of images, coil maps and spectra: block by block, fused on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from operators.ct.projectors.threads import in_threads, spans

# Coil data that are worked on at once: what stays in a core's cache, and what fills a GPU.
_BYTES_AT_ONCE = {"cpu": 2**21, "cuda": 2**30}
_POINTS_A_THREAD = 2**14  # fewer are not worth waking one


class Block(NamedTuple):
    """Part of coil data (outer, inner, coils, *image_shape)."""

    outer: slice
    inner: slice
    coils: slice

    @property
    def start(self) -> tuple[int, int, int]:
        """Where it begins."""
        return self.outer.start, self.inner.start, self.coils.start

    @property
    def size(self) -> tuple[int, int, int]:
        """How many of each."""
        outer, inner, coils = (part.stop - part.start for part in self)
        return outer, inner, coils


def blocks(
    counts: Sequence[int], shape: Sequence[int], like: Tensor, *, at_once: int | None = None
) -> Iterator[Block]:
    """Parts of coil data, (outer, inner, coils) = `counts` of images of `shape`, to be worked on at once.

    They take at most `at_once` bytes, or a single image of one coil, if that is more.
    """
    budget = at_once or _BYTES_AT_ONCE.get(like.device.type, 2**30)
    if at_once is None and like.device.type == "cpu":
        budget *= torch.get_num_threads()
    one = math.prod(shape) * like.element_size()
    steps = []
    for count in reversed(counts):
        steps.append(min(max(budget // max(one, 1), 1), max(count, 1)))
        one *= count
    starts = [range(0, count, step) for count, step in zip(counts, reversed(steps), strict=True)]
    for i in starts[0]:
        for j in starts[1]:
            for k in starts[2]:
                ends = zip((i, j, k), counts, reversed(steps), strict=True)
                yield Block(*(slice(a, min(a + step, count)) for a, count, step in ends))


def expand(images: Tensor, maps: Tensor, block: Block, dimensions: int) -> Tensor:
    """Maps times images for the block's images and coils: shape (outer, inner, coils, *image_shape).

    images (outer, inner, *image_shape); maps (1 or inner, coils, *image_shape), where axes before the last
    `dimensions` may have length 1.
    """
    if images.device.type != "cpu":
        return _inner(maps, block)[:, block.coils] * images[block.outer, block.inner].unsqueeze(2)
    from operators.mri import product_kernels

    lead = images.ndim - 2 - dimensions
    z = images.new_empty((*block.size, *images.shape[2:]))
    arguments = (
        _frames(images, 2, lead),
        _frames(maps, 2, lead),
        frame_table(maps.shape[2 : 2 + lead], images.shape[2 : 2 + lead]),
        _frames(z, 3, lead),
        block.start,
    )
    _by_points(product_kernels.expand, arguments)
    return z


def combine(z: Tensor, maps: Tensor, images: Tensor, block: Block, dimensions: int) -> None:
    """Add the sum over the block's coils of conj(maps) times z to images; shapes as in `expand`."""
    if z.device.type != "cpu":
        share = _inner(maps, block)[:, block.coils]
        images[block.outer, block.inner] += (share.conj() * z).sum(2)
        return
    from operators.mri import product_kernels

    lead = images.ndim - 2 - dimensions
    arguments = (
        _frames(z, 3, lead),
        _frames(maps, 2, lead),
        frame_table(maps.shape[2 : 2 + lead], images.shape[2 : 2 + lead]),
        _frames(images, 2, lead),
        block.start,
    )
    _by_points(product_kernels.combine, arguments)


def weigh(
    z: Tensor, spectrum: Tensor, out: Tensor, block: Block, dimensions: int, *, conjugate: bool = False
) -> Tensor:
    """Write spectrum, or its conjugate, times z into out for a block, and return out.

    z and out are the block, shape (outer, inner, coils, *image_shape), or the whole that it is a part of;
    spectrum (1 or outer, 1 or inner, 1 or coils, *image_shape), real or complex, where axes before the last
    `dimensions` may have length 1.
    """
    z_at, out_at = (block.start if tuple(t.shape[:3]) != block.size else (0, 0, 0) for t in (z, out))
    if z.device.type != "cpu":
        for axis, where in enumerate(block):
            if spectrum.shape[axis] > 1:
                spectrum = spectrum.narrow(axis, where.start, block.size[axis])
        given, result = (t if tuple(t.shape[:3]) == block.size else t[block] for t in (z, out))
        torch.mul(spectrum.conj() if conjugate else spectrum, given, out=result)
        return out
    from operators.mri import product_kernels

    lead = z.ndim - 3 - dimensions
    table = frame_table(spectrum.shape[3 : 3 + lead], z.shape[3 : 3 + lead])
    factor = _frames(spectrum, 3, lead)
    arguments = (
        _frames(z, 3, lead),
        z_at,
        factor,
        table,
        conjugate,
        _frames(out, 3, lead),
        out_at,
        block.start,
        block.size,
    )
    _by_points(product_kernels.weigh, arguments)
    return out


def as_array(tensor: Tensor) -> Any:
    """The tensor's memory, contiguous, as a numpy array."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()


def _by_points(kernel: Any, arguments: tuple[Any, ...]) -> None:
    points = arguments[0].shape[-1]
    parts = min(torch.get_num_threads(), max(points // _POINTS_A_THREAD, 1))
    in_threads(kernel, [(*arguments, first, last) for first, last in spans(points, parts)])


def _frames(tensor: Tensor, before: int, lead: int) -> Any:
    """The array with the `lead` axes after the first `before` as one, and all that follow as one."""
    shape = tensor.shape
    frames, points = math.prod(shape[before : before + lead]), math.prod(shape[before + lead :])
    return as_array(tensor).reshape(*shape[:before], frames, points)


def frame_table(given: Sequence[int], wanted: Sequence[int]) -> Any:
    """For every frame of shape `wanted`, flattened, which one of shape `given` it takes."""
    return np.broadcast_to(np.arange(math.prod(given)).reshape(given), wanted).reshape(-1)


def _inner(maps: Tensor, block: Block) -> Tensor:
    return maps if len(maps) == 1 else maps[block.inner]
