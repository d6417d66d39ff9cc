"""The affine map between images in physical units and the tensors a prior speaks of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from operators.linear import Identity, LinearOperator

if TYPE_CHECKING:
    from ctflow.problem import InverseProblem

log = logging.getLogger(__name__)

Calibration = Literal["auto", "fixed", "data"]


@dataclass(frozen=True)
class Representation:
    """image = offset + scale * tensor, with channels made of the image's real and imaginary parts.

    Images have shape (*batch, height, width); tensors (*batch, channels, height, width), one channel
    for a real image and two for a complex one. A volume is a stack of such images: its tensor has shape
    (*batch, depth, channels, height, width), so that a prior of images takes its slices for a batch.

    Parameters
    ----------
    scale, offset
        In the image's unit: numbers, or tensors of shape (*batch,), one for each image.
    complex
        Whether images are complex; `offset` must then be 0.
    calibration
        "fixed": the scale as given. "data": the scale is estimated from each measurement by `fitted`.
        "auto": as given where the measurement's own scale is within `tolerance` of it, estimated where
        it is not, as in scans whose pixel size or unit is unknown.
    peak
        Where a typical image's brightest structures lie in network units: what an estimated scale aims
        at.
    tolerance
        For "auto": the largest ratio between the given and the estimated scale that is let be.
    unit
        The unit of `scale`, for the record.
    channels
        False for priors that speak of the image itself, without a channel axis.
    """

    scale: float | Tensor = 1.0
    offset: float | Tensor = 0.0
    complex: bool = False
    calibration: Calibration = "auto"
    peak: float = 1.0
    tolerance: float = 3.0
    unit: str = "1/mm"
    channels: bool = True

    affine = True

    def __post_init__(self) -> None:
        """Refuse scales that cannot be inverted."""
        if not bool((torch.as_tensor(self.scale) > 0).all()):
            raise ValueError(f"scale: expected a positive value, found {self.scale}")
        if self.complex and bool((torch.as_tensor(self.offset) != 0).any()):
            raise ValueError(f"offset: expected 0 for complex images, found {self.offset}")
        if self.calibration not in ("auto", "fixed", "data"):
            raise ValueError(f"calibration: expected auto, fixed or data, found {self.calibration!r}")

    @staticmethod
    def identity() -> Representation:
        """Tensor and image are one and the same."""
        return Representation(calibration="fixed", unit="", channels=False)

    def decode(self, tensor: Tensor) -> Tensor:
        """The image of a network tensor."""
        if not self.channels:
            return tensor
        scale, offset = self._against(tensor)
        scaled = offset + scale * tensor
        if self.complex:
            return torch.complex(scaled.select(-3, 0), scaled.select(-3, 1))
        return scaled.squeeze(-3)

    def encode(self, image: Tensor) -> Tensor:
        """The network tensor of an image."""
        if not self.channels:
            return image
        parts = (image.real, image.imag) if self.complex else (image,)
        tensor = torch.stack(parts, dim=-3)
        scale, offset = self._against(tensor)
        return (tensor - offset) / scale

    def background(self, image_shape: Sequence[int], *, like: Tensor) -> Tensor:
        """The image of the zero tensor, shape (*batch, *image_shape) for scales of shape (*batch,)."""
        offset = torch.as_tensor(self.offset, dtype=like.dtype.to_real(), device=like.device)[..., None, None]
        return offset.expand(torch.broadcast_shapes(offset.shape, tuple(image_shape)))

    def linear(self, image_shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> LinearOperator:
        """The linear part, tensor -> scale * tensor as an image, as an operator for images of that shape."""
        if not self.channels:
            return Identity(image_shape, dtype=dtype)
        return _Decode(self, image_shape, dtype)

    def fitted(self, problem: InverseProblem) -> Representation:
        """The representation with its scale settled for one problem's data.

        The estimate puts the 99.5th percentile of the first image's magnitude, taken over 4 x 4 block
        means so that noise does not count, at `peak`. Samples of a batch share one scale, so that
        slices of one scan keep their relation.
        """
        return self if self.calibration == "fixed" else self.fitted_to(problem.initial())

    def fitted_to(self, image: Tensor) -> Representation:
        """As `fitted`, for a first image or a batch of them."""
        if self.calibration == "fixed":
            return self
        bright = brightness(image.abs())
        if bright <= 0:
            return self
        offset_ratio = float(torch.as_tensor(self.offset).max() / torch.as_tensor(self.scale).max())
        estimate = bright / (self.peak + offset_ratio)
        ratio = estimate / float(torch.as_tensor(self.scale).max())
        if self.calibration == "auto" and 1 / self.tolerance <= ratio <= self.tolerance:
            return replace(self, calibration="fixed")
        log.info("scale estimated from the measurement: %.4g (the prior's own is %s)", estimate, self.scale)
        return replace(
            self,
            scale=estimate,
            offset=estimate * offset_ratio,
            calibration="fixed",
            unit="estimated from the data",
        )

    def _against(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        values = (
            torch.as_tensor(v, dtype=tensor.dtype, device=tensor.device) for v in (self.scale, self.offset)
        )
        scale, offset = (v.reshape((*v.shape, 1, 1, 1)) if v.ndim else v for v in values)
        return scale, offset

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        return {
            "scale": _plain(self.scale),
            "offset": _plain(self.offset),
            "complex": self.complex,
            "calibration": self.calibration,
            "peak": self.peak,
            "tolerance": self.tolerance,
            "unit": self.unit,
            "channels": self.channels,
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Representation:
        """The inverse of `to_dict`."""
        tensors: dict[str, Any] = {
            k: torch.tensor(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return Representation(**tensors)


class _Decode(LinearOperator):
    """Network tensor (*batch, *slices, channels, height, width) to scale * image (*batch, *image_shape)."""

    def __init__(
        self, representation: Representation, image_shape: Sequence[int], dtype: torch.dtype
    ) -> None:
        real, kind = dtype.to_real(), representation.complex
        scale = torch.as_tensor(representation.scale)
        # Scales of a volume are those of its slices, which are no batch.
        alike = scale.numel() == 1 or len(image_shape) > 2
        super().__init__(
            (*image_shape[:-2], 2 if kind else 1, *image_shape[-2:]),
            image_shape,
            domain_dtype=real,
            range_dtype=real.to_complex() if kind else real,
            accepts=(torch.float32, torch.float64),
            batch_shape=() if alike else scale.shape,
        )
        self.representation = representation

    def _forward(self, x: Tensor) -> Tensor:
        scale, _ = self.representation._against(x)
        scaled = scale * x
        if self.representation.complex:
            return torch.complex(scaled.select(-3, 0), scaled.select(-3, 1))
        return scaled.squeeze(-3)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = (y.real, y.imag) if self.representation.complex else (y,)
        tensor = torch.stack(parts, dim=-3)
        scale, _ = self.representation._against(tensor)
        return scale * tensor

    def unitary_scale(self) -> float | Tensor | None:
        """The representation's scale, where it is one for all slices of a volume."""
        scale = self.representation.scale
        return None if isinstance(scale, Tensor) and len(self.range_shape) > 2 else scale


def brightness(image: Tensor) -> float:
    """A robust maximum: the 99.5th percentile of the 4 x 4 block means, so that noise does not count."""
    blocks = torch.nn.functional.avg_pool2d(
        image.reshape(-1, 1, *image.shape[-2:]).float(), 4, ceil_mode=True
    )
    # torch.quantile refuses large inputs; a sorted copy does not.
    ordered = blocks.flatten().sort().values
    return float(ordered[int(0.995 * (len(ordered) - 1))])


def _plain(value: float | Tensor) -> float | list[float]:
    return value.tolist() if isinstance(value, Tensor) else float(value)
