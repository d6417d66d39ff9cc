"""How masks and coil maps are laid over images of one shape, and what they may look like."""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int, ...]


def check_mask(mask: Tensor, image_shape: Shape) -> tuple[Tensor, Shape]:
    """The mask as bool and its batch shape; ValueError unless it broadcasts against (..., *image_shape)."""
    if not isinstance(mask, Tensor):
        raise ValueError(f"mask: expected a torch.Tensor, found {type(mask).__name__}")
    trailing, batch = _split(mask.shape, len(image_shape))
    padded = image_shape[len(image_shape) - len(trailing) :]
    if any(n not in (1, size) for n, size in zip(trailing, padded, strict=True)):
        raise ValueError(
            f"mask: expected a shape that broadcasts to (..., {_commas(image_shape)}), "
            f"found {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask: expected zeros and ones, found other values")
    return mask.bool(), batch


def check_coil_maps(coil_maps: Tensor, image_shape: Shape) -> Shape:
    """The batch shape of coil maps; ValueError unless they are complex, (..., coils, *image_shape)."""
    if not isinstance(coil_maps, Tensor) or not coil_maps.is_complex():
        found = coil_maps.dtype if isinstance(coil_maps, Tensor) else type(coil_maps).__name__
        raise ValueError(f"coil_maps: expected a complex torch.Tensor, found {found}")
    trailing, leading = _split(coil_maps.shape, len(image_shape))
    if not leading or any(n not in (1, size) for n, size in zip(trailing, image_shape, strict=True)):
        raise ValueError(
            f"coil_maps: expected shape (..., coils, {_commas(image_shape)}), found {tuple(coil_maps.shape)}"
        )
    return leading[:-1]


def broadcast_batch(left: Shape, right: Shape) -> Shape:
    """The batch shape that both broadcast to."""
    try:
        return tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        raise ValueError(
            f"expected mask and coil_maps for one batch, found batch shapes {left} and {right}"
        ) from None


def with_axes(tensor: Tensor, ndim: int) -> Tensor:
    """The tensor with ones before its shape, to at least `ndim` axes."""
    return tensor.reshape((1,) * max(ndim - tensor.ndim, 0) + tuple(tensor.shape))


def _split(shape: torch.Size, event: int) -> tuple[Shape, Shape]:
    leading = max(len(shape) - event, 0)
    return tuple(shape[leading:]), tuple(shape[:leading])


def _commas(shape: Shape) -> str:
    return ", ".join(str(n) for n in shape)
