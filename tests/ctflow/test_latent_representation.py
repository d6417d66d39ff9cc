"""Images to latents and back: channels, sizes, scales."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.latent_representation import LatentRepresentation
from ctflow.problem import InverseProblem
from ctflow.representation import Representation
from operators.linear import Identity
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.ctflow import latents
from tests.operators.examples import random


class Folding(torch.nn.Module):
    """An autoencoder that loses nothing: a picture's 2 x 2 blocks as channels, scaled and shifted."""

    config = SimpleNamespace(latent_channels=12, scaling_factor=2.0, shift_factor=0.25)

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(3.0), requires_grad=False)

    def encode(self, picture: Tensor) -> Any:
        latent = self.gain * torch.nn.functional.pixel_unshuffle(picture, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latent))

    def decode(self, latent: Tensor) -> Any:
        return SimpleNamespace(sample=torch.nn.functional.pixel_shuffle(latent / self.gain, 2))


def fitted(shape: tuple[int, int], complex_images: bool = False, patch: int = 2) -> LatentRepresentation:
    dtype = torch.complex64 if complex_images else torch.float32
    noise = ComplexGaussianNoise(0.1) if complex_images else GaussianNoise(0.1)
    problem = InverseProblem(Identity(shape, dtype=dtype), 0.02 * torch.ones(shape, dtype=dtype), noise)
    return LatentRepresentation(Folding(), 2, patch).fitted(problem)


@pytest.mark.parametrize("complex_images", [False, True])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("shape", [(8, 12), (7, 9)])
def test_a_lossless_autoencoder_loses_nothing(
    shape: tuple[int, int], batch: tuple[int, ...], complex_images: bool
) -> None:
    representation = fitted(shape, complex_images)
    image = 0.02 * random((*batch, *shape), torch.complex64 if complex_images else torch.float32, 0)
    latent = representation.encode(image)
    assert latent.shape == (*batch, *representation.latent_shape)
    assert latent.shape[-2] % 2 == latent.shape[-1] % 2 == 0
    assert torch.allclose(representation.decode(latent), image, atol=1e-7)


def test_the_latent_has_the_pipeline_s_scale() -> None:
    """(what the encoder gives - shift) * scaling, of the picture from -1 to 1."""
    representation = fitted((4, 4))
    latent = representation.encode(torch.full((4, 4), 0.04))
    assert torch.allclose(latent, torch.full_like(latent, (3.0 - 0.25) * 2.0))


def test_complex_images_are_red_and_green() -> None:
    representation = fitted((4, 4), complex_images=True)
    latent = representation.encode(torch.full((4, 4), 1 + 2j) * 0.02)
    red, green, blue = (latent / 2 + 0.25).split(4)
    assert torch.allclose(green, 2 * red, rtol=1e-5)
    assert float(blue.abs().max()) == 0.0


def test_real_images_are_the_mean_of_the_colours() -> None:
    representation = fitted((4, 4))
    latent = representation.encode(torch.full((4, 4), 0.03))
    tinted = latent.clone()
    tinted[4:8] += 0.3 * 2.0 * 3.0
    assert torch.allclose(representation.decode(tinted), torch.full((4, 4), 0.03 + 0.1 * 0.02), atol=1e-6)


def test_real_autoencoders_of_diffusers() -> None:
    representation = LatentRepresentation(latents.autoencoder().eval(), 2, 2, image_shape=(10, 6))
    posed = InverseProblem(Identity((10, 6)), torch.rand(2, 10, 6), GaussianNoise(0.1))
    representation = representation.fitted(posed)
    latent = representation.encode(posed.measurement)
    assert latent.shape == (2, latents.CHANNELS, 6, 4)
    assert representation.decode(latent).shape == (2, 10, 6)
    latent = latent.detach().requires_grad_()
    representation.decode(latent).sum().backward()
    assert latent.grad is not None
    assert bool((latent.grad != 0).all())
    assert representation.to_dict()["autoencoder"] == "AutoencoderKL"


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected the size and scale of images; take fitted"):
        LatentRepresentation(Folding(), 2).decode(torch.zeros(1, 12, 2, 2))
    with pytest.raises(ValueError, match=r"expected images of 4 x 4 pixels, found \(4, 6\)"):
        fitted((4, 4)).encode(torch.zeros(4, 6))
    real = LatentRepresentation(Folding(), 2, pixels=Representation())
    posed = InverseProblem(
        Identity((4, 4), dtype=torch.complex64),
        torch.zeros(4, 4, dtype=torch.complex64),
        ComplexGaussianNoise(0.1),
    )
    with pytest.raises(ValueError, match="expected a problem of real images, found complex ones"):
        real.fitted(posed)
