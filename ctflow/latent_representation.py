"""The map between images in physical units and the latent of an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ctflow.representation import Calibration, Representation
from operators.meter import measure

if TYPE_CHECKING:
    from ctflow.problem import InverseProblem

# Soft tissue at the middle of the autoencoder's range, as in the bundled priors.
_ATTENUATION = Representation(0.02, 0.02)
_COMPLEX_SIGNAL = Representation(complex=True, calibration="data", unit="")


@dataclass(frozen=True)
class LatentRepresentation:
    """Image to latent and back, through an autoencoder of pictures with values in [-1, 1].

    Latents have shape (*batch, channels, height / f, width / f) for an autoencoder that shrinks by f. A real
    image becomes three equal colours, and is the mean of three; of a complex one, the real part is red
    and the imaginary part green, as in FMPlug (arXiv 2511.16520). Sizes that f does not divide are padded by
    their edges at the bottom and on the right, and cropped again.

    `decode` is differentiable but neither linear nor the exact inverse of `encode`: `affine` is False.

    Parameters
    ----------
    autoencoder
        As diffusers' `AutoencoderKL`: `encode(picture).latent_dist.mode()`, `decode(latent).sample`, and a
        `config` with `scaling_factor`, `shift_factor` and `latent_channels`.
    shrinks
        f.
    patch
        Height and width of a latent are multiples of this, as the prior's network wants.
    pixels
        The affine map between images and the autoencoder's values; unless given, `fitted` takes 0 to 0.04/mm
        to [-1, 1], or for complex images the scale of the data.
    image_shape
        (height, width) of the images; `fitted` fills it in.
    """

    autoencoder: Any
    shrinks: int
    patch: int = 1
    pixels: Representation | None = None
    image_shape: tuple[int, int] | None = None

    affine: Literal[False] = False
    channels = True

    @property
    def calibration(self) -> Calibration:
        """That of the pixels."""
        return "auto" if self.pixels is None else self.pixels.calibration

    def fitted(self, problem: InverseProblem) -> LatentRepresentation:
        """The representation with its scale and size settled for one problem's data."""
        if self.image_shape == tuple(problem.operator.domain_shape[-2:]) and self.calibration == "fixed":
            self._check_kind(problem.image_dtype.is_complex)
            return self
        return self.fitted_to(problem.initial())

    def fitted_to(self, image: Tensor) -> LatentRepresentation:
        """As `fitted`, for a first image or a batch of them."""
        self._check_kind(image.is_complex())
        pixels = self.pixels
        if pixels is None:
            pixels = _COMPLEX_SIGNAL if image.is_complex() else _ATTENUATION
        height, width = image.shape[-2:]
        return replace(self, pixels=pixels.fitted_to(image), image_shape=(height, width))

    def _check_kind(self, complex_images: bool) -> None:
        if self.pixels is not None and self.pixels.complex != complex_images:
            expected, found = (
                "complex" if kind else "real" for kind in (self.pixels.complex, complex_images)
            )
            raise ValueError(f"latent prior: expected a problem of {expected} images, found {found} ones")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one image's latent, (channels, height, width)."""
        height, width = self._padded
        return int(self.autoencoder.config.latent_channels), height // self.shrinks, width // self.shrinks

    def decode(self, latent: Tensor) -> Tensor:
        """The image of a latent, shape (*batch, height, width) in physical units."""
        pixels, _ = self._settled
        return pixels.decode(self.decode_pixels(latent))

    def encode(self, image: Tensor) -> Tensor:
        """The latent of an image, shape (*batch, channels, height / f, width / f)."""
        pixels, (height, width) = self._settled
        if tuple(image.shape[-2:]) != (height, width):
            raise ValueError(
                f"latent prior: expected images of {height} x {width} pixels, found {tuple(image.shape[-2:])}"
            )
        values = pixels.encode(image)
        flat = values.reshape(-1, *values.shape[-3:])
        colours = (
            [flat[:, 0], flat[:, 1], torch.zeros_like(flat[:, 0])] if pixels.complex else [flat[:, 0]] * 3
        )
        below, right = (whole - part for whole, part in zip(self._padded, (height, width), strict=True))
        picture = torch.nn.functional.pad(torch.stack(colours, 1), (0, right, 0, below), mode="replicate")
        config = self.autoencoder.config
        with measure("autoencoder"):
            mode = self.autoencoder.encode(picture.to(self._dtype)).latent_dist.mode()
        latent = (mode.to(values.dtype) - (config.shift_factor or 0.0)) * config.scaling_factor
        return latent.reshape(*values.shape[:-3], *latent.shape[1:])

    def decode_pixels(self, latent: Tensor) -> Tensor:
        """The autoencoder's values of a latent, shape (*batch, 1 or 2, height, width), for `pixels`."""
        pixels, (height, width) = self._settled
        config = self.autoencoder.config
        flat = latent.reshape(-1, *latent.shape[-3:])
        unscaled = flat / config.scaling_factor + (config.shift_factor or 0.0)
        with measure("autoencoder"):
            picture = self.autoencoder.decode(unscaled.to(self._dtype)).sample
        picture = picture[..., :height, :width].to(latent.dtype)
        values = picture[:, :2] if pixels.complex else picture.mean(1, keepdim=True)
        return values.reshape(*latent.shape[:-3], *values.shape[1:])

    @property
    def _settled(self) -> tuple[Representation, tuple[int, int]]:
        if self.pixels is None or self.image_shape is None:
            raise ValueError(
                "latent prior: expected the size and scale of images; take fitted(problem) first"
            )
        return self.pixels, self.image_shape

    @property
    def _padded(self) -> tuple[int, int]:
        multiple = self.shrinks * self.patch
        height, width = self._settled[1]
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.autoencoder.parameters()).dtype

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        config = self.autoencoder.config
        return {
            "autoencoder": type(self.autoencoder).__name__,
            "scaling_factor": config.scaling_factor,
            "shift_factor": config.shift_factor,
            "shrinks": self.shrinks,
            "patch": self.patch,
            "pixels": None if self.pixels is None else self.pixels.to_dict(),
            "image_shape": None if self.image_shape is None else list(self.image_shape),
        }
