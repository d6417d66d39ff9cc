"""Products of images, coil maps and spectra: block by block, fused on the CPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from operators.ct.projectors.threads import in_threads, spans

# Coil data that are worked on at once: what stays in a core's cache, and what fills a GPU.
_BYTES_AT_ONCE = {"cpu": 2**21, "cuda": 2**30}
_OF_NUMPY = {torch.complex64: np.complex64, torch.complex128: np.complex128}
_ONE_FRAME = np.zeros(1, np.int64)
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
    parts = [
        [slice(start, min(start + step, count)) for start in range(0, count, step)]
        for count, step in zip(counts, reversed(steps), strict=True)
    ]
    return itertools.starmap(Block, itertools.product(*parts))


class Scratch:
    """Memory on the CPU for one block of coil data after another, the same for all of a size.

    What was written for a block is overwritten for the next: it stays in a core's cache, and no pages are
    asked for. Shape (*lead, *tail) as a tensor, and as an array (*lead, *as_shape), or as_shape where that
    begins with -1.
    """

    def __init__(self, like: Tensor, tail: Sequence[int], as_shape: Sequence[int]) -> None:
        self._like, self._tail, self._as_shape = like, tuple(tail), tuple(as_shape)
        self._flat = self._as_shape[0] == -1
        self._made: dict[tuple[int, ...], tuple[Tensor, Any]] = {}

    def __call__(self, lead: tuple[int, ...]) -> tuple[Tensor, Any]:
        """The memory for leading axes."""
        found = self._made.get(lead)
        if found is None:
            tensor = self._like.new_empty(lead + self._tail)
            as_shape = self._as_shape if self._flat else lead + self._as_shape
            found = self._made[lead] = tensor, tensor.numpy().reshape(as_shape)
        return found


def expanding(images: Tensor, maps: Tensor, dimensions: int) -> Callable[[Block], Tensor]:
    """What gives, for a block, maps times its images: shape (outer, inner, coils, *image_shape).

    On the CPU it is only good until the next block is asked for.

    images (outer, inner, *image_shape); maps (1 or inner, coils, *image_shape), where axes before the last
    `dimensions` may have length 1.
    """
    shape = images.shape[2:]
    if images.device.type != "cpu":
        return lambda block: (
            _inner(maps, block)[:, block.coils] * images[block.outer, block.inner].unsqueeze(2)
        )
    from operators.mri import product_kernels

    lead = len(shape) - dimensions
    given, shares = _frames(images, 2, lead), _frames(maps, 2, lead)
    table = frame_table(maps.shape[2 : 2 + lead], shape[:lead])

    scratch = Scratch(images, shape, given.shape[2:])

    def expand(block: Block) -> Tensor:
        z, out = scratch(block.size)
        _by_points(product_kernels.expand, (given, shares, table, out, block.start))
        return z

    return expand


def combining(maps: Tensor, images: Tensor, dimensions: int) -> Callable[[Tensor, Block], None]:
    """What adds, for a block of coil data, the sum over its coils of conj(maps) times it to images.

    Shapes are as in `expanding`.
    """
    if images.device.type != "cpu":

        def combine_elsewhere(z: Tensor, block: Block) -> None:
            share = _inner(maps, block)[:, block.coils]
            images[block.outer, block.inner] += (share.conj() * z).sum(2)

        return combine_elsewhere
    from operators.mri import product_kernels

    lead = images.ndim - 2 - dimensions
    out, shares = _frames(images, 2, lead), _frames(maps, 2, lead)
    table = frame_table(maps.shape[2 : 2 + lead], images.shape[2 : 2 + lead])

    def combine(z: Tensor, block: Block) -> None:
        given = as_array(z).reshape(*block.size, *out.shape[2:])
        _by_points(product_kernels.combine, (given, shares, table, out, block.start))

    return combine


def weighing(
    spectrum: Tensor, frames: Sequence[int], *, conjugate: bool = False
) -> Callable[[Tensor, Tensor, Block], Tensor]:
    """What writes, for a block, the spectrum or its conjugate times z into out, and returns out.

    z and out are the block, shape (outer, inner, coils, *frames, ...), or the whole that it is a part of;
    spectrum (1 or outer, 1 or inner, 1 or coils, *frames, ...), real or complex, where axes of frames may
    have length 1.
    """

    def ends(z: Tensor, block: Block) -> tuple[int, int, int]:
        return (0, 0, 0) if tuple(z.shape[:3]) == block.size else block.start

    def weigh_elsewhere(z: Tensor, out: Tensor, block: Block) -> Tensor:
        factor = spectrum.conj() if conjugate else spectrum
        for axis, where in enumerate(block):
            if factor.shape[axis] > 1:
                factor = factor.narrow(axis, where.start, block.size[axis])
        given, result = (t if tuple(t.shape[:3]) == block.size else t[block] for t in (z, out))
        torch.mul(factor, given, out=result)
        return out

    if spectrum.device.type != "cpu":
        return weigh_elsewhere
    from operators.mri import product_kernels

    lead = len(frames)
    factor = _frames(spectrum, 3, lead)
    middle = (factor, frame_table(spectrum.shape[3 : 3 + lead], frames), conjugate)

    def weigh(z: Tensor, out: Tensor, block: Block) -> Tensor:
        given = _frames(z, 3, lead)
        if out is z:
            _by_points(product_kernels.scale, (given, *middle, block.start))
        else:
            result = (_frames(out, 3, lead), ends(out, block), block.start, block.size)
            _by_points(product_kernels.weigh, (given, ends(z, block), *middle, *result))
        return out

    return weigh


def as_array(tensor: Tensor) -> Any:
    """The tensor's memory, contiguous, as a numpy array."""
    if tensor.is_contiguous() and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg()):
        return tensor.numpy()
    return tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()


def large_empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of the dtype and device of another, to be written throughout.

    On the CPU its memory is numpy's, which asks the kernel for large pages: those that malloc takes from the
    kernel anew for every call, and gives back, can cost more than the transforms.
    """
    if like.device.type != "cpu":
        return like.new_empty(tuple(shape))
    return torch.from_numpy(np.empty(tuple(shape), _OF_NUMPY[like.dtype]))


def _by_points(kernel: Any, arguments: tuple[Any, ...]) -> None:
    points = arguments[0].shape[-1]
    parts = min(torch.get_num_threads(), max(points // _POINTS_A_THREAD, 1))
    if parts == 1:
        kernel(*arguments, 0, points)
    else:
        in_threads(kernel, [(*arguments, first, last) for first, last in spans(points, parts)])


def _frames(tensor: Tensor, before: int, lead: int) -> Any:
    """The array with the `lead` axes after the first `before` as one, and all that follow as one."""
    shape = tensor.shape
    frames, points = math.prod(shape[before : before + lead]), math.prod(shape[before + lead :])
    return as_array(tensor).reshape(*shape[:before], frames, points)


def frame_table(given: Sequence[int], wanted: Sequence[int]) -> Any:
    """For every frame of shape `wanted`, flattened, which one of shape `given` it takes."""
    if not wanted:
        return _ONE_FRAME
    return np.broadcast_to(np.arange(math.prod(given)).reshape(given), wanted).reshape(-1)


def _inner(maps: Tensor, block: Block) -> Tensor:
    return maps if len(maps) == 1 else maps[block.inner]
